"""What an engine file shows without a GPU: its header, and the report that `builder.write_engine` put beside it.

An engine can only be deserialized on the GPU it was built for, so layers and shapes come from the report alone, and
only if the report has the file's hash. The header's layout is not documented. Two fields were right in every engine
that TensorRT-RTX 1.7.1 built here: the size of the whole file, and the version at bytes 24 to 26 (where a TensorRT
engineer says it is, https://github.com/NVIDIA/TensorRT/issues/3073). Headers that begin otherwise are not interpreted.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeformer.artifacts import sha256_of_bytes
from edgeformer.engine.build_process import SIDECAR_SUFFIX
from edgeformer.errors import InputError
from edgeformer.machine.backends import Flavour
from edgeformer.records.engine import EngineReport

__all__ = ["EngineFacts", "inspect_engine"]

_RTX_MAGIC = b"vtrt"
# Little-endian: magic, 12 bytes, size of the file, version as major, minor, patch, build (one byte each).
_HEADER = struct.Struct("<4s12xQ4B")


class EngineFacts(BaseModel):
    """What is known for certain about an engine file.

    Attributes:
        size_bytes: its size.
        sha256: its hash.
        flavour: TensorRT flavour, from the header, else from the report; ``None`` if neither has it.
        tensorrt_version: version of TensorRT that built it, from the same place.
        report: the report of the build, if one with the same hash lies beside the file.
        notes: what could not be read, and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    sha256: str
    flavour: Flavour | None
    tensorrt_version: str | None
    report: EngineReport | None
    notes: tuple[str, ...]


def inspect_engine(source: str | os.PathLike[str] | bytes) -> EngineFacts:
    """The facts of an engine file, or of a serialized engine in memory (which has no report beside it).

    Raises:
        InputError: the file is missing or empty, or shorter or longer than its header says.
    """
    notes: list[str] = []
    report = None
    if isinstance(source, bytes):
        content, name = source, "the engine"
    else:
        path = Path(source)
        name = str(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError("EF102", f"engine {path} cannot be read: {error.strerror or error}") from error
    digest = sha256_of_bytes(content)
    if not content:
        raise InputError("EF630", f"{name} is empty: build it again")
    if not isinstance(source, bytes):
        report = _report(Path(f"{path}{SIDECAR_SUFFIX}"), digest, notes)
    version = _version_in_header(content, name)
    flavour: Flavour | None = "tensorrt_rtx" if version else None
    if version is None:
        notes.append("the header is of an unknown kind, so it was not interpreted")
    if report is not None:
        flavour, version = report.flavour, report.tensorrt_version
    return EngineFacts(
        size_bytes=len(content),
        sha256=digest,
        flavour=flavour,
        tensorrt_version=version,
        report=report,
        notes=tuple(notes),
    )


def _version_in_header(content: bytes, name: str) -> str | None:
    """TensorRT-RTX's version, such as ``1.7.1``; ``None`` if the engine is not of TensorRT-RTX."""
    if not content.startswith(_RTX_MAGIC):
        return None
    size = _HEADER.unpack_from(content)[1] if len(content) >= _HEADER.size else _HEADER.size
    if size != len(content):
        raise InputError(
            "EF630",
            f"{name} is damaged: it has {len(content)} bytes, and its header says {size}. Build it again",
        )
    # The build number is cut to one byte, so it is left out.
    return ".".join(map(str, _HEADER.unpack_from(content)[2:5]))


def _report(path: Path, digest: str, notes: list[str]) -> EngineReport | None:
    try:
        report = EngineReport.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        notes.append(f"there is no report {path.name} beside it, so its layers and shapes are not known")
        return None
    except (UnicodeDecodeError, ValidationError):
        notes.append(f"{path.name} beside it is not the report of an engine build")
        return None
    if report.engine_sha256 != digest:
        notes.append(f"the report {path.name} beside it is of another engine")
        return None
    return report
