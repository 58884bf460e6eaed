"""What the op is called, in graphs and in TensorRT's plugin registry. Needs nothing, so that a device can ask."""

from __future__ import annotations

__all__ = ["DOMAIN", "OP_TYPE", "OP_VERSION"]

DOMAIN = "edgeformer"
OP_TYPE = "BiLevelRoutingAttention"
OP_VERSION = 1
