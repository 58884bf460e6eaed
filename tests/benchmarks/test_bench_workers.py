from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_workers
from edgeformer.graph.onnx_files import save_model
from tests.graph.precision_graphs import transformer
from tests.quantization.test_distributed_observation import Shuffled


def test_it_compares_times_of_equal_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(transformer(), tmp_path / "model.onnx")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32))
    opened: list[str] = []

    @contextmanager
    def open_pool(where: str) -> Iterator[Shuffled]:
        opened.append(where)
        yield Shuffled()

    monkeypatch.setattr(bench_workers, "open_pool", open_pool)
    words = [str(tmp_path / "model.onnx"), "--data", str(tmp_path / "images.npy"), "--workers", "3", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", ["bench_workers", *words])
    bench_workers.main()
    told = json.loads(capsys.readouterr().out)
    assert opened == ["3"]
    assert told["equal"] is True
    assert told["layers"] == 6
    assert {name: len(values) for name, values in told["seconds"].items()} == {
        "one process": 2,
        "one thread": 2,
        "workers": 2,
    }
    one, workers = told["seconds"]["one process"], told["seconds"]["workers"]
    assert told["faster_than_one_process"] == pytest.approx(np.median(one) / np.median(workers))
