"""The engine stage: with the plugin and without, for this machine and for devices."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeformer.bundle.details import EngineDetails
from edgeformer.engine.targets import Target
from edgeformer.graph.onnx_files import load_model
from edgeformer.machine import plugin_library
from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.machine.plugin_library import find_plugin_library
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.ops.library_files import LIBRARY_NAME
from edgeformer.pipeline import BuildResult, build
from edgeformer.pipeline.stages import device_files
from edgeformer.records.engine import ShapeRange
from tests.pipeline.conftest import (
    engine_report,
    linears_as_convolutions,
)
from tests.raising import raises


def test_the_engine_has_one_plugin_layer_per_routing_block(fp16_bundle: BuildResult) -> None:
    engine = fp16_bundle.manifest.stage("engine")
    assert engine is not None
    typed = load_model(fp16_bundle.path / "typed.onnx")
    assert sum(is_op(node) for node in typed.graph.node) == 4
    report = engine_report(fp16_bundle)
    assert report.plugin.in_network == 4
    shapes = report.profile["input"]
    assert (shapes.min, shapes.opt, shapes.max) == ((1, 3, 112, 112), (2, 3, 112, 112), (4, 3, 112, 112))


def test_the_bundle_has_what_hosts_of_its_tensorrt_open(fp16_bundle: BuildResult) -> None:
    library = find_plugin_library()
    assert library is not None
    names = {path.name for path in library.registering_paths("tensorrt_rtx")}
    assert len(names) == 1
    assert {name for name in fp16_bundle.manifest.files if "register" in name} == names
    graph = load_model(fp16_bundle.path / "plugin.onnx")
    assert not graph.functions
    graph.functions.extend(load_model(fp16_bundle.path / "typed.onnx").functions)
    assert graph == load_model(fp16_bundle.path / "typed.onnx")


# Polygraphy as it comes opens a plugin library and does no more. An engine has the names of the plugin's fields where
# the plugin is in it, and not where the op's body is: the last case, which also says why there is a plugin.onnx.
@pytest.mark.parametrize(
    ("graph", "flags", "plugins"),
    [
        ("plugin.onnx", [], True),
        ("typed.onnx", ["--onnx-flags", "enable_plugin_override"], True),
        ("typed.onnx", [], False),
    ],
)
def test_polygraphy_builds_an_engine_with_the_plugin_from_the_bundle(
    fp16_bundle: BuildResult, tmp_path: Path, graph: str, flags: list[str], plugins: bool
) -> None:
    (name,) = (name for name in fp16_bundle.manifest.files if "register" in name)
    done = polygraphy(fp16_bundle.path / graph, fp16_bundle.path / name, tmp_path / "model.engine", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (b"qk_dim" in (tmp_path / "model.engine").read_bytes()) is plugins


def test_the_plugin_library_alone_is_not_enough_for_polygraphy(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    library = fp16_bundle.path / LIBRARY_NAME
    done = polygraphy(fp16_bundle.path / "plugin.onnx", library, tmp_path / "model.engine")
    assert done.returncode != 0
    assert "Plugin not found" in done.stdout + done.stderr


def polygraphy(graph: Path, plugins: Path, engine: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    assert spec is not None
    assert spec.origin is not None
    tensorrt = {"LD_LIBRARY_PATH": str(Path(spec.origin).parent), "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    program = Path(sys.executable).with_name("polygraphy")
    shapes = [
        f"--trt-{limit}-shapes=input:[{batch},3,112,112]" for limit, batch in (("min", 1), ("opt", 2), ("max", 4))
    ]
    command = [program, "convert", graph, "--convert-to", "trt", "--plugins", plugins, "-o", engine, *shapes, *flags]
    environment = {**os.environ, **tensorrt}
    return subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, check=False)


def test_a_device_target_ends_after_the_typed_graph(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_library, "candidate_paths", lambda: ())
    monkeypatch.setattr(device_files, "library_for", lambda cpu, library: None)
    monkeypatch.setattr(device_files, "device_packages", lambda cpu: {})
    result = build(nano_onnx, output=tmp_path / "bundle", target="jetson-agx-orin", batch="1:2:4", max_aux_streams=0)
    assert not linears_as_convolutions(result)  # nobody has seen TensorRT itself gain by them
    assert set(result.manifest.files) == {
        "exported.onnx",
        "fused.onnx",
        "typed.onnx",
        "plugin.onnx",
        "parity.npz",
        "device.pyz",
        "finish",
    }
    assert os.access(result.path / "finish", os.X_OK)
    engine = result.manifest.stage("engine")
    assert engine is not None
    assert engine.verdict == "not run"
    assert engine.note is not None
    assert "built on the device itself (SM 87, aarch64)" in engine.note
    assert isinstance(engine.details, EngineDetails)
    library, runtime, packages, finish = engine.details.left_to_do
    assert "the plugin library for SM 87: scripts/cross_device.py --preset jetson-orin" in library
    assert "the runtime library for aarch64: scripts/cross_device.py --preset jetson-orin" in runtime
    assert "the Python packages for aarch64: scripts/fetch_device_packages.py --cpu aarch64" in packages
    assert "on the Jetson AGX Orin 64GB, run finish in the bundle" in finish
    spec = engine.details.spec
    assert spec is not None
    assert (spec.op_nodes, spec.use_plugin, spec.max_aux_streams) == (4, True, 0)
    assert spec.shapes["input"] == ShapeRange(min=(1, 3, 112, 112), opt=(2, 3, 112, 112), max=(4, 3, 112, 112))
    assert result.manifest.stage("engine-parity") is None


def test_a_device_target_gets_the_library_that_was_cross_compiled_for_it(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "cross" / "libedgeformer_plugins.so"
    library.parent.mkdir()
    library.write_bytes(b"for another processor")
    metadata = {"version": "0.1.0", "tensorrt_headers": "10.14.1", "cuda": "12.6", "cpu": "aarch64"}
    library.with_suffix(".json").write_text(json.dumps({**metadata, "architectures": ["87"], "ptx": []}))
    monkeypatch.setattr(plugin_library, "candidate_paths", lambda: (library,))
    result = build(nano_onnx, output=tmp_path / "bundle", target="jetson-agx-orin")
    assert {"libedgeformer_plugins.so", "libedgeformer_plugins.json"} < set(result.manifest.files)
    assert (result.path / library.name).read_bytes() == b"for another processor"
    engine = result.manifest.stage("engine")
    assert engine is not None
    assert isinstance(engine.details, EngineDetails)
    assert "CUDA 12.6 for libedgeformer_plugins.so" in engine.details.left_to_do[-1]
    without = build(nano_onnx, output=tmp_path / "without", target="jetson-agx-orin", use_plugin=False)
    assert "libedgeformer_plugins.so" not in without.manifest.files


def test_libraries_that_a_device_lacks_are_compiled_by_the_way(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "libedgeformer.so"
    made: list[str] = []

    def compiled(target: Target) -> str:
        made.append(target.name)
        runtime.write_bytes(b"for another processor")
        return ""

    monkeypatch.setattr(device_files, "library_for", lambda cpu, library: runtime if made else None)
    monkeypatch.setattr(device_files, "can_cross_compile", lambda target: True)
    monkeypatch.setattr(device_files, "cross_compile", compiled)

    def built(cross_compiling: bool) -> BuildResult:
        return build(
            nano_onnx,
            output=tmp_path / "bundle",
            target="jetson-agx-orin",
            use_plugin=False,
            cross_compile=cross_compiling,
        )

    without = built(False)
    assert "libedgeformer.so" not in without.manifest.files
    result = built(True)
    assert made == ["jetson-agx-orin"]
    assert (result.path / "libedgeformer.so").read_bytes() == b"for another processor"
    built(True)
    assert made == ["jetson-agx-orin"]
    # What fails is told, and the rest of the bundle is there.
    made.clear()
    monkeypatch.setattr(device_files, "library_for", lambda cpu, library: None)
    monkeypatch.setattr(device_files, "cross_compile", lambda target: "nvcc fatal: no")
    failed = built(True)
    details = failed.manifest.details(EngineDetails)
    assert details is not None
    assert "(it failed here: nvcc fatal: no)" in details.left_to_do[0]
    assert "finish" in failed.manifest.files


def test_without_the_plugin_the_engine_comes_from_the_body(nano_onnx: Path, tmp_path: Path) -> None:
    result = build(nano_onnx, output=tmp_path / "bundle", target="rtx-30", use_plugin=False)
    engine = result.manifest.stage("engine")
    assert engine is not None
    assert engine_report(result).plugin.in_network == 0
    assert engine.verdict == "not judged"
    assert engine.note == "built from the op's ONNX body, without the plugin"
    assert "libedgeformer_plugins.so" not in result.manifest.files


def test_the_plugin_library_can_lie_in_the_engine(nano_onnx: Path, tmp_path: Path) -> None:
    library = find_plugin_library()
    assert library is not None
    bundle = tmp_path / "bundle"
    limits: dict[str, Any] = {"max_aux_streams": 1, "workspace_bytes": 8 << 30}
    result = build(nano_onnx, output=bundle, target="rtx-30", embed_plugin=True, **limits)
    assert library.path.read_bytes() in (bundle / "model.engine").read_bytes()
    assert not [name for name in result.manifest.files if name.startswith("lib")]
    engine = result.manifest.stage("engine")
    assert engine is not None
    report = engine_report(result)
    assert report.plugin_embedded is True
    assert (report.max_aux_streams, report.workspace_bytes) == (1, 8 << 30)
    with raises("EF104", "--embed-plugin", "--no-plugin"):
        build(nano_onnx, output=bundle, target="rtx-30", use_plugin=False, embed_plugin=True)


def test_another_gpu_in_the_machine_is_no_fault(
    fp16_bundle: BuildResult, nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines for RTX targets are built on any machine, also on one with another GPU."""
    other = Gpu(index=0, name="GPU of another kind", sm=90, memory_bytes=1 << 30)
    survey = GpuSurvey(gpus=(other,), driver_version=None, cuda_version="13.0", problem="")
    monkeypatch.setattr("edgeformer.verify.forms.find_gpus", lambda: survey)
    output = tmp_path / "bundle"
    shutil.copytree(fp16_bundle.path, output)
    result = build(nano_onnx, output=output, target="rtx-40", batch="1:2:4")
    parity = result.manifest.stage("engine-parity")
    assert parity is not None
    assert parity.verdict == "not run"
    assert parity.note == "engine not run: it is for SM 89, and this machine's GPU is a GPU of another kind (SM 90)"


