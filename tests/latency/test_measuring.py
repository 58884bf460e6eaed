"""Figures and verdicts, on a machine whose models have known speeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeformer.inference import load
from edgeformer.latency import DeviceRunner, Measured, Subject, compare, measure
from edgeformer.latency.cuda import Cuda
from edgeformer.records.latency import LatencyComparison, Statistic, Timing
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import classifier, saved
from tests.latency.doubles import CudaDouble, Machine, ModelDouble, SensorsDouble


def subjects(machine: Machine, *ratios: float, noise: float = 0.01, gpu_share: float | None = None) -> list[Subject]:
    """The models of these speeds, and the control, which is the first one again."""
    kinds = [*(("model", ratio) for ratio in ratios), ("control", ratios[0])]
    return [
        Subject(f"m{index}", machine.runner(0.004 * ratio, noise, gpu_share), 2, kind, sensors=SensorsDouble())  # type: ignore[arg-type]
        for index, (kind, ratio) in enumerate(kinds)
    ]


def verdict(
    found: tuple[LatencyComparison, ...], timing: Timing = "end_to_end", statistic: Statistic = "median"
) -> LatencyComparison:
    return next(one for one in found if (one.timing, one.statistic) == (timing, statistic))


def timed(machine: Machine, some: list[Subject], seconds: float = 3.0) -> Measured:
    return compare(some, seconds=seconds, load=machine.load_meter(), clock=machine.clock)


def run(machine: Machine, *ratios: float, seconds: float = 3.0) -> tuple[LatencyComparison, ...]:
    return timed(machine, subjects(machine, *ratios), seconds).comparisons


def drifting(now: float) -> float:
    """Twice as slow after half a minute."""
    return 1 + (now - 100) / 30


def bursts(now: float) -> float:
    """Every fourth second something else runs, too."""
    return 1.6 if int(now) % 4 == 0 else 1.0


@pytest.mark.parametrize("slowness", [lambda now: 1.0, drifting, bursts])
def test_planted_differences(slowness: Callable[[float], float]) -> None:
    """The calibration in small: equals, and 1 % and 5 % of difference either way, each several times."""
    verdicts: dict[float, list[str]] = {}
    for ratio in (1.0, 1.01, 1.05, 0.95):
        for seed in range(8):
            found = verdict(run(Machine(seed, slowness), 1.0, ratio, seconds=1.5))
            verdicts.setdefault(ratio, []).append(found.verdict)
    assert {"faster", "slower"}.isdisjoint(verdicts[1.0])
    assert {"faster", "slower"}.isdisjoint(verdicts[1.01])
    assert verdicts[1.05] == ["slower"] * 8
    assert verdicts[0.95] == ["faster"] * 8


def test_the_figures_of_a_comparison() -> None:
    machine = Machine()
    found = timed(machine, subjects(machine, 1.0, 0.5))
    one = verdict(found.comparisons)
    assert (one.name, one.reference, one.batch, one.rounds) == ("m1", "m0", 2, 40)
    assert one.ratio == pytest.approx(0.5, rel=0.01)
    assert one.low is not None
    assert one.high is not None
    assert one.low < 0.5 < one.high
    assert one.noise is not None
    assert 0 < one.noise < 0.02
    assert one.limit == 0.02
    assert [figures.name for figures in found.figures] == ["m0", "m1", "m2"]
    assert [figures.kind for figures in found.figures] == ["model", "model", "control"]
    assert found.figures[1].end_to_end.p50.ms == pytest.approx(2.0, rel=0.01)
    assert found.figures[1].images_per_second == pytest.approx(2 / 0.002, rel=0.01)
    assert [len(trace) for trace in found.traces] == [figures.end_to_end.samples for figures in found.figures]
    assert found.traces[0][0].start < found.traces[0][-1].start


def test_each_kind_of_time_and_each_statistic_is_judged_apart() -> None:
    machine = Machine()
    some = subjects(machine, 1.0, 1.0, gpu_share=0.5)
    faster_gpu = replace(some[1], runner=machine.runner(0.004, 0.01, gpu_share=0.4))
    found = timed(machine, [some[0], faster_gpu, some[2]], 4.0).comparisons
    assert [(one.timing, one.statistic) for one in found] == [
        ("end_to_end", "median"),
        ("end_to_end", "p99"),
        ("gpu", "median"),
        ("gpu", "p99"),
    ]
    assert verdict(found).verdict == "no difference"
    assert verdict(found, "gpu").verdict == verdict(found, "gpu", "p99").verdict == "faster"
    assert verdict(found, "gpu").ratio == pytest.approx(0.8, rel=0.01)
    # One that is on the CPU has no GPU time to be compared.
    on_cpu = replace(some[1], runner=machine.runner(0.004))
    assert {one.timing for one in timed(machine, [some[0], on_cpu, some[2]], 1.0).comparisons} == {"end_to_end"}


def test_every_pair_is_judged_and_the_control_is_none_of_them() -> None:
    found = run(Machine(), 1.0, 0.5, 0.8)
    pairs = [(one.name, one.reference, one.verdict) for one in found if one.statistic == "median"]
    assert pairs == [("m1", "m0", "faster"), ("m2", "m0", "faster"), ("m2", "m1", "slower")]


def test_nothing_is_decided_under_load() -> None:
    machine = Machine()
    machine.others = 0.9
    one = verdict(run(machine, 1.0, 2.0))
    assert one.verdict == "not decided"
    assert "0.90 of 2 processors" in one.reason
    assert "40 of 40 rounds" in one.reason
    assert one.ratio == pytest.approx(2.0, rel=0.01)


def test_rounds_under_load_are_left_out_where_enough_remain() -> None:
    machine = Machine()
    busy = 0.0
    last = machine.now

    def busy_seconds() -> float:
        nonlocal busy, last
        # Others take a whole processor in the first second of the timed runs.
        share = 1.0 if machine.now < began + 1.0 else 0.0
        busy += (machine.now - last) * (1 + share)
        last = machine.now
        return busy

    began = 1e9
    meter = machine.load_meter()
    meter.busy = busy_seconds
    start = meter.start

    def started() -> None:
        nonlocal began
        start()
        began = machine.now

    meter.start = started  # type: ignore[method-assign]
    found = compare(subjects(machine, 1.0, 1.1), seconds=4.0, load=meter, clock=machine.clock)
    one = verdict(found.comparisons)
    assert one.verdict == "slower"
    assert 0 < found.load.disturbed < 14
    assert one.rounds == 40 - found.load.disturbed


def test_too_few_samples() -> None:
    one = verdict(run(Machine(), 1.0, 2.0, seconds=0.1))
    assert one.verdict == "not decided"
    assert one.reason.startswith("6 rounds of blocks are too few")
    p99 = verdict(run(Machine(), 1.0, 2.0, seconds=1.0), statistic="p99")
    assert (p99.verdict, p99.ratio) == ("not decided", None)
    assert "p99 needs 662 samples, and there are 160: measure 5 times as long" in p99.reason


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (SensorsDouble(1000), SensorsDouble(1021), "1021 MHz for m1, 1000 MHz for m0"),
        (SensorsDouble(throttled=("heat",)), SensorsDouble(), "slowed down while m0 ran: heat"),
        (SensorsDouble(), SensorsDouble(throttled=("heat",)), "slowed down while m1 ran: heat"),
    ],
)
def test_clocks_have_to_agree(first: SensorsDouble, second: SensorsDouble, words: str) -> None:
    machine = Machine()
    some = subjects(machine, 1.0, 2.0)
    some = [replace(some[0], sensors=first), replace(some[1], sensors=second), some[2]]
    one = verdict(timed(machine, some, 1.0).comparisons)
    assert one.verdict == "not decided"
    assert words in one.reason


def test_clocks_that_agree_decide() -> None:
    machine = Machine()
    some = subjects(machine, 1.0, 2.0)
    some = [replace(some[0], sensors=SensorsDouble(1000)), replace(some[1], sensors=SensorsDouble(1019)), some[2]]
    found = timed(machine, some, 1.0)
    assert verdict(found.comparisons).verdict == "slower"
    clock = found.figures[1].state.clock_mhz
    assert clock is not None
    assert clock.mean == 1019


def test_a_session_that_differs_from_itself_decides_less() -> None:
    """The control is 4 % slower than the same model: then 4 % of the candidate are no reason to say anything."""
    machine = Machine()
    some = subjects(machine, 1.0, 1.04)
    some[2] = replace(some[2], runner=machine.runner(0.004 * 1.04))
    one = verdict(timed(machine, some).comparisons)
    assert one.verdict == "not decided"
    assert one.noise == pytest.approx(0.04, abs=0.005)
    assert one.limit == one.noise


def test_a_warm_up_that_did_not_settle_is_noted() -> None:
    machine = Machine(slowness=lambda now: 1 + (now - 100.0))
    found = timed(machine, subjects(machine, 1.0)[:1], 1.0).figures[0]
    assert not found.warm_up.settled
    assert "the warm-up did not settle" in found.notes[0]


def test_several_models_need_a_control() -> None:
    some = subjects(Machine(), 1.0, 1.0)
    with pytest.raises(ValueError, match="control"):
        compare(some[:2])
    with pytest.raises(ValueError, match="subject"):
        compare([])


def test_measure_runs_one_model(tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "small.onnx")
    with load(path, threads=1) as model:
        found = measure(model, 3, seconds=0.2)
        assert model.describe().backend == found.backend == "onnxruntime"
    assert (found.name, found.batch, found.kind, found.device, found.gpu) == ("small.onnx", 3, "model", "CPU", None)
    assert found.gpu_note == "ONNX Runtime runs it on the CPU"
    assert found.end_to_end.samples > 662
    assert 0 < (found.end_to_end.p50.ms or 0) < (found.end_to_end.p99.ms or 0) <= (found.end_to_end.max.ms or 0)


def test_measure_on_a_gpu_tells_the_gpus_time(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = CudaDouble()
    devices = []

    def opened(device: int) -> Cuda:
        devices.append(device)
        return Cuda(device, driver)

    monkeypatch.setattr("edgeformer.latency.measuring.Cuda", opened)
    found = measure(ModelDouble(driver), 2, seconds=0.05)  # type: ignore[arg-type]
    assert found.gpu is not None
    assert (found.gpu.max.ms, found.gpu_note, devices) == (5.0, "", [0])
    assert driver.alive == set()


def test_measure_closes_no_runner_that_it_was_given() -> None:
    cuda = CudaDouble()
    with Cuda(library=cuda) as device:
        runner = DeviceRunner(ModelDouble(cuda), 4, device)  # type: ignore[arg-type]
        found = measure(
            ModelDouble(cuda),  # type: ignore[arg-type]
            4,
            seconds=0.1,
            name="given",
            runner=runner,
            sensors=SensorsDouble(temperature_c=50),
        )
        assert runner.graph_state == "1 of 1 shapes captured"
        runner.close()
    assert (found.name, found.precision, found.backend, found.device) == ("given", "int8", "tensorrt", "GPU 0")
    assert found.gpu is not None
    assert (found.gpu.max.ms, found.gpu.cv) == (5.0, 0.0)
    assert found.state.temperature_c is not None
    assert found.state.temperature_c.greatest == 50
