"""``manifest.json``: what a bundle is, what made it, and the hash of every file in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from edgeformer.artifacts import sha256_of_bytes, sha256_of_file
from edgeformer.bundle.application import ApplicationRecord
from edgeformer.bundle.contents import check_links
from edgeformer.bundle.details import Details
from edgeformer.bundle.files import MANIFEST, FileName
from edgeformer.errors import InputError
from edgeformer.records.base import Record, with_sms
from edgeformer.records.terms import Flavour, Precision, Verdict
from edgeformer.records.verification import Score
from edgeformer.text import parse_json, shortened

__all__ = [
    "MANIFEST",
    "FileRecord",
    "Manifest",
    "ModelRecord",
    "StageRecord",
    "TargetRecord",
    "TensorRecord",
    "files_of_older",
    "manifest_schema",
    "open_bundle",
    "read_manifest",
    "stage_key",
]

SCHEMA_VERSION: Literal[3] = 3

D = TypeVar("D", bound=Record)


class FileRecord(Record):
    """One file of the bundle."""

    sha256: str
    size: int = Field(ge=0, description="bytes")


class TensorRecord(Record):
    """A network input or output; symbolic dimensions are strings."""

    name: str
    dtype: str
    shape: list[int | str]


class StageRecord(Record):
    """What one stage of the build did.

    ``key`` hashes everything the stage's result depends on; a later build with the same key reuses ``files``.
    ``verdict`` is ``passed``, ``missed``, ``not judged`` (no gate applies; ``note`` says why) or ``not run``.
    """

    name: str
    key: str
    seconds: float = Field(ge=0, description="wall time of the run that made the files")
    reused: bool = False
    files: list[FileName] = Field(default_factory=list)
    gate: str | None = None
    verdict: Verdict = "not judged"
    note: str | None = None
    details: Details | None = None

    @model_validator(mode="after")
    def _details_are_the_stages(self) -> StageRecord:
        if self.details is not None and self.details.stage != self.name:
            raise ValueError(f"stage {self.name!r} has the details of stage {self.details.stage!r}")
        return self


class GraphNormalization(Record):
    """``(x / 255 - mean) / std`` for R, G and B, in the graph."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ModelRecord(Record):
    """Where the model came from: a registry name with a checkpoint, or an ONNX file."""

    source: Literal["registry", "onnx"]
    name: str
    overrides: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    checkpoint_key: str | None = None
    weights: str | None = None
    normalized_in_graph: GraphNormalization | None = Field(
        default=None, description="what `--input uint8` put in front of the model, into its graph; null without it"
    )
    path: str | None = None
    sha256: str | None = None


class TargetRecord(Record):
    """The machine the engine is for, as the targets table had it."""

    name: str
    description: str
    sm: int = Field(description="compute capability times ten; the lowest of several")
    sms: tuple[int, ...] = Field(default=(), description="all compute capabilities that the engine is for")
    cpu: str
    flavour: Flavour
    tensorrt_minimum: str
    tensorrt_below: str
    memory_gb: float | None = Field(description="null where it is not known")
    built: str

    _sms = model_validator(mode="before")(with_sms)


class Manifest(Record):
    """``manifest.json``: what the bundle is, what made it, and what was and was not verified."""

    schema_version: Literal[3] = SCHEMA_VERSION
    edgeformer: str
    created: str = Field(description="UTC, ISO 8601")
    libraries: dict[str, str]
    model: ModelRecord
    precision: Precision
    engine_precision: Precision | None = Field(
        default=None, description="the engine's, where `finish --autotune` chose another than `precision`; else null"
    )
    target: TargetRecord
    batch: list[int] | None = Field(description="minimum, optimum, maximum; null for a static graph")
    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    application: ApplicationRecord
    stages: list[StageRecord]
    accuracy: dict[Precision, Score] = Field(
        description="of the forms of the model, by precision; empty without labels"
    )
    files: dict[FileName, FileRecord]

    def stage(self, name: str) -> StageRecord | None:
        """The record of the stage called ``name``, if the build had one."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def details(self, kind: type[D]) -> D | None:
        """What the stage whose details are of type ``kind`` found, if the build had it and it found anything."""
        return next((stage.details for stage in self.stages if isinstance(stage.details, kind)), None)


class _AnyManifest(BaseModel):
    """What a manifest has in every schema version."""

    schema_version: int
    files: dict[FileName, FileRecord]


def files_of_older(bundle: Path) -> dict[str, FileRecord] | None:
    """The files that a bundle of an older schema version lists, by name; None for anything else."""
    try:
        manifest = _AnyManifest.model_validate_json((bundle / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None
    return dict(manifest.files) if manifest.schema_version < SCHEMA_VERSION else None


def manifest_schema() -> dict[str, Any]:
    """The JSON schema of ``manifest.json``, as JSON Schema 2020-12."""
    schema = Manifest.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def stage_key(stage: str, **inputs: Any) -> str:
    """SHA-256 over a stage's name and everything its result depends on, as canonical JSON.

    Raises:
        TypeError: a value has no JSON form; hash it first.
    """
    text = json.dumps({"stage": stage, **inputs}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of_bytes(text.encode())


def read_manifest(bundle: Path) -> Manifest:
    """Read and validate a bundle's manifest without touching its other files.

    Raises:
        InputError: no such folder, no manifest in it, or one this version cannot read.
    """
    path = bundle / MANIFEST
    if not bundle.is_dir():
        raise InputError("EF701", f"{bundle}: no such bundle; `edgeformer build ... -o {bundle}` makes one")
    try:
        if path.exists() and not path.is_file():
            raise InputError("EF702", f"{path}: is no file; build it again")
        content = path.read_bytes()
        _check_version(path, content)
        return Manifest.model_validate_json(content)
    except FileNotFoundError:
        raise InputError("EF701", f"{bundle}: not a bundle, it has no {MANIFEST}") from None
    except OSError as error:
        raise InputError("EF102", f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        raise InputError(
            "EF702",
            f"{path}: not a manifest of schema version {SCHEMA_VERSION} ({shortened(where)}: "
            f"{shortened(first['msg'], 200)}); build it again",
        ) from None


def _check_version(path: Path, content: bytes) -> None:
    """Refuse a manifest of another schema version in one sentence, whatever else differs in it."""
    try:
        document = parse_json(content)
    except ValueError as error:
        raise InputError("EF702", f"{path}: cannot be read as JSON: {error}; build it again") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        made_by = shortened(document.get("edgeformer"), 40)
        raise InputError(
            "EF703",
            f"{path} has schema version {version}, made by edgeformer {made_by}, and this edgeformer reads version "
            f"{SCHEMA_VERSION}: build the bundle again",
        )


def open_bundle(bundle: Path) -> Manifest:
    """Read a bundle's manifest and check every file against its hash.

    Raises:
        InputError: as `read_manifest`, or files are missing or changed (all are listed), or links lead out of the
            bundle.
    """
    manifest = read_manifest(bundle)
    check_links(bundle)
    faults = []
    for name, record in manifest.files.items():
        path = bundle / name
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif path.stat().st_size != record.size or sha256_of_file(path) != record.sha256:
            faults.append(f"{name}: changed since the build (SHA-256 differs)")
    if faults:
        raise InputError("EF704", f"{bundle}: damaged bundle: " + "; ".join(faults) + "; build it again")
    return manifest
