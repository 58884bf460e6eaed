"""Names of the files in a bundle."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

__all__ = [
    "CALIBRATION",
    "CANDIDATE",
    "CANDIDATE_REPORT",
    "DEVICE_PART",
    "ENGINE",
    "ENGINE_REPORT",
    "EXPORTED",
    "FINISH",
    "FUSED",
    "MANIFEST",
    "PARITY",
    "PLUGIN_GRAPH",
    "REPORT",
    "SIGNATURE",
    "TIMING_CACHE",
    "TYPED",
    "FileName",
    "engine_of",
    "graph_of",
]

MANIFEST = "manifest.json"
# Ed25519 over the manifest's bytes (`edgeformer.bundle.signature`); made after the build, so no manifest lists it.
SIGNATURE = "manifest.sig"
# Made from the manifest (`edgeformer.report`), after it: it names the hash of the manifest it shows, and none lists it.
REPORT = "report.html"
EXPORTED, FUSED, TYPED = "exported.onnx", "fused.onnx", "typed.onnx"
# The typed graph without the op's body, for a parser that would inline it although the plugin is loaded.
PLUGIN_GRAPH = "plugin.onnx"
CALIBRATION = "calibration.json"
PARITY = "parity.npz"
ENGINE = "model.engine"
# What `edgeformer.engine.build_process.write_engine` puts beside an engine.
ENGINE_REPORT = f"{ENGINE}.json"
# An engine that was built and not yet compared: nobody loads it.
CANDIDATE = "candidate.engine"
CANDIDATE_REPORT = f"{CANDIDATE}.json"
# TensorRT's timings of kernels, for the next build on the same machine.
TIMING_CACHE = "timing.cache"
# The part of edgeformer that a device needs, and the script that runs it there.
DEVICE_PART, FINISH = "device.pyz", "finish"


def graph_of(candidate: str) -> str:
    """The graph of a further candidate of ``finish --autotune``, by its name."""
    return f"autotune-{candidate}.onnx"


def engine_of(candidate: str) -> str:
    """A candidate's engine, while ``finish --autotune`` is at work; its report lies beside it."""
    return f"autotune-{candidate}.engine"


def _plain(name: str) -> str:
    if name in ("", ".", "..") or any(character in "/\\\0" for character in name):
        raise ValueError(f"{name[:100]!r} is no plain file name: files of a bundle lie in its folder")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
"""The name of a file in a bundle; no path, so that a manifest cannot reach outside of the bundle."""
