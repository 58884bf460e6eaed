from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeformer.artifacts import sha256_of_bytes
from edgeformer.engine import builder
from edgeformer.engine.builder import (
    BatchProfile,
    BuildCancelled,
    BuildFailed,
    EngineReport,
    ShapeRange,
    build_engine,
    count_op_nodes,
    write_engine,
)
from edgeformer.engine.targets import Target, get_target
from edgeformer.machine.plugin_library import PluginLibrary
from edgeformer.ops.bi_level_routing_attention import without_function
from edgeformer.ops.library_files import ENVIRONMENT_VARIABLE
from edgeformer.supervision.limits import time_limit
from tests.graph.precision_graphs import Builder
from tests.raising import raises

from .conftest import attention_model, linear_model, processes_naming

ONE = BatchProfile.parse("1")
RANGE = BatchProfile.parse("1:2:5")


def test_engine_without_the_op(rtx30: Target, no_leftovers: Callable[[], None]) -> None:
    build = build_engine(linear_model(), target=rtx30, batch=RANGE)
    report = build.report
    assert report.engine_bytes == len(build.serialized)
    assert report.engine_sha256 == sha256_of_bytes(build.serialized)
    assert (report.flavour, report.target, report.sm) == ("tensorrt_rtx", "rtx-30", 86)
    assert (report.op_nodes, report.plugin.in_network, report.plugin.in_engine) == (0, 0, 0)
    assert report.plugin_version is None
    # The weights, the MatMul and the ReLU.
    assert report.parsed_layers == 3
    assert report.engine_layers is not None
    # 8 x 4 weights of 4 bytes at least, and what TensorRT-RTX takes at least for activations.
    assert report.weight_bytes is not None
    assert report.weight_bytes >= 128
    assert report.activation_bytes is not None
    assert report.activation_bytes > 0
    assert report.profile == {"x": ShapeRange(min=(1, 8), opt=(2, 8), max=(5, 8))}
    assert [(tensor.name, tensor.io, tensor.dtype, tensor.shape) for tensor in report.tensors] == [
        ("x", "input", "FLOAT", (-1, 8)),
        ("y", "output", "FLOAT", (-1, 4)),
    ]
    assert report.warnings == ()
    assert report.build_seconds > 0
    # TensorRT-RTX's library alone is over 100 MB.
    assert report.peak_host_bytes > 100_000_000
    no_leftovers()


@pytest.mark.parametrize("element_type", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_every_op_node_becomes_a_plugin_layer(rtx30: Target, plugin_library: PluginLibrary, element_type: int) -> None:
    report = build_engine(attention_model(3, element_type), target=rtx30, batch=RANGE).report
    assert (report.op_nodes, report.plugin.in_network, report.plugin.in_engine) == (3, 3, 3)
    assert report.plugin_version == plugin_library.metadata.version
    assert report.warnings == ()


def test_peak_memory_is_the_childs_own(rtx30: Target) -> None:
    ballast = np.ones(800_000_000, np.uint8)
    report = build_engine(linear_model(), target=rtx30, batch=ONE).report
    assert 100_000_000 < report.peak_host_bytes < ballast.nbytes


def test_model_without_the_function_takes_the_plugin(rtx30: Target, plugin_library: PluginLibrary) -> None:
    report = build_engine(without_function(attention_model(1)), target=rtx30, batch=RANGE).report
    assert report.plugin.in_engine == 1


def test_without_the_plugin_the_body_is_built(rtx30: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "there is none"))
    model = attention_model(2)
    report = build_engine(model, target=rtx30, batch=RANGE, use_plugin=False).report
    assert (report.op_nodes, report.plugin.in_network, report.plugin.in_engine) == (2, 0, 0)
    assert report.parsed_layers > 100
    # A model that lost its function gets it back.
    again = build_engine(without_function(model), target=rtx30, batch=RANGE, use_plugin=False).report
    assert again.parsed_layers == report.parsed_layers


