"""Names of the files in a bundle."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

__all__ = [
    "CALIBRATION",
    "ENGINE",
    "ENGINE_REPORT",
    "EXPORTED",
    "FUSED",
    "MANIFEST",
    "PARITY",
    "PLUGIN_GRAPH",
    "REPORT",
    "SIGNATURE",
    "TYPED",
    "FileName",
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
# What `edgeformer.engine.builder.write_engine` puts beside an engine.
ENGINE_REPORT = f"{ENGINE}.json"


def _plain(name: str) -> str:
    if name in ("", ".", "..") or any(character in "/\\\0" for character in name):
        raise ValueError(f"{name[:100]!r} is no plain file name: files of a bundle lie in its folder")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
"""The name of a file in a bundle; no path, so that a manifest cannot reach outside of the bundle."""