@pytest.mark.slow
def test_one_engine_for_every_rtx_gpu(nano_onnx: Path, fp16_bundle: BuildResult, tmp_path: Path) -> None:
    result = build(nano_onnx, output=tmp_path / "bundle", target="rtx", batch="1:2:4")
    manifest, report = result.manifest, engine_report(result)
    assert (manifest.target.sm, manifest.target.sms) == (80, (80, 86, 89, 120, 121))
    assert report.sms == manifest.target.sms
    assert (report.plugin.in_network, report.plugin.in_engine) == (4, 4)
    # The engine has code that every one of them takes, not one copy for each.
    alone = engine_report(fp16_bundle)
    assert alone.sms == (89,)
    assert report.engine_bytes < 1.5 * alone.engine_bytes
    written = json.loads((result.path / "manifest.json").read_text())
    assert written["target"]["sms"] == [80, 86, 89, 120, 121]
    details = manifest.details(EngineDetails)
    assert details is not None
    assert [step.split(" (")[0] for step in details.left_to_do] == ["on a DGX Spark"]
    engine = manifest.stage("engine")
    assert engine is not None
    assert engine.verdict == "passed"


def test_a_dgx_spark_gets_its_own_plugin_library(
    fp16_bundle: BuildResult, nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine is built here with this machine's library, and needs one for aarch64 where it runs."""
    installed = find_plugin_library()
    assert installed is not None
    cross = tmp_path / "cross" / "libedgeformer_plugins.so"
    cross.parent.mkdir()
    cross.write_bytes(b"for a DGX Spark")
    metadata = {"version": "0.1.0", "tensorrt_headers": "10.14.1", "cuda": "13.0", "cpu": "aarch64"}
    cross.with_suffix(".json").write_text(json.dumps({**metadata, "architectures": ["121"], "ptx": []}))
    for libraries, names, step in (
        ((installed.path,), set(), "build the plugin library for SM 121"),
        ((cross, installed.path), {cross.name, "libedgeformer_plugins.json"}, "has CUDA 13.0"),
    ):
        monkeypatch.setattr(plugin_library, "candidate_paths", lambda libraries=libraries: libraries)
        output = tmp_path / "bundle"
        result = build(nano_onnx, output=output, target="dgx-spark-rtx", batch="1:2:4")
        assert (engine_report(result).sms, engine_report(result).plugin.in_engine) == ((121,), 4)
        assert {name for name in result.manifest.files if name.startswith("lib")} == names
        details = result.manifest.details(EngineDetails)
        assert details is not None
        (left,) = details.left_to_do
        assert step in left
    assert (output / cross.name).read_bytes() == b"for a DGX Spark"
