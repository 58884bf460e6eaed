"""Run a model: an ONNX file in ONNX Runtime, a PyTorch model, or an engine on a GPU, behind one interface.

Importing this imports neither ONNX Runtime nor torch: a device that runs engines has neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeformer.machine.backends import Flavour, installed_flavours
from edgeformer.runtime.engine_session import EngineSession
from edgeformer.runtime.gpu import can_run_engine
from edgeformer.runtime.session import Array, Session, TensorInfo, check_feeds, run_in_chunks, static_batch

if TYPE_CHECKING:
    from edgeformer.runtime.onnx_session import OnnxSession as OnnxSession
    from edgeformer.runtime.torch_session import TorchSession as TorchSession

# What needs a package that a device lacks, and where it lives.
_HOMES = {"OnnxSession": "edgeformer.runtime.onnx_session", "TorchSession": "edgeformer.runtime.torch_session"}

__all__ = [
    "Array",
    "EngineSession",
    "Flavour",
    "OnnxSession",
    "Session",
    "TensorInfo",
    "TorchSession",
    "can_run_engine",
    "check_feeds",
    "installed_flavours",
    "run_in_chunks",
    "static_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeformer.runtime' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
