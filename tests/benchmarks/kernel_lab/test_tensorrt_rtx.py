"""Engines of one op node: what can be known of them without a GPU."""

from __future__ import annotations

import zipfile
from pathlib import Path

import onnx
import pytest
import torch

from benchmarks.kernel_lab import benchmark, engines, flow, reference, tensorrt_rtx
from benchmarks.kernel_lab.backend import RehearsalBackend, Sample
from benchmarks.kernel_lab.budget import Budget
from benchmarks.kernel_lab.correctness import FLOAT16, INT8
from benchmarks.kernel_lab.journal import Journal, Units
from benchmarks.kernel_lab.machine import describe_rehearsal
from benchmarks.kernel_lab.records import Phase, Report
from benchmarks.kernel_lab.shapes import TINY, Shape
from edgeformer.errors import InputError
from edgeformer.machine.backends import find_backend
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.ops.bi_level_routing_attention import reference as op_reference

needs_tensorrt_rtx = pytest.mark.skipif(find_backend("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")


def case(precision: object = FLOAT16, *, timed: bool = True, shape: Shape = TINY[1]) -> engines.Case:
    return engines.Case(shape, 2, precision, timed)  # type: ignore[arg-type]


class Engine:
    """Computes what an engine should, and then spoils it."""

    activation_bytes = 3 << 20

    def __init__(self, wanted: engines.Case, factor: float = 1.0) -> None:
        self.wanted, self.factor = wanted, factor

    def run(self, *, qkv: torch.Tensor, out: torch.Tensor) -> None:
        precision = self.wanted.precision
        attributes = self.wanted.shape.attributes(precision.step, precision.output)
        out.copy_(self.factor * torch.from_numpy(op_reference(qkv.numpy(), attributes)))


@pytest.mark.parametrize("one", engines.CASES, ids=lambda one: one.name)
def test_models_hold_one_op_node_and_its_body(one: engines.Case) -> None:
    model = engines.op_model(one)
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    assert is_op(node)
    assert len(model.functions) == 1
    kind = model.graph.input[0].type.tensor_type.elem_type
    assert kind == (onnx.TensorProto.FLOAT16 if one.precision.torch_type == torch.float16 else onnx.TensorProto.INT8)
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


def test_cases_are_small_odd_and_timed_in_both_types() -> None:
    assert {one.precision.torch_type for one in engines.CASES if one.timed} == {torch.float16, torch.int8}
    small = {(one.shape.tokens, one.precision.torch_type) for one in engines.CASES if not one.timed}
    assert small == {(tokens, kind) for tokens in (16, 77) for kind in (torch.float16, torch.int8)}


@pytest.mark.parametrize("precision", [FLOAT16, INT8], ids=["float16", "int8"])
def test_a_right_engine_is_timed(precision: object) -> None:
    one = case(precision)
    outcome = engines.attempt(one, "plugin", lambda: Engine(one), RehearsalBackend())
    assert outcome.fault == ""
    assert outcome.relative_error == pytest.approx(2e-4, rel=0.5)  # FP16's rounding of the output
    assert (outcome.median_us, outcome.graph) == (11.0, True)
    assert outcome.activation_bytes == 3 << 20
    untimed = engines.attempt(case(precision, timed=False), "plugin", lambda: Engine(one), RehearsalBackend())
    assert untimed.median_us is None


@pytest.mark.parametrize(
    ("kind", "factor", "fault"),
    [
        ("plugin", 1.001, "relative error 1.0e-03; at most 4e-04 is rounding"),
        ("body", 1.001, ""),
        ("body", 1.01, "relative error 1.0e-02; at most 5e-03 is rounding"),
        ("plugin", float("nan"), "relative error inf; at most 4e-04 is rounding"),
    ],
)
def test_a_wrong_engine_is_not_timed(kind: engines.Kind, factor: float, fault: str) -> None:
    one = case()
    outcome = engines.attempt(one, kind, lambda: Engine(one, factor), RehearsalBackend())
    assert (outcome.fault, outcome.wrong) == (fault, bool(fault))
    assert (outcome.median_us is None) == bool(fault)


def test_an_engine_that_cannot_be_made_is_recorded() -> None:
    def make() -> Engine:
        raise engines.EngineFault("EF625", "the builder refuses the network: no SM 90")

    outcome = engines.attempt(case(), "body", make, RehearsalBackend())
    assert not outcome.wrong
    assert engines.line_of(outcome) == "224 stage 2 batch 2 float16, body: the builder refuses the network: no SM 90"


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (engines.EngineFault("EF805", "the engine does not run on this GPU"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (torch.OutOfMemoryError("no room"), False),
    ],
)
def test_an_engine_that_fails_is_wrong_where_it_was_there(error: Exception, wrong: bool) -> None:
    class Failing(Engine):
        def run(self, *, qkv: torch.Tensor, out: torch.Tensor) -> None:
            raise error

    outcome = engines.attempt(case(), "plugin", lambda: Failing(case()), RehearsalBackend())
    assert outcome.wrong == wrong
    assert str(error) in outcome.fault


def test_exit_codes_tell_wrong_from_refused() -> None:
    right, refused = engines.Outcome(case(), "body"), engines.Outcome(case(), "plugin", "the builder refuses it")
    wrong = engines.Outcome(case(), "plugin", "relative error 1.0e-02", wrong=True)
    assert engines.exit_code([]) == engines.exit_code([right]) == engines.exit_code([right, refused]) == 0
    assert engines.exit_code([refused, refused]) == tensorrt_rtx.REFUSED
    assert engines.exit_code([right, refused, wrong]) == tensorrt_rtx.WRONG


def test_without_a_graph_an_engine_is_timed_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    class NoGraphs(RehearsalBackend):
        def time(self, calls: object, *, graph: bool, seconds: float) -> Sample:
            if graph:
                raise RuntimeError("operation not permitted\nwhen stream is capturing")
            return Sample(42.0, 41.0, 43.0, 7)

    one = case()
    outcome = engines.attempt(one, "plugin", lambda: Engine(one), NoGraphs())
    assert (outcome.median_us, outcome.graph, outcome.fault) == (42.0, False, "")
    assert (
        "not captured into a CUDA graph: RuntimeError: operation not permitted when stream" in capsys.readouterr().out
    )
    assert engines.line_of(outcome).endswith("3.00 MiB of activations, 42.0 us without a CUDA graph")


def test_the_answer_counts_and_compares() -> None:
    def outcome(kind: engines.Kind, median: float | None, fault: str = "", graph: bool = True) -> engines.Outcome:
        return engines.Outcome(case(), kind, fault, median_us=median, graph=graph)

    assert engines.answer([]) == "plugin: not tried; body: not tried"
    right = [outcome("body", 100.0), outcome("plugin", 25.0)]
    assert engines.answer(right) == (
        "plugin: 1 of 1 engines are right; body: 1 of 1 engines are right; "
        "the plugin is 4.0 to 4.0 times as fast as the body"
    )
    # A time with launches in it says nothing about one without.
    mixed = [outcome("body", 100.0), outcome("plugin", 25.0, graph=False)]
    assert "as fast" not in engines.answer(mixed)
    wrong = [outcome("body", 100.0), outcome("plugin", None, "relative error 1.0e-02")]
    assert engines.answer(wrong).startswith(
        "plugin: 0 of 1 engines are right, first fault: 224 stage 2 batch 2 float16: relative error 1.0e-02; body: 1 of"
    )


@needs_tensorrt_rtx
def test_every_engine_is_built_ahead_of_time(plugin_library: Path) -> None:
    *steps, answer = tensorrt_rtx.ask([], plugin_library, 300.0, "--sm", "89").steps
    assert answer == "20 of 20 engines built for SM 89; none was run"
    assert "t=77, topk 4 batch 2 int8, plugin: " in "\n".join(steps)
    assert len(steps) == 21
    # A plugin is one small layer, the body many.
    sizes = {kind: [int(line.split()[-2]) for line in steps if f", {kind}: " in line] for kind in ("body", "plugin")}
    assert max(sizes["plugin"]) * 20 < min(sizes["body"])


@needs_tensorrt_rtx
def test_an_architecture_that_is_not_served_is_said() -> None:
    steps = tensorrt_rtx.ask([], None, 300.0, "--sm", "90").steps
    assert "this TensorRT-RTX does not build for SM 90" in steps[1]
    assert steps[-1] == "0 of 10 engines built for SM 90; none was run"


@needs_tensorrt_rtx
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_answer_is_tensorrt_s(plugin_library: Path) -> None:
    found = tensorrt_rtx.ask([], plugin_library, 300.0)
    assert found.verdict == "refused"
    first, answer = found.steps
    assert first.startswith("TensorRT-RTX 1.")
    assert answer.startswith("no engine runs on this GPU: ")
    assert "cudaError 35" in answer


def packages(folder: Path, module: str) -> Path:
    source = folder / "packages"
    (source / "tensorrt_rtx").mkdir(parents=True)
    (source / "tensorrt_rtx" / "__init__.py").write_text(f"__version__ = '1.7'\n{module}\n")
    return source


def test_packages_travel_in_parts(tmp_path: Path) -> None:
    source = packages(tmp_path, "raise ImportError('this is not TensorRT')")
    parts = tensorrt_rtx.parts_of(source, 2)
    assert abs(parts[0].stat().st_size - parts[1].stat().st_size) <= 1
    (tmp_path / "out").mkdir()
    folder = tensorrt_rtx.joined_wheel(parts, tmp_path / "out")
    assert (folder / "tensorrt_rtx" / "__init__.py").read_text() == (source / "tensorrt_rtx/__init__.py").read_text()
    found = tensorrt_rtx.ask(parts, None, 60.0)
    assert found.verdict == "refused"
    (answer,) = found.steps
    assert "cannot be imported" in answer
    assert "this is not TensorRT" in answer
    with pytest.raises(InputError, match="joined are no wheel"):
        tensorrt_rtx.joined_wheel(parts[::-1], tmp_path / "out")
    with pytest.raises(InputError, match="give the parts of the wheel in their order"):
        tensorrt_rtx.joined_wheel([tmp_path / "gone"], tmp_path / "out")
    with pytest.raises(InputError, match="holds no package tensorrt_rtx"):
        tensorrt_rtx.parts_of(tmp_path / "out", 2)


def stand_in(folder: Path, module: str) -> Path:
    """A wheel whose code comes before everything else that the process imports, which may take as long as it likes."""
    wheel = folder / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sitecustomize.py", module)
    return wheel


@pytest.mark.parametrize(
    ("module", "seconds", "last"),
    [
        ("import os; print('one', flush=True); os.abort()", 60.0, "the process ended with -6"),
        ("import time; print('one', flush=True); time.sleep(60)", 3.0, "stopped after 3 s"),
    ],
    ids=["abort", "hang"],
)
def test_what_was_said_before_the_end_is_kept(tmp_path: Path, module: str, seconds: float, last: str) -> None:
    found = tensorrt_rtx.ask([stand_in(tmp_path, module)], None, seconds)
    assert found == tensorrt_rtx.Answer("refused", ["one", last])


PLAIN = f"import os, time; print({tensorrt_rtx.PLAIN_ENGINE_RUNS!r}, flush=True); "


@pytest.mark.parametrize(
    ("module", "verdict", "status"),
    [
        ("print('no engine runs'); os._exit(81)", "refused", "skipped"),
        ("os.abort()", "wrong", "failed"),
        ("time.sleep(60)", "wrong", "failed"),
        ("os._exit(1)", "wrong", "failed"),
        ("print('relative error', flush=True); os._exit(80)", "wrong", "failed"),
        ("print('all are right', flush=True); os._exit(0)", "right", "passed"),
    ],
    ids=["refused", "died", "hung", "raised", "wrong", "right"],
)
def test_what_fails_behind_a_plain_engine_fails_the_run(
    tmp_path: Path, module: str, verdict: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = stand_in(tmp_path, PLAIN + module)
    monkeypatch.setattr(flow, "_TENSORRT", 3.0)
    chosen = flow.Options(output=tmp_path, command="test", wheel_parts=(wheel,))
    report = Report("measurement", "", "", 540.0, describe_rehearsal(tmp_path))
    units = Units(Journal(), Budget(540.0), RehearsalBackend())
    phase = Phase("tensorrt-rtx", "passed", 0.0)
    report.phases.append(phase)
    flow._Steps(report, RehearsalBackend(), None, None, chosen, units).tensorrt_rtx(phase)  # type: ignore[arg-type]
    assert phase.status == status
    assert phase.note == report.tensorrt_rtx[-1]
    assert report.failed == (verdict == "wrong")
    assert tensorrt_rtx.ask([wheel], None, 3.0).verdict == verdict


def test_what_a_stopped_process_has_started_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    module = f"import subprocess, time; open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid)); "
    assert tensorrt_rtx.ask([stand_in(tmp_path, module + "time.sleep(60)")], None, 2.0).steps == ["stopped after 2 s"]
    status = Path(f"/proc/{pid.read_text()}/stat")
    assert not status.exists() or ") Z " in status.read_text()


def test_engines_that_there_was_no_time_for_are_dropped() -> None:
    lines = [tensorrt_rtx.PLAIN_ENGINE_RUNS, f"{tensorrt_rtx.DROPPED}224 stage 1, body", "the answer"]
    assert tensorrt_rtx.Answer("right", lines).dropped == ["224 stage 1, body"]


def test_without_the_package_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = tensorrt_rtx.ask([], None, 1.0)
    assert found.verdict == "not asked"
    assert "not asked" in found.steps[0]


def test_engines_are_judged_as_strictly_as_the_kernels() -> None:
    for precision in (FLOAT16, INT8):
        assert engines._TOLERANCES["plugin"] == precision.tolerance


@pytest.mark.parametrize("one", engines.CASES, ids=lambda one: one.name)
def test_most_tokens_are_judged(one: engines.Case) -> None:
    qkv = benchmark.input_sets(one.shape, one.batch, one.precision, RehearsalBackend())[0]
    routing = reference.Routing(qkv, one.shape.attributes(one.precision.step, one.precision.output), exact=False)
    assert routing.settled(engines._SUM_ROUNDING["plugin"]).mean() > 0.99
    assert routing.settled(engines._SUM_ROUNDING["body"]).mean() > 0.5


def test_an_engine_that_orders_a_near_tie_differently_is_right() -> None:
    one = engines.Case(Shape("two regions to choose from", 4, 4, 32, 2, 1), 1, FLOAT16, False)
    qkv = torch.randn(one.shape.qkv_shape(1), generator=torch.Generator().manual_seed(3)).half()
    qkv[:, 2:, 2:, 32:64] = qkv[:, :2, :2, 32:64]  # the keys of the last region are those of the first
    expected, settled = engines._expected(one, "plugin", qkv)
    unclear = ~settled
    assert 0.0 < unclear.double().mean() < 1.0
    out = expected.clone()
    out[unclear] += 1.0
    assert engines.error_of(out, expected, settled) == 0.0
    out[tuple(settled.nonzero()[0])] += 1.0
    assert engines.error_of(out, expected, settled) > 0.01
