"""Run a model: an ONNX file in ONNX Runtime, or an engine on a GPU, behind one interface."""

from __future__ import annotations

from edgeformer.machine.backends import Flavour, installed_flavours
from edgeformer.runtime.engine_session import EngineSession
from edgeformer.runtime.gpu import can_run_engine
from edgeformer.runtime.onnx_session import OnnxSession
from edgeformer.runtime.session import Array, Session, TensorInfo, check_feeds, run_in_chunks, static_batch

__all__ = [
    "Array",
    "EngineSession",
    "Flavour",
    "OnnxSession",
    "Session",
    "TensorInfo",
    "can_run_engine",
    "check_feeds",
    "installed_flavours",
    "run_in_chunks",
    "static_batch",
]
