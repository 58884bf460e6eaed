"""The main job: from a model to a published bundle, and the verification of a bundle."""

from __future__ import annotations

from edgeformer.pipeline.block_verification import verify_bundle_blocks
from edgeformer.pipeline.building import BuildResult, build
from edgeformer.pipeline.exporting import Exported, export_model
from edgeformer.pipeline.observer import Observer
from edgeformer.pipeline.request import CALIBRATION_IMAGES, BuildRequest, ExportRequest
from edgeformer.pipeline.verification import verify_bundle
from edgeformer.records.terms import PRECISIONS, Precision

__all__ = [
    "CALIBRATION_IMAGES",
    "PRECISIONS",
    "BuildRequest",
    "BuildResult",
    "ExportRequest",
    "Exported",
    "Observer",
    "Precision",
    "build",
    "export_model",
    "verify_bundle",
    "verify_bundle_blocks",
]
