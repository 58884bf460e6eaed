"""PyTorch to ONNX. Importing this imports no torch; exporting does."""

from __future__ import annotations

from edgeformer.export.exporter import DEFAULT_OPSET, MINIMUM_OPSET, PRODUCER, export_onnx
from edgeformer.runtime.torch_session import INPUT_NAME, TorchSession

__all__ = ["DEFAULT_OPSET", "INPUT_NAME", "MINIMUM_OPSET", "PRODUCER", "TorchSession", "export_onnx"]
