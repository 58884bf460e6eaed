"""The bundle: one folder with everything a build made, described and hashed by its manifest."""

from __future__ import annotations

from edgeformer.bundle.application import ApplicationRecord
from edgeformer.bundle.details import Details
from edgeformer.bundle.files import MANIFEST
from edgeformer.bundle.manifest import (
    FileRecord,
    Manifest,
    ModelRecord,
    StageRecord,
    TargetRecord,
    TensorRecord,
    manifest_schema,
    open_bundle,
    read_manifest,
    stage_key,
)
from edgeformer.bundle.publish import Staging, staging

__all__ = [
    "MANIFEST",
    "ApplicationRecord",
    "Details",
    "FileRecord",
    "Manifest",
    "ModelRecord",
    "StageRecord",
    "Staging",
    "TargetRecord",
    "TensorRecord",
    "manifest_schema",
    "open_bundle",
    "read_manifest",
    "stage_key",
    "staging",
]
