"""edgeformer: from a trained BiFormer to a parity-checked TensorRT engine.

    import edgeformer as ef

    result = ef.build("biformer_tiny", checkpoint="biformer_tiny.pth", precision="int8", data="images/",
                      target="rtx-40", output="bundle")

Importing this package pulls in neither torch nor TensorRT nor ONNX: each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from edgeformer.version import __version__

if TYPE_CHECKING:
    from edgeformer.bundle import open_bundle as open_bundle
    from edgeformer.data import open_samples as open_samples
    from edgeformer.engine.builder import build_engine as build_engine
    from edgeformer.engine.targets import get_target as get_target
    from edgeformer.engine.targets import list_targets as list_targets
    from edgeformer.errors import EdgeformerError as EdgeformerError
    from edgeformer.errors import EnvironmentFault as EnvironmentFault
    from edgeformer.errors import GateMissed as GateMissed
    from edgeformer.errors import InputError as InputError
    from edgeformer.export import export_onnx as export_onnx
    from edgeformer.graph.fuse import fuse as fuse
    from edgeformer.graph.onnx_files import load_model as load_model
    from edgeformer.graph.onnx_files import save_model as save_model
    from edgeformer.graph.types import to_float_type as to_float_type
    from edgeformer.inference import load as load
    from edgeformer.models import create_model as create_model
    from edgeformer.models import from_reference as from_reference
    from edgeformer.models import list_models as list_models
    from edgeformer.models import load_checkpoint as load_checkpoint
    from edgeformer.pipeline import build as build
    from edgeformer.pipeline import export_model as export_model
    from edgeformer.pipeline import finish_bundle as finish_bundle
    from edgeformer.pipeline import verify_bundle as verify_bundle
    from edgeformer.quantization.aware_training import fake_quantize as fake_quantize
    from edgeformer.quantization.precisions import quantize as quantize
    from edgeformer.supervision.limits import time_limit as time_limit

# Where each public name lives.
_HOMES = {
    "build": "edgeformer.pipeline",
    "build_engine": "edgeformer.engine.builder",
    "create_model": "edgeformer.models",
    "EdgeformerError": "edgeformer.errors",
    "EnvironmentFault": "edgeformer.errors",
    "export_model": "edgeformer.pipeline",
    "export_onnx": "edgeformer.export",
    "fake_quantize": "edgeformer.quantization.aware_training",
    "finish_bundle": "edgeformer.pipeline",
    "from_reference": "edgeformer.models",
    "fuse": "edgeformer.graph.fuse",
    "GateMissed": "edgeformer.errors",
    "get_target": "edgeformer.engine.targets",
    "InputError": "edgeformer.errors",
    "list_models": "edgeformer.models",
    "list_targets": "edgeformer.engine.targets",
    "load": "edgeformer.inference",
    "load_checkpoint": "edgeformer.models",
    "load_model": "edgeformer.graph.onnx_files",
    "open_bundle": "edgeformer.bundle",
    "open_samples": "edgeformer.data",
    "quantize": "edgeformer.quantization.precisions",
    "save_model": "edgeformer.graph.onnx_files",
    "time_limit": "edgeformer.supervision.limits",
    "to_float_type": "edgeformer.graph.types",
    "verify_bundle": "edgeformer.pipeline",
}

__all__ = ["__version__", *_HOMES]

# ONNX Runtime's wheels report their use to Microsoft, and keep a database and an identifier in the user's cache for
# it. It reads this variable once, when it is imported, whoever imports it; whoever wants the reports sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeformer' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
