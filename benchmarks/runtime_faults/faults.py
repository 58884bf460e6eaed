"""A bundle made by code, and the faults that are planted into a copy of it, or into the machine.

The engine, the driver and TensorRT are stand-ins (``runtime/tests/tensorrt/doubles``): every machine becomes one with
an RTX 40 GPU and TensorRT-RTX 1.7.1, or TensorRT 11.4 for bundles of that flavour.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeformer.bundle.manifest import SCHEMA_VERSION

__all__ = ["FAULTS", "Fault", "environment_of", "make_bundle"]

Flavour = Literal["tensorrt_rtx", "tensorrt"]

VERSIONS: dict[Flavour, tuple[str, int, str]] = {
    "tensorrt_rtx": ("1.7.1.116", 10701, "libtensorrt_rtx.so.1"),
    "tensorrt": ("11.4.0.5", 110400, "libnvinfer.so.11"),
}
"""What built the engine: version, the same as the library gives it, and the library's name."""

_PLUGINS = "libedgeformer_plugins.so"
_METADATA = "libedgeformer_plugins.json"
_ENGINE = "model.engine"
_SM = 89


def make_bundle(folder: Path, flavour: Flavour = "tensorrt_rtx", engine_bytes: int = 4096) -> Path:
    """Write a bundle that is sound, as far as the runtime reads it.

    Args:
        folder: that is made.
        flavour: of the engine.
        engine_bytes: size of the engine.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    engine = bytearray(b"e" * engine_bytes)
    if flavour == "tensorrt_rtx":
        # Its header: the magic, the size of the file, and the version.
        engine[:28] = struct.pack("<4s12xQ4B", b"vtrt", engine_bytes, 1, 7, 1, 116)
    report = {
        "flavour": flavour,
        "tensorrt_version": VERSIONS[flavour][0],
        "plugin_version": "0.1.0",
        "sm": _SM,
        "sms": [_SM],
        "engine_sha256": hashlib.sha256(engine).hexdigest(),
        "engine_bytes": engine_bytes,
        "op_nodes": 4,
        "plugin_embedded": False,
        "cuda_graphs": False,
        "profile": {"image": {"min": [1, 3, 2, 2], "opt": [4, 3, 2, 2], "max": [8, 3, 2, 2]}},
    }
    contents = {
        _ENGINE: bytes(engine),
        "model.engine.json": json.dumps(report).encode(),
        _PLUGINS: b"a plugin library" * 1000,
        _METADATA: _metadata("0.1.0"),
    }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "edgeformer": "0.1.0",
        "precision": "int8",
        "model": {"name": "biformer_nano"},
        "target": {"name": "rtx-40", "sm": _SM},
        "application": {"task": "classification", "labels": list("abcde"), "image": None},
        "stages": [{"name": "engine", "details": {"stage": "engine", "report": report}}],
        "files": {name: _record(content) for name, content in contents.items()},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _record(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _metadata(version: str) -> bytes:
    return json.dumps({"version": version, "cuda": "12.8"}).encode()


@dataclass(frozen=True)
class Fault:
    """A fault, and how it comes about.

    Attributes:
        code: of its message.
        way_out: what the message tells to do, a part of it.
        plant: changes a sound bundle.
        flavour: of the bundle's engine.
        environment: of the process, beside that of the machine.
        images: to run once it is loaded; 0 for none.
        deserialized: engines that are deserialized until it shows.
    """

    code: str
    way_out: str
    plant: Callable[[Path], object] = lambda folder: None
    flavour: Flavour = "tensorrt_rtx"
    environment: dict[str, str] = field(default_factory=dict)
    images: int = 0
    deserialized: int = 0


def _truncate(folder: Path) -> None:
    engine = folder / _ENGINE
    engine.write_bytes(engine.read_bytes()[:-100])


def _flip(name: str, place: int) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)

    return plant


def _other_plugin(folder: Path) -> None:
    """The library and its metadata of another release, put into the bundle by hand."""
    (folder / _PLUGINS).write_bytes(b"another library")
    (folder / _METADATA).write_bytes(_metadata("0.0.9"))


def _edit(folder: Path) -> None:
    """Somebody makes the engine one for their own GPU."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(f"[{_SM}]", "[86]").replace(f'"sm": {_SM}', '"sm": 86'))


FAULTS: dict[str, Fault] = {
    "truncated engine": Fault("EF704", "copy it again", _truncate),
    "flipped byte": Fault("EF704", "build it again", _flip(_ENGINE, 1000)),
    "other SM": Fault("EF751", "--target local", environment={"FAKE_DRIVER_SM": "86"}),
    "other TensorRT": Fault(
        "EF752",
        "Build it on this machine",
        flavour="tensorrt",
        environment={"FAKE_TENSORRT_VERSION": "110300"},
    ),
    "other RTX release": Fault(
        "EF753", "pip install tensorrt-rtx==1.7.1", environment={"FAKE_TENSORRT_VERSION": "10800"}
    ),
    "missing plugin": Fault("EF754", "copy the whole folder", lambda folder: (folder / _PLUGINS).unlink()),
    "plugin of another version": Fault("EF755", "from the bundle's own build", _other_plugin),
    "swapped plugin file": Fault("EF756", "copy the bundle again", _flip(_PLUGINS, 0)),
    "wrong flavour": Fault(
        "EF757",
        "build the bundle for TensorRT",
        environment={"EDGEFORMER_TENSORRT_RTX_LIBRARY": "libnvinfer.so.11", "FAKE_TENSORRT_VERSION": "110400"},
    ),
    "no driver": Fault("EF650", "the bundle on ONNX Runtime", environment={"LD_LIBRARY_PATH": ""}),
    "old driver": Fault("EF758", "install a newer driver", environment={"FAKE_DRIVER_VERSION": "11080"}),
    "edited manifest": Fault("EF759", "build the bundle again", _edit),
    "missing file": Fault("EF704", "copy it again", lambda folder: (folder / _ENGINE).unlink()),
    "profile exceeded": Fault("EF760", "split the batch", images=9, deserialized=1),
}


def environment_of(doubles: Path, log: Path, flavour: Flavour, changes: dict[str, str]) -> dict[str, str]:
    """Variables for a process on the machine that bundles of this flavour are for.

    Args:
        doubles: the folder with the stand-ins.
        log: file that the stand-in for TensorRT writes what it does to.
        flavour: of the bundle's engine.
        changes: that a fault makes to the machine.
    """
    _, version, library = VERSIONS[flavour]
    variable = f"EDGEFORMER_{flavour.upper()}_LIBRARY"
    machine = {
        "LD_LIBRARY_PATH": str(doubles),
        "FAKE_DRIVER_SM": str(_SM),
        "FAKE_DRIVER_VERSION": "12080",
        "FAKE_TENSORRT_VERSION": str(version),
        "FAKE_TENSORRT_LOG": str(log),
        variable: library,
        **changes,
    }
    return {**machine, variable: str(doubles / machine[variable])}
