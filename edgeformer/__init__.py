"""edgeformer: from a trained BiFormer to a parity-checked TensorRT engine.

Importing this package pulls in neither torch nor TensorRT.
"""

from __future__ import annotations

__version__ = "0.1.0"
