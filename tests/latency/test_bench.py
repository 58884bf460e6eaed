"""Models that are loaded and timed: on ONNX Runtime, and on doubles of TensorRT and CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeformer.latency import CallRunner, Subject
from edgeformer.latency import bench as module
from edgeformer.latency.bench import Candidate, GraphChoice, Settings, bench
from edgeformer.latency.cuda import Cuda
from edgeformer.machine.devices import Gpu, GpuSurvey
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import classifier, saved
from tests.inference.conftest import small_bundle as small_bundle
from tests.latency.doubles import CudaDouble, ModelDouble
from tests.raising import raises

pytestmark = pytest.mark.usefixtures("quick_warm_up")
QUICK = Settings(seconds=0.1, threads=1, backend="onnxruntime")


def test_one_model_has_no_control_and_no_advice(small_bundle: Path) -> None:
    found = bench([Candidate("small", small_bundle)], QUICK)
    (figures,) = found.report.figures
    assert (figures.name, figures.kind, figures.precision, figures.backend) == ("small", "model", "int8", "onnxruntime")
    assert (figures.device, figures.gpu, figures.cuda_graphs, figures.batch) == ("CPU", None, False, 1)
    assert figures.host_memory_bytes is not None
    assert (found.report.comparisons, found.report.advice) == ((), None)
    assert len(found.traces[0]) == figures.end_to_end.samples
    assert found.report.machine.versions["onnxruntime"] == figures.backend_version
    assert found.gpu_problem == "ONNX Runtime was asked for"
    assert found.report.measured.endswith("+00:00")


def test_two_models_at_two_batches(small_bundle: Path, tmp_path: Path) -> None:
    large = saved(classifier(classes=4000), tmp_path / "large.onnx")
    settings = Settings(batches=(2, 1), seconds=0.15, threads=1, backend="onnxruntime")
    found = bench([Candidate("small", small_bundle), Candidate("large", large)], settings).report
    names = ["small", "large", "small, loaded again"]
    assert [(one.name, one.batch) for one in found.figures] == [(name, batch) for batch in (2, 1) for name in names]
    assert {(one.name, one.reference) for one in found.comparisons} == {("large", "small")}
    assert [(one.batch, one.statistic) for one in found.comparisons] == [
        *((2, "median"), (2, "p99"), (1, "median"), (1, "p99")),
    ]
    for one in found.comparisons:
        if one.ratio is not None:
            assert one.ratio > 1.5
    assert found.advice is not None
    assert found.advice.batch == 2
    assert found.load.rounds == 80


def test_a_baseline_takes_turns_and_gives_no_advice(small_bundle: Path) -> None:
    class Nothing:
        @contextmanager
        def open(self, batch: int) -> Iterator[Subject]:
            def call() -> float:
                return sum(range(1000))

            yield Subject("nothing", CallRunner(call), batch, "baseline", backend="python", backend_version="3")

    found = bench([Candidate("small", small_bundle)], QUICK, baselines=[Nothing()]).report
    assert [(one.name, one.kind) for one in found.figures] == [
        ("small", "model"),
        ("small, loaded again", "control"),
        ("nothing", "baseline"),
    ]
    assert {(one.name, one.reference) for one in found.comparisons} == {("nothing", "small")}
    assert found.advice is None
    assert found.machine.versions["python"] == "3"


def test_a_batch_that_the_model_does_not_take(tmp_path: Path) -> None:
    path = saved(classifier(batch=2), tmp_path / "two.onnx")
    assert bench([Candidate("two", path)], QUICK).report.figures[0].batch == 2
    with raises("EF915", path, "batch of 2", "3 is asked"):
        bench([Candidate("two", path)], Settings(batches=(3,), seconds=0.1, backend="onnxruntime"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    """A machine with a GPU, on which every model runs by TensorRT."""
    driver = CudaDouble()
    survey = GpuSurvey((Gpu(0, "RTX 9", 120, 10**9),), "600.1", "14.0", "")

    def load(path: Path, **options: Any) -> ModelDouble:
        driver.loaded.append((path.name, options["cuda_graphs"], options["trust_bundle"]))
        driver.free -= 50
        return ModelDouble(driver)

    monkeypatch.setattr(module, "find_gpus", lambda: survey)
    monkeypatch.setattr(module, "Cuda", lambda device: Cuda(device, driver))
    monkeypatch.setattr(module, "load", load)
    return driver


def test_tensorrt_with_graphs_and_without(gpu: CudaDouble) -> None:
    candidates = [Candidate("a", Path("a"), trusted=True), Candidate("b", Path("b"))]
    found = bench(candidates, Settings(batches=(2, 1), seconds=0.05))
    report = found.report
    assert gpu.loaded == [
        ("a", 0, True),
        *(("a", 0, True), ("b", 0, False), ("a", 0, True)),
        *(("a", 2, True), ("b", 2, False), ("a", 2, True)),  # a graph for each batch
    ]
    assert [one.cuda_graphs for one in report.figures] == [False] * 6 + [True] * 6
    assert [one.batch for one in report.figures] == [2, 2, 2, 1, 1, 1] * 2
    for one in report.figures:
        assert one.gpu is not None
        assert (one.gpu.max.ms, one.gpu.mean_ms) == (5.0, 5.0)
        assert (one.device, one.backend, one.gpu_note) == ("RTX 9", "tensorrt", "")
        assert one.device_memory_bytes == 50
        assert one.graph_state == "1 of 1 shapes captured"
    gpu_medians = [one for one in report.comparisons if (one.timing, one.statistic) == ("gpu", "median")]
    assert [(one.cuda_graphs, one.ratio) for one in gpu_medians] == [(False, 1.0)] * 2 + [(True, 1.0)] * 2
    assert (report.machine.gpu, report.machine.driver) == ("RTX 9", "600.1")
    assert (found.gpu_problem, gpu.alive) == ("", set())


@pytest.mark.parametrize(("choice", "graphs"), [("on", [True]), ("off", [False])])
def test_one_of_the_two(gpu: CudaDouble, choice: Any, graphs: list[bool]) -> None:
    report = bench([Candidate("a", Path("a"))], Settings(seconds=0.02, cuda_graphs=choice)).report
    assert [one.cuda_graphs for one in report.figures] == graphs
    assert report.figures[0].batch == 4


def test_onnx_runtime_has_no_graphs(small_bundle: Path) -> None:
    choices: list[GraphChoice] = ["both", "on"]
    for choice in choices:
        settings = Settings(seconds=0.05, threads=1, backend="onnxruntime", cuda_graphs=choice)
        report = bench([Candidate("small", small_bundle)], settings).report
        assert [one.cuda_graphs for one in report.figures] == [False]
