"""What rows are judged by: pixels and inputs are the same images, and a part of them is spread over all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quantization import preparation
from benchmarks.quantization.preparation import _normalized, _pixels, _spread, prepare
from benchmarks.quantization.subjects import SUBJECTS, Subject
from edgeformer.artifacts import sha256_of_file
from edgeformer.models import model_info
from tests.benchmarks.quantization.graphs import weights

PREPROCESSING = model_info("biformer_nano").preprocessing


def test_pixels_survive_being_normalized_and_back() -> None:
    pixels = np.arange(2 * 16 * 8 * 3).reshape(2, 16, 8, 3).astype(np.uint8)
    images = _normalized(pixels, PREPROCESSING)
    assert images.shape == (2, 3, 16, 8)
    assert images.dtype == np.float32
    assert np.array_equal(_pixels(images, PREPROCESSING), pixels)
    white = _normalized(np.full((1, 1, 1, 3), 255, np.uint8), PREPROCESSING)[0, :, 0, 0]
    np.testing.assert_allclose(white, (1 - np.array(PREPROCESSING.mean)) / PREPROCESSING.std, rtol=1e-6)


def test_values_beyond_pixels_are_cut() -> None:
    images = 100 * weights(1, 3, 4, 4)
    assert set(np.unique(_pixels(images, PREPROCESSING))) == {0, 255}


@pytest.mark.parametrize(("count", "wanted"), [(500, 250), (500, 500), (10, 100), (7, 3)])
def test_some_of_them_spread_evenly(count: int, wanted: int) -> None:
    chosen = _spread(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert np.ptp(np.diff(chosen)) <= 1


def test_a_folder_is_made_again_for_another_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def images_of(subject: Subject) -> None:
        raise InterruptedError(subject.name)

    monkeypatch.setattr(preparation, "images_of", images_of)
    weights_file = tmp_path / "model.safetensors"
    weights_file.write_bytes(b"one")
    found = {"sha256": sha256_of_file(weights_file), "clean_asked": 5, "degraded_asked": 3, "clean_top1": 98.0}
    (tmp_path / "prepared.json").write_text(json.dumps(found))
    assert prepare(SUBJECTS["seed1"], tmp_path, tmp_path, clean=5, degraded=3) == found
    with pytest.raises(InterruptedError, match="seed1"):
        prepare(SUBJECTS["seed1"], tmp_path, tmp_path, clean=5, degraded=4)
    weights_file.write_bytes(b"another")
    with pytest.raises(InterruptedError, match="seed1"):
        prepare(SUBJECTS["seed1"], tmp_path, tmp_path, clean=5, degraded=3)
