"""What a bundle is put beside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgeformer.bundle import Manifest, read_manifest
from edgeformer.pipeline.baselines import baseline_of
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import classifier, make_bundle, saved
from tests.raising import raises


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = make_bundle(tmp_path / "nano", classifier())
    saved(classifier(), path / "exported.onnx")
    return path


def manifest_of(bundle: Path, **model: Any) -> Manifest:
    """As if the bundle were made from a model with random weights."""
    manifest = read_manifest(bundle)
    random: dict[str, Any] = {"checkpoint": None, "checkpoint_sha256": None, "checkpoint_key": None, "overrides": {}}
    image = manifest.application.image
    assert image is not None
    nano = image.model_copy(update={"height": 224, "width": 224})
    return manifest.model_copy(
        update={
            "model": manifest.model.model_copy(update={**random, **model}),
            "application": manifest.application.model_copy(update={"image": nano}),
        }
    )


def test_onnx_runtime_runs_the_exported_graph(bundle: Path) -> None:
    with baseline_of("onnxruntime", bundle, read_manifest(bundle), threads=1).open(3) as subject:
        times = subject.runner.run()
        assert times.end > times.start
    assert (subject.name, subject.kind, subject.batch, subject.device) == ("ONNX Runtime", "baseline", 3, "CPU")
    import onnxruntime

    assert subject.backend_version == onnxruntime.__version__


@pytest.mark.whole
def test_pytorch_runs_the_model(bundle: Path) -> None:
    import torch

    before = torch.get_num_threads()
    baseline = baseline_of("pytorch", bundle, manifest_of(bundle, name="biformer_nano"), threads=1)
    with baseline.open(2) as subject:
        assert torch.get_num_threads() == 1
        (outputs,) = subject.runner._call()  # type: ignore[attr-defined]
        assert outputs.shape == (2, 10)
        assert not outputs.requires_grad
    assert torch.get_num_threads() == before
    assert (subject.name, subject.backend, subject.backend_version) == ("PyTorch", "pytorch", torch.__version__)


@pytest.mark.whole
def test_a_torch_compile_that_fails_says_why(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def compile(module: Any) -> Any:
        def call(images: Any) -> Any:
            raise RuntimeError("no C++ compiler\nand more")

        return call

    monkeypatch.setattr(torch, "compile", compile)
    baseline = baseline_of("torch-compile", bundle, manifest_of(bundle, name="biformer_nano"))
    with raises("EF919", "torch-compile", "no C++ compiler"), baseline.open(1):
        pass


def test_models_that_are_not_there(bundle: Path, tmp_path: Path) -> None:
    with raises("EF918", "ONNX file"):
        baseline_of("pytorch", bundle, manifest_of(bundle, source="onnx"))
    made_from = {"checkpoint": "model.pth", "checkpoint_sha256": "0" * 64}
    with raises("EF918", "model.pth", "--checkpoint"):
        baseline_of("pytorch", bundle, manifest_of(bundle, **made_from))
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    with raises("EF918", other):
        baseline_of("pytorch", bundle, manifest_of(bundle, **made_from), checkpoint=other)


def test_without_torch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline is known before torch is needed, and its lack is an error with a way out."""
    baseline = baseline_of("pytorch", bundle, manifest_of(bundle, name="biformer_nano"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with raises("EF601", "torch"), baseline.open(1):
        pass
