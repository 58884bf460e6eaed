"""The parts of `benchmarks/kernel_lab`: references, baselines, floors, goals, rendering."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.kernel_lab import baselines, benchmark, correctness, reference, render
from benchmarks.kernel_lab.backend import RehearsalBackend
from benchmarks.kernel_lab.budget import Budget
from benchmarks.kernel_lab.goals import floor_of, judge, needed_by_goals, share_of_roofline
from benchmarks.kernel_lab.journal import Journal, Units, load_journal
from benchmarks.kernel_lab.records import Ceilings, Machine, Phase, Report, Timing, load_report, save_report
from benchmarks.kernel_lab.shapes import TABLE, TINY, Shape
from edgeformer.ops.bi_level_routing_attention import reference as op_reference
from edgeformer.ops.bi_level_routing_attention import reference_routing
from edgeformer.ops.library import load_library

CEILINGS = Ceilings(
    copy_bytes_per_second=3.0e12, fp16_flops=8.0e14, int8_ops=1.6e15, exponentials_per_second=16 * 132 * 1.755e9
)
MACHINE = Machine("Some GPU", 90, 132, 80 << 30, 50 << 20, 232448, 1980.0, {"torch": "2.11"})


def problem(name: str) -> correctness.Problem:
    return next(one for one in correctness.awkward_problems() if one.name == name)


# --- The float64 reference on the device, against the op's own ---


# The others are slow in NumPy, and of no other kind.
SMALL = [one for one in correctness.awkward_problems() if np.prod(one.shape) <= 60_000]


@pytest.mark.parametrize("one", SMALL, ids=lambda one: one.name)
def test_torch_reference_is_the_op_s(one: correctness.Problem) -> None:
    for precision in correctness.TYPES[2:4]:  # float32 and int8
        if one.content in ("nan", "infinity") and precision.output is not None:
            continue
        attributes = one.attributes(precision)
        qkv = one.qkv(precision, torch.device("cpu"))
        expected = reference_routing(qkv.numpy(), attributes)
        routing = reference.Routing(qkv, attributes, exact=True)
        np.testing.assert_array_equal(routing.expected, expected)
        indices = torch.from_numpy(expected)
        assert routing.judge(indices) == ("", expected[..., 0].size, expected[..., 0].size)
        with np.errstate(invalid="ignore"):
            wanted = op_reference(qkv.numpy(), attributes)
        np.testing.assert_allclose(reference.attention(qkv, attributes, indices).numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_wrong_routing_is_found() -> None:
    one, precision = problem("t=15, 3 x 5"), correctness.TYPES[2]
    attributes, qkv = one.attributes(precision), one.qkv(precision, torch.device("cpu"))
    routing = reference.Routing(qkv, attributes, exact=False)
    right = torch.from_numpy(routing.expected)
    assert routing.judge(right)[0] == ""
    swapped = right.clone()
    swapped[0, 2, [0, 1]] = swapped[0, 2, [1, 0]]
    assert routing.judge(swapped)[0] == "1 of 18 lists of regions are wrong by more than FP32 rounding"
    repeated = right.clone()
    repeated[1, 3, 1] = repeated[1, 3, 0]
    assert "1 of 18" in routing.judge(repeated)[0]
    worse = right.clone()
    worse[1, 4, -1] = next(number for number in range(9) if number not in right[1, 4])
    assert "1 of 18" in routing.judge(worse)[0]
    assert routing.judge(right + 9)[0].endswith("there are 9")
    ties = problem("ties, t=16")
    exact = reference.Routing(ties.qkv(precision, torch.device("cpu")), ties.attributes(precision), exact=True)
    later = torch.from_numpy(exact.expected[..., ::-1].copy())
    assert "lists of regions differ where every sum is exact" in exact.judge(later)[0]


def test_int8_routing_must_be_exact() -> None:
    qkv = torch.full((1, 4, 4, 96), 127, dtype=torch.int8)
    qkv[:, 0, 0, 32] -= 1  # the keys of the first region are the least worse ones there can be
    attributes = Shape("small", 4, 4, 32, 2, 1).attributes(1 / 32, correctness.INT8.output)
    routing = reference.Routing(qkv, attributes, exact=False)
    assert routing.expected[0, :, 0].tolist() == [1, 1, 1, 1]
    assert routing.judge(torch.from_numpy(routing.expected)) == ("", 4, 4)
    for region in (0, 2):  # 2 is a tie, and behind 1
        wrong = torch.full((1, 4, 1), region)
        assert routing.judge(wrong)[0] == "4 of 4 lists of regions differ where every sum is exact"


def test_int8_logits_beyond_fp32_s_integers_may_be_rounded() -> None:
    qkv = torch.full((1, 64, 64, 96), 127, dtype=torch.int8)
    qkv[:, :32, :32, 32:64] = 126
    attributes = Shape("large", 64, 64, 32, 2, 1).attributes(1 / 32, correctness.INT8.output)
    routing = reference.Routing(qkv, attributes, exact=False)
    assert routing._reach.min() > 2**24
    tie = torch.full((1, 4, 1), 2)
    assert routing.expected[0, :, 0].tolist() == [1, 1, 1, 1]
    assert routing.judge(tie)[0] == ""
    assert routing.judge(torch.zeros_like(tie))[0] == "4 of 4 lists of regions are wrong by more than FP32 rounding"
    assert not routing.settled().any()


def test_ties_are_ties_and_sums_exact() -> None:
    one = problem("ties, t=16")
    attributes, qkv = one.attributes(correctness.TYPES[0]), one.qkv(correctness.TYPES[0], torch.device("cpu"))
    routing = reference.Routing(qkv, attributes, exact=True)
    rows = np.sort(routing._logits, axis=-1)
    assert (rows[..., 1:] == rows[..., :-1]).any(axis=-1).mean() > 0.3
    assert one.exact_routing
    np.testing.assert_array_equal(routing._logits, routing._logits.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda out: out * (1 + 1e-3), "relative error"),
        (lambda out: out.index_fill(2, torch.tensor([3]), float("nan")), "are finite in one of output and reference"),
        (lambda out: _with_one(out, 0.05), "one value is off by"),
    ],
)
def test_wrong_outputs_are_found(change: Any, fault: str) -> None:
    expected = torch.randn(2, 60, 60, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    good = expected.half()
    assert correctness._errors(good, expected, 4e-4)[2] == ""
    assert fault in correctness._errors(change(good.double()).float(), expected, 4e-4)[2]


def _with_one(out: torch.Tensor, error: float) -> torch.Tensor:
    changed = out.clone()
    changed[1, 5, 7, 9] += error
    return changed


def test_lepe_reference_is_torch_s_convolution(emulated_kernels: Path) -> None:
    one = dataclasses.replace(problem("heads of 12"), lepe_kernel=3)
    cases = list(correctness.check(one, RehearsalBackend(), load_library(emulated_kernels)))
    assert {case.lepe_kernel for case in cases} == {0, 3}
    assert not [case for case in cases if case.fault]


# --- Baselines ---


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "shape",
    [
        *TINY,
        Shape("rows of 2", 28, 28, 64, 7, 4),
        Shape("whole blocks", 64, 64, 32, 4, 2),
        Shape("one", 6, 10, 32, 1, 1),
    ],
    ids=lambda shape: shape.name,
)
def test_baselines_compute_the_op(shape: Shape) -> None:
    qkv = torch.randn(shape.qkv_shape(2), generator=torch.Generator().manual_seed(1))
    expected = op_reference(qkv.numpy(), shape.attributes())
    for baseline in (
        baselines.eager(shape),
        baselines.compiled(shape, "eager"),
        baselines.sdpa(shape),
        baselines.flex(shape, compile_kernel=False),
    ):
        np.testing.assert_allclose(baseline(qkv).numpy(), expected, atol=2e-5)


def test_block_mask_has_full_and_partial_blocks() -> None:
    indices = torch.tensor([[[0], [0], [1]]])
    mask = baselines.block_mask(indices, 3, 192)
    # 576 tokens in blocks of 128: 0 | 0, 1 | 1 | 2 | 2 (and the end)
    dense = mask.to_dense()[0, 0].tolist()
    assert dense == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0]]
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_num_blocks[0, 0].tolist() == [1, 1, 1, 1, 0]


def test_a_baseline_that_computes_something_else_is_not_timed(emulated_kernels: Path) -> None:
    library, shape = load_library(emulated_kernels), TINY[1]
    qkv = torch.randn(shape.qkv_shape(1)).half()
    benchmark._require_same_function("sdpa", baselines.sdpa(shape), qkv, shape, library)
    with pytest.raises(RuntimeError, match=r"flex differs from the fused op in 100\.0 % of the tokens"):
        benchmark._require_same_function("flex", lambda x: 2 * baselines.sdpa(shape)(x), qkv, shape, library)


def test_the_clock_is_read_under_a_load_of_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    answers = iter([300.0, 1900.0])
    monkeypatch.setattr(benchmark, "sm_clock_mhz", lambda: next(answers))
    assert benchmark._loaded_clock(lambda: products.append(1), 70e3, RehearsalBackend()) == 1900.0
    assert len(products) == 22  # of 70 ms
    monkeypatch.setattr(benchmark, "sm_clock_mhz", lambda: None)
    assert benchmark._loaded_clock(lambda: products.append(1), 70e3, RehearsalBackend()) is None
    assert len(products) == 22


# --- Budget, floors, goals ---


def test_budget_counts_a_clock_down() -> None:
    times = iter([100.0, 101.5, 109.0, 111.0])
    budget = Budget(10.0, lambda: next(times))
    assert budget.spent == 1.5
    assert budget.left == 1.0
    assert budget.left == -1.0


def test_units_are_dropped_kept_or_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> None:
        raise RuntimeError("no kernel image\nmore")

    taken: list[str] = []
    phase, now = Phase("benchmark", "passed", 0.0), [0.0]
    state = Journal(done={"benchmark: before"})
    units = Units(state, Budget(10.0, lambda: now[0], 0.0), RehearsalBackend())
    units.take(phase, "a", 60.0, lambda: taken.append("a"), 5.0)
    units.take(phase, "b", 60.0, failing, 5.0)
    units.take(phase, "before", 60.0, lambda: taken.append("before"), 5.0)
    now[0] = 6.0
    units.take(phase, "c", 60.0, lambda: taken.append("c"), 5.0)
    units.take(phase, "d", 60.0, lambda: taken.append("d"), 3.0)
    assert taken == ["a", "d"]
    assert phase.dropped == ["c"]
    assert (phase.status, phase.note) == ("failed", "b: RuntimeError: no kernel image")
    assert "benchmark: b: RuntimeError: no kernel image" in capsys.readouterr().out
    assert state.done == {f"benchmark: {label}" for label in ("before", "a", "b", "d")}
    assert (state.phase, state.unit) == ("benchmark", "d")
    assert state.until - time.monotonic() == pytest.approx(14.0, abs=1.0)  # 4 s left, and some more for the last


def test_a_journal_survives_the_disk(tmp_path: Path) -> None:
    state = Journal(path=tmp_path / "journal", report=report(timings=[timing()]), report_path=tmp_path / "a.json")
    state.phase, state.unit = "goals", "x"
    state.report.phases.append(Phase("goals", "passed", 1.0))  # type: ignore[union-attr]
    state.since -= 5.0
    state.give_up("hangs")
    assert load_journal(tmp_path / "journal") == state
    (phase,) = load_report(tmp_path / "a.json").phases
    assert (phase.status, phase.note) == ("failed", "x: hangs")
    assert phase.seconds == pytest.approx(6.0, abs=0.5)
    assert state.done == {"goals: x"}


def test_every_figure_that_a_goal_needs_is_measured_first(emulated_kernels: Path) -> None:
    library, hopper = load_library(emulated_kernels), dataclasses.replace(MACHINE, compute_capability=90)
    planned = list(benchmark.plan_measurements(TINY, (32, 1, 8), RehearsalBackend(), library, hopper))
    assert len({one.label for one in planned}) == len(planned)
    first = {one.label for one in planned if one.for_goals}
    needed = needed_by_goals(90)
    assert ("224 stage 1", 32, "flex") in needed
    assert ("224 stage 1", 8, "fused") not in needed
    for shape, batch, name in needed:
        assert any(label.startswith(f"{shape} batch {batch} {name} ") for label in first)
    assert not any("batch 8 eager" in label or "variant" in label or "lepe" in label for label in first)


@pytest.mark.parametrize(
    ("name", "batch", "us", "bound"),
    [("224 stage 1", 32, 17.1, "bytes"), ("224 stage 3", 32, 4.3, "bytes"), ("det stage 3", 32, 163, "exp")],
)
def test_floors(name: str, batch: int, us: float, bound: str) -> None:
    """8 bytes a token and channel over 3.0 TB/s; exponentials: 16 a clock and multiprocessor."""
    shape = next(shape for shape in TABLE if shape.name == name)
    floor = floor_of(shape, batch, "float16", CEILINGS)
    assert floor.bound == bound
    assert floor.us == pytest.approx(us, rel=0.07)


def test_floor_of_int8_moves_fewer_bytes() -> None:
    half, eight = (floor_of(TABLE[0], 32, kind, CEILINGS) for kind in ("float16", "int8"))
    assert eight.bytes_us == pytest.approx(half.bytes_us * 5 / 8)


def timing(**form: Any) -> Timing:
    values = {
        "shape": "224 stage 1",
        "batch": 32,
        "implementation": "fused",
        "input_type": "float16",
        "graph": True,
        "variant": "",
        "chosen": "gather",
        "lepe": "none",
        "programmatic_launch": False,
        "median_us": 34.2,
        "low_us": 34.0,
        "high_us": 35.0,
        "rounds": 50,
        "input_sets": 3,
    }
    return Timing(**{**values, **form})


def report(**fields: Any) -> Report:
    values = {"kind": "measurement", "started": "2030-01-02T03:04:05+00:00", "command": "benchmarks/gpu_check.py"}
    return Report(**{**values, "budget_seconds": 540.0, "machine": MACHINE, "ceilings": CEILINGS, **fields})


def test_goals_are_judged() -> None:
    timings = [
        timing(),
        timing(implementation="eager", graph=False, median_us=171.0),
        timing(implementation="sdpa", median_us=30.0),
        timing(variant="plain", median_us=1.0),
    ]
    verdicts = {
        (verdict.goal.what, verdict.goal.shape, verdict.goal.batch): verdict
        for verdict in judge(report(timings=timings), TABLE)
    }
    share = verdicts["share of the minimal-byte roofline", "224 stage 1", 32]
    assert share.reached == pytest.approx(17.1 / 34.2, rel=0.01)
    assert share.met is True
    assert verdicts["times faster than eager", "224 stage 1", 32].reached == pytest.approx(5.0)
    assert verdicts["times faster than gather + SDPA", "224 stage 1", 32].met is False
    assert verdicts["times faster than torch.compile", "224 stage 1", 32].met is None
    assert not any(goal.goal.compute_capabilities == (87,) for goal in verdicts.values())
    assert share_of_roofline(timing(), TABLE[0], CEILINGS)[0] == share.reached


# --- Records and rendering ---


def test_reports_survive_the_disk(tmp_path: Path) -> None:
    written = report(timings=[timing()], phases=[Phase("build", "passed", 1.0, "x", ["y"])])
    save_report(written, tmp_path / "new" / "a.json")
    assert load_report(tmp_path / "new" / "a.json") == written
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, "is not a report of schema"),
        ({"kind": "guess"}, "is damaged"),
        ({"timings": [{"shape": "x"}]}, "is damaged"),
        ({"extra": 1}, "is damaged"),
    ],
)
def test_damaged_reports_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.json"
    save_report(report(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        load_report(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_report(path)


def test_page_of_a_report(tmp_path: Path) -> None:
    timings = [timing(), timing(implementation="eager", median_us=171.0), timing(variant="plain", chosen="plain")]
    phases = [Phase("benchmark", "passed", 3.0, "", ["flex"])]
    save_report(report(timings=timings, phases=phases, tensorrt_rtx=["built", "runs"]), tmp_path / "a.json")
    render.render_folder(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "## Some GPU, 2030-01-02" in page
    assert "| 224 stage 1 | 32 | float16 | gather | 34.2 | 34.0 to 35.0 | 17.1 | bytes | 50 % | 50 % |" in page
    assert "171.0 (5.0)" in page
    assert "1 dropped for time, first: flex" in page
    assert "TensorRT-RTX: runs" in page
    assert "![times of all implementations](a.svg)" in page
    assert "<svg" in (tmp_path / "a.svg").read_text()
    first = (tmp_path / "a.svg").read_bytes()
    (tmp_path / "quantization.json").write_text("{}")
    render.render_folder(tmp_path)
    assert (tmp_path / "a.svg").read_bytes() == first


def test_rehearsals_do_not_go_onto_the_page(tmp_path: Path) -> None:
    save_report(report(kind="rehearsal"), tmp_path / "a.json")
    with pytest.raises(ValueError, match="is a rehearsal, whose times are made up"):
        render.render_folder(tmp_path)


def test_the_page_in_docs_is_what_the_reports_give() -> None:
    files = render.report_files(render.MEASUREMENTS)
    reports = [(load_report(path), path.with_suffix(".svg").name) for path in files]
    assert all(one.kind == "measurement" for one, _ in reports)
    assert (render.MEASUREMENTS / "README.md").read_text() == render.readme(reports)
    if not reports:
        assert "No GPU run yet; figures elsewhere are computed." in render.readme(reports)
