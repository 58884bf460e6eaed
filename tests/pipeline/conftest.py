"""A nano model with random weights, exported once, and a bundle built from it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.bundle.details import EngineDetails
from edgeformer.pipeline import BuildResult, build, export_model
from edgeformer.records.engine import EngineReport


@pytest.fixture(scope="session")
def nano_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "nano.onnx"
    export_model("biformer_nano", output=path, random_weights=True)
    return path


@pytest.fixture(scope="session")
def fp16_bundle(nano_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(nano_onnx, output=tmp_path_factory.mktemp("fp16") / "bundle", target="rtx-40", batch="1:2:4")


def engine_report(result: BuildResult) -> EngineReport:
    """The report on a bundle's engine."""
    details = result.manifest.details(EngineDetails)
    assert details is not None
    assert details.report is not None
    return details.report
