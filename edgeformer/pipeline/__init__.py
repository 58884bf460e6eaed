"""The main job: from a model to a published bundle, and the verification of a bundle."""

from __future__ import annotations

from edgeformer.pipeline.building import CALIBRATION_IMAGES, BuildResult, build
from edgeformer.pipeline.exporting import Exported, export_model
from edgeformer.pipeline.runner import PRECISIONS, Observer, Precision
from edgeformer.pipeline.verification import verify_bundle

__all__ = [
    "CALIBRATION_IMAGES",
    "PRECISIONS",
    "BuildResult",
    "Exported",
    "Observer",
    "Precision",
    "build",
    "export_model",
    "verify_bundle",
]
