"""The main job: from a model to a published bundle, its verification, and the part of it that a device does.

Each name is loaded when it is first used: a device finishes bundles without onnx, which a build needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeformer.pipeline.block_verification import verify_bundle_blocks as verify_bundle_blocks
    from edgeformer.pipeline.building import BuildResult as BuildResult
    from edgeformer.pipeline.building import build as build
    from edgeformer.pipeline.exporting import Exported as Exported
    from edgeformer.pipeline.exporting import export_model as export_model
    from edgeformer.pipeline.finishing import FinishResult as FinishResult
    from edgeformer.pipeline.finishing import finish_bundle as finish_bundle
    from edgeformer.pipeline.observer import Observer as Observer
    from edgeformer.pipeline.request import CALIBRATION_IMAGES as CALIBRATION_IMAGES
    from edgeformer.pipeline.request import BuildRequest as BuildRequest
    from edgeformer.pipeline.request import ExportRequest as ExportRequest
    from edgeformer.pipeline.verification import verify_bundle as verify_bundle
    from edgeformer.records.terms import PRECISIONS as PRECISIONS
    from edgeformer.records.terms import Precision as Precision

# Where each name lives.
_HOMES = {
    "BuildRequest": "edgeformer.pipeline.request",
    "BuildResult": "edgeformer.pipeline.building",
    "CALIBRATION_IMAGES": "edgeformer.pipeline.request",
    "Exported": "edgeformer.pipeline.exporting",
    "ExportRequest": "edgeformer.pipeline.request",
    "FinishResult": "edgeformer.pipeline.finishing",
    "Observer": "edgeformer.pipeline.observer",
    "PRECISIONS": "edgeformer.records.terms",
    "Precision": "edgeformer.records.terms",
    "build": "edgeformer.pipeline.building",
    "export_model": "edgeformer.pipeline.exporting",
    "finish_bundle": "edgeformer.pipeline.finishing",
    "verify_bundle": "edgeformer.pipeline.verification",
    "verify_bundle_blocks": "edgeformer.pipeline.block_verification",
}

__all__ = [
    "CALIBRATION_IMAGES",
    "PRECISIONS",
    "BuildRequest",
    "BuildResult",
    "ExportRequest",
    "Exported",
    "FinishResult",
    "Observer",
    "Precision",
    "build",
    "export_model",
    "finish_bundle",
    "verify_bundle",
    "verify_bundle_blocks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeformer.pipeline' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
