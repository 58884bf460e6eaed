"""The bundle: one folder with everything a build made, described and hashed by its manifest."""

from __future__ import annotations

from edgeformer.bundle.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    ModelRecord,
    StageRecord,
    TargetRecord,
    TensorRecord,
    open_bundle,
    read_manifest,
    stage_key,
)
from edgeformer.bundle.publish import Staging, staging

__all__ = [
    "MANIFEST",
    "FileRecord",
    "Manifest",
    "ModelRecord",
    "StageRecord",
    "Staging",
    "TargetRecord",
    "TensorRecord",
    "open_bundle",
    "read_manifest",
    "stage_key",
    "staging",
]
