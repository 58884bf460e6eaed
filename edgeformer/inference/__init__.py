"""Run bundles, engines and ONNX files in an application: `load`.

A thin face of the runtime library, ``libedgeformer.so``, which C and C++ programs use as well: the checks, the
messages, the preprocessing and the backends are its. NumPy and Pillow are all that is needed here.
"""

from __future__ import annotations

from edgeformer.inference.description import Description, TensorDescription
from edgeformer.inference.loading import load
from edgeformer.inference.model import Context, Model, Prediction

__all__ = ["Context", "Description", "Model", "Prediction", "TensorDescription", "load"]