@pytest.mark.parametrize("use_plugin", [True, False])
def test_a_good_build_says_nothing(
    rtx30: Target, plugin_library: PluginLibrary, caplog: pytest.LogCaptureFixture, use_plugin: bool
) -> None:
    report = build_engine(attention_model(2), target=rtx30, batch=ONE, use_plugin=use_plugin).report
    assert report.warnings == ()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_ahead_of_time_the_kernel_is_chosen_when_the_engine_runs(rtx30: Target, plugin_library: PluginLibrary) -> None:
    """Whatever GPU is here, the plugin sees none and offers no tactics: the engine names number 0, the table's choice.

    That a name in the engine ends in the tactic is what TensorRT-RTX 1.7 does.
    """
    engine = build_engine(attention_model(1), target=rtx30, batch=RANGE).serialized
    assert re.findall(rb'tactic_id="attention0_\d+_(\d+)"', engine) == [b"0"]


def test_plugin_can_travel_in_the_engine(rtx30: Target, plugin_library: PluginLibrary) -> None:
    plain = build_engine(attention_model(1), target=rtx30, batch=ONE)
    packed = build_engine(attention_model(1), target=rtx30, batch=ONE, embed_plugin=True)
    library = plugin_library.path.read_bytes()
    assert library in packed.serialized
    assert library not in plain.serialized
    assert (packed.report.plugin_embedded, plain.report.plugin_embedded) == (True, False)
    without = build_engine(linear_model(3), target=rtx30, batch=BatchProfile.parse("3"), embed_plugin=True)
    assert without.report.plugin_embedded is False
    with raises("EF104", "embed_plugin=True", "use_plugin=False"):
        build_engine(attention_model(1), target=rtx30, batch=ONE, use_plugin=False, embed_plugin=True)


def test_dynamic_height_and_width(rtx30: Target, plugin_library: PluginLibrary) -> None:
    model = attention_model(1, shape=("N", "H", "W"))
    shapes = ShapeRange(min=(1, 4, 4, 48), opt=(2, 8, 8, 48), max=(3, 16, 20, 48))
    report = build_engine(model, target=rtx30, batch=ONE, input_shapes={"x": shapes}).report
    assert report.profile == {"x": shapes}
    assert report.tensors[0].shape == (-1, -1, -1, 48)


def test_fixed_batch_that_does_not_match(rtx30: Target) -> None:
    with raises("EF621", "fixed at 3", "8 was asked for"):
        build_engine(linear_model(3), target=rtx30, batch=BatchProfile.parse("8"))
    assert build_engine(linear_model(3), target=rtx30, batch=BatchProfile.parse("3")).report.tensors[0].shape == (3, 8)


def test_operator_that_tensorrt_does_not_know(rtx30: Target, no_leftovers: Callable[[], None]) -> None:
    # The last of them are TensorRT's own words.
    with raises("EF624", "TensorRT 1.", "node 'last' (NoSuchOp)", "no operator 'NoSuchOp'", "Plugin not found"):
        build_engine(linear_model(activation="NoSuchOp"), target=rtx30, batch=ONE)
    no_leftovers()


def test_file_that_is_no_valid_graph_keeps_the_parsers_words(rtx30: Target) -> None:
    model = linear_model()
    model.graph.node[0].input[1] = "nowhere"
    with raises("EF624", "node 'matmul' (MatMul)", "not registered"):
        build_engine(model, target=rtx30, batch=ONE)


def test_network_that_does_not_build_keeps_the_builders_words(rtx30: Target, plugin_library: PluginLibrary) -> None:
    with raises("EF625", "workspace") as caught:
        build_engine(attention_model(1), target=rtx30, batch=ONE, workspace_bytes=1 << 20)
    assert isinstance(caught.value, BuildFailed)
    with raises("EF101", "workspace limit 0", "1 byte"):
        build_engine(attention_model(1), target=rtx30, batch=ONE, workspace_bytes=0)


def test_one_stream_takes_the_scratch_memory_once(rtx30: Target) -> None:
    b = Builder((1, 64, 32, 32))
    branches = [b.conv("input", 64, 64, 3, name, pads=[1, 1, 1, 1]) for name in ("first", "second")]
    b.op("Add", b.op("Relu", branches[0]), b.op("Sigmoid", branches[1]), output="y")
    model = b.model("y")
    taken = [
        build_engine(model, target=rtx30, batch=ONE, max_aux_streams=streams).report.activation_bytes or 0
        for streams in (0, 1)
    ]
    assert 0 < taken[0] < 0.6 * taken[1]
    with raises("EF101", "-1 auxiliary streams", "0 for none"):
        build_engine(model, target=rtx30, batch=ONE, max_aux_streams=-1)


