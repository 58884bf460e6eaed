from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edgeformer.bundle
from edgeformer.graph.onnx_files import save_model
from edgeformer.pipeline import application, exporting
from edgeformer.pipeline.model_source import NamedModel, OnnxFile, model_source
from edgeformer.pipeline.sensitivity import SensitivityRequest, measure_sensitivity
from tests.graph.precision_graphs import transformer
from tests.raising import raises


@pytest.fixture
def files(tmp_path: Path) -> Path:
    save_model(transformer(), tmp_path / "fused.onnx")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(6, 3, 16, 16)).astype(np.float32))
    return tmp_path


def test_a_request_is_checked_when_it_is_made() -> None:
    with raises("EF103", "--data"):
        SensitivityRequest("model.onnx")
    with raises("EF101", "images 0"):
        SensitivityRequest("model.onnx", data="x.npy", images=0)
    with raises("EF101", "calibration_images 0"):
        SensitivityRequest("model.onnx", data="x.npy", calibration_images=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"checkpoint": "x.pth"}, "--checkpoint"),
        ({"random_weights": True}, "--random-weights"),
        ({"overrides": {"num_classes": 5}}, "--set"),
        ({"input_size": (16, 16)}, "--input-size"),
        ({"preprocessing": "none"}, "--preprocessing"),
    ],
)
def test_a_bundle_brings_its_own(files: Path, options: dict[str, Any], named: str) -> None:
    with raises("EF104", named, files):
        measure_sensitivity(SensitivityRequest(files, data=files / "images.npy", **options))


def test_a_bundle_gives_its_fused_graph(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = model_source(files / "fused.onnx")
    assert isinstance(source, OnnxFile)
    opened: list[Path] = []

    def open_bundle(folder: Path) -> Any:
        opened.append(folder)
        return SimpleNamespace()

    monkeypatch.setattr(edgeformer.bundle, "open_bundle", open_bundle)
    monkeypatch.setattr(application, "preprocessing_of", lambda manifest: source.preprocessing)
    found = measure_sensitivity(SensitivityRequest(files, data=files / "images.npy", degrade=False))
    assert opened == [files]
    expected = measure_sensitivity(SensitivityRequest(files / "fused.onnx", data=files / "images.npy", degrade=False))
    assert found == expected
    assert len(found.layers) == 6


def test_a_folder_that_is_no_bundle(files: Path) -> None:
    (files / "folder").mkdir()
    with raises("EF701", files / "folder"):
        measure_sensitivity(SensitivityRequest(files / "folder", data=files / "images.npy"))


@pytest.mark.parametrize("passed", [True, False])
def test_a_named_model_is_exported_judged_and_fused_first(
    files: Path, monkeypatch: pytest.MonkeyPatch, passed: bool
) -> None:
    asked: list[NamedModel] = []

    def export_source(source: NamedModel) -> Any:
        asked.append(source)
        verdict = SimpleNamespace(passed=passed, text="SNR 20 dB, at least 60")
        return SimpleNamespace(model=transformer(), verdict=verdict)

    fused: list[Any] = []

    def fuse(model: Any) -> Any:
        fused.append(model)
        return SimpleNamespace(model=model)

    monkeypatch.setattr(exporting, "export_source", export_source)
    monkeypatch.setattr("edgeformer.graph.fuse.fuse", fuse)
    request = SensitivityRequest(
        "biformer_nano", data=files / "images.npy", random_weights=True, input_size=(16, 16), degrade=False
    )
    if not passed:
        with raises("EF801", "SNR 20 dB, at least 60"):
            measure_sensitivity(request)
        assert not fused
        return
    report = measure_sensitivity(request)
    assert [(source.name, source.preprocessing.height) for source in asked] == [("biformer_nano", 16)]
    assert len(fused) == 1
    assert len(report.layers) == 6
