"""Names of the files in a bundle."""

from __future__ import annotations

__all__ = ["CALIBRATION", "ENGINE", "ENGINE_REPORT", "EXPORTED", "FUSED", "MANIFEST", "PARITY", "TYPED"]

MANIFEST = "manifest.json"
EXPORTED, FUSED, TYPED = "exported.onnx", "fused.onnx", "typed.onnx"
CALIBRATION = "calibration.json"
PARITY = "parity.npz"
ENGINE = "model.engine"
# What `edgeformer.engine.builder.write_engine` puts beside an engine.
ENGINE_REPORT = f"{ENGINE}.json"