def test_an_engine_for_cuda_graphs_is_another_one(rtx30: Target) -> None:
    """TensorRT-RTX takes the flag; that such an engine can be captured takes a GPU to see."""
    plain, captured = (
        build_engine(attention_model(1), target=rtx30, batch=ONE, use_plugin=False, cuda_graphs=wanted)
        for wanted in (False, True)
    )
    assert (plain.report.cuda_graphs, captured.report.cuda_graphs) == (False, True)
    assert plain.serialized != captured.serialized
    assert plain.serialized == build_engine(attention_model(1), target=rtx30, batch=ONE, use_plugin=False).serialized


def test_op_on_a_map_that_its_regions_do_not_divide(rtx30: Target, plugin_library: PluginLibrary) -> None:
    with raises(
        "EF624", "node 'attention0' (BiLevelRoutingAttention)", "the plugin says: getOutputShapes", "H=7", "regions=2"
    ) as caught:
        build_engine(attention_model(1, shape=("N", 7, 12)), target=rtx30, batch=ONE)
    # This machine has no GPU and needs none: saying so would mislead.
    assert "CUDA driver" not in str(caught.value)


def test_missing_plugin_library(rtx30: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr("edgeformer.ops.library_files._PACKAGE", tmp_path / "edgeformer")
    with raises("EF610", "cmake --build", "--no-plugin"):
        build_engine(attention_model(1), target=rtx30, batch=ONE)
    # A graph without the op needs none.
    assert build_engine(linear_model(), target=rtx30, batch=ONE).report.op_nodes == 0


def test_target_that_the_library_has_no_kernels_for(plugin_library: PluginLibrary, rtx30: Target) -> None:
    with raises("EF613", plugin_library.path, "SM 75, ", "SM 77"):
        build_engine(attention_model(1), target=rtx30.model_copy(update={"sm": 77, "sms": (77,)}), batch=ONE)


def test_jetson_target_is_not_built_here() -> None:
    with raises("EF604", "jetson-thor", "SM 110", "aarch64"):
        build_engine(linear_model(), target=get_target("jetson-thor"), batch=ONE)


def test_timing_cache_is_not_ignored_in_silence(rtx30: Target, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    report = build_engine(linear_model(), target=rtx30, batch=ONE, timing_cache=cache).report
    assert len(report.warnings) == 1
    assert "neither read nor written" in report.warnings[0]
    assert not cache.exists()


def test_progress_runs_up_to_the_end_of_every_phase(rtx30: Target) -> None:
    events: list[tuple[str, int, int]] = []
    build_engine(linear_model(), target=rtx30, batch=ONE, progress=lambda *event: events.append(event))
    running: dict[str, tuple[int, int]] = {}
    finished = []
    for phase, done, total in events:
        before = running.get(phase)
        if done == 0:
            assert before is None or before[0] == before[1], phase
        else:
            assert before is not None, phase
            assert total == before[1]
            assert before[0] <= done <= total
        running[phase] = (done, total)
        if done == total:
            finished.append(phase)
    assert finished[0] == "Parsing the ONNX model"
    assert finished[-1] == "Building engine"
    assert all(done == total for done, total in running.values())


def test_callback_that_returns_false_cancels(rtx30: Target, no_leftovers: Callable[[], None]) -> None:
    seen: list[str] = []

    def stop(phase: str, done: int, total: int | None) -> bool:
        seen.append(phase)
        return phase != "Building engine"

    with raises("EF627") as caught:
        build_engine(linear_model(), target=rtx30, batch=ONE, progress=stop)
    assert isinstance(caught.value, BuildCancelled)
    assert seen[-1] == "Building engine"
    no_leftovers()


def test_ctrl_c_ends_the_child(rtx30: Target, no_leftovers: Callable[[], None]) -> None:
    def interrupt(phase: str, done: int, total: int | None) -> None:
        if phase == "Building engine":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(linear_model(), target=rtx30, batch=ONE, progress=interrupt)
    no_leftovers()


def test_cancelling_does_not_wait_for_a_child_that_is_busy(
    rtx30: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_leftovers: Callable[[], None]
) -> None:
    late = tmp_path / "late"
    python = tmp_path / "python"
    event = '{"event": "progress", "phase": "busy", "done": 0, "total": 1}'
    # Busy until its parent lets go of it.
    python.write_text(f"#!/bin/sh\necho '{event}'\nread line\n: > {late}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with raises("EF627"):
        build_engine(linear_model(), target=rtx30, batch=ONE, progress=lambda phase, done, total: False)
    assert not late.exists()
    no_leftovers()


@pytest.mark.parametrize("error", [BrokenPipeError("nobody reads"), ValueError("a fault of the caller")])
def test_error_in_the_callback_is_the_callers(
    rtx30: Target, no_leftovers: Callable[[], None], error: Exception
) -> None:
    def fail(phase: str, done: int, total: int | None) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        build_engine(linear_model(), target=rtx30, batch=ONE, progress=fail)
    no_leftovers()


def test_killed_parent_takes_the_child_and_its_files_along(tmp_path: Path) -> None:
    onnx.save_model(linear_model(), tmp_path / "model.onnx")
    folder = tmp_path / "temporary"
    folder.mkdir()
    code = f"""
import onnx, time
from edgeformer.engine.builder import BatchProfile, build_engine
from edgeformer.engine.targets import get_target
def wait(phase, done, total):
    print("building", flush=True)
    time.sleep(600)
build_engine(onnx.load({str(tmp_path / "model.onnx")!r}), target=get_target("rtx-30"),
             batch=BatchProfile.parse("1"), progress=wait)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"building\n"
        assert len(processes_naming(folder)) == 1
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for _ in range(100):
            if not processes_naming(folder) and not list(folder.iterdir()):
                break
            time.sleep(0.1)
    assert processes_naming(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "values"),
    [
        ("echo 'terminate called without an active exception' >&2; kill -ABRT $$", ("SIGABRT", "terminate called")),
        ("kill -KILL $$", ("SIGKILL", "memory", "nothing")),
        ("echo 'no such module' >&2; exit 7", ("status 7", "no such module")),
        ('printf \'{"event": "progr\'; exit 1', ("status 1",)),
    ],
)
def test_native_crash_becomes_a_message(
    rtx30: Target,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    no_leftovers: Callable[[], None],
    script: str,
    values: tuple[str, ...],
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with raises("EF626", "TensorRT-RTX", *values) as caught:
        build_engine(linear_model(), target=rtx30, batch=ONE)
    assert isinstance(caught.value, BuildFailed)
    no_leftovers()


def test_no_room_for_the_files_is_the_machines_fault(
    rtx30: Target, monkeypatch: pytest.MonkeyPatch, no_leftovers: Callable[[], None]
) -> None:
    def fail(model: onnx.ModelProto, path: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(builder, "_write_model", fail)
    with raises("EF602", "No space left on device", tempfile.gettempdir(), "$TMPDIR"):
        build_engine(linear_model(), target=rtx30, batch=ONE)
    no_leftovers()


def test_no_room_for_the_engine_is_the_machines_fault(
    rtx30: Target, monkeypatch: pytest.MonkeyPatch, no_leftovers: Callable[[], None]
) -> None:
    """The child's own write fails: a folder stands where the engine should go."""
    write_model = builder._write_model

    def block(model: onnx.ModelProto, path: Path) -> Path:
        path.with_name("model.engine").mkdir()
        return write_model(model, path)

    monkeypatch.setattr(builder, "_write_model", block)
    with raises("EF602", "Is a directory", "model.engine"):
        build_engine(linear_model(), target=rtx30, batch=ONE)
    no_leftovers()


def test_op_nodes_inside_control_flow_are_counted() -> None:
    body = attention_model(2).graph
    branches = {"then_branch": body, "else_branch": attention_model(1).graph}
    node = helper.make_node("If", ["condition"], ["y"], **branches)
    graph = helper.make_graph([node, *attention_model(1).graph.node], "g", [], [])
    assert count_op_nodes(graph) == 4


def test_engine_is_written_with_its_report(rtx30: Target, tmp_path: Path) -> None:
    build = build_engine(linear_model(), target=rtx30, batch=ONE)
    write_engine(build, tmp_path / "model.engine")
    assert (tmp_path / "model.engine").read_bytes() == build.serialized
    text = (tmp_path / "model.engine.json").read_text()
    assert EngineReport.model_validate_json(text) == build.report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.engine", "model.engine.json"]


def test_a_build_that_never_ends_is_stopped(
    rtx30: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_leftovers: Callable[[], None]
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with raises("EF881", "TensorRT-RTX", "0.3 s", "--timeout"), time_limit(0.3):
        build_engine(linear_model(), target=rtx30, batch=ONE)
    no_leftovers()
