"""TensorRT-RTX builds engines in every quantized precision ahead of time, and refuses what the table refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.engine.builder import BatchProfile, build_engine
from edgeformer.engine.compiler import BuildFailed
from edgeformer.engine.target_types import support
from edgeformer.engine.targets import get_target
from edgeformer.graph.fuse import fuse
from edgeformer.graph.onnx_files import load_model
from edgeformer.graph.protos import attribute
from edgeformer.graph.types import to_float_type
from edgeformer.machine.plugin_library import find_plugin_library
from edgeformer.pipeline import export_model
from edgeformer.quantization import quantize
from edgeformer.records.engine import EngineReport
from tests.graph.precision_graphs import Builder, transformer
from tests.quantization.conftest import ArraySamples

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="session")
def fused(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("types") / "nano.onnx"
    export_model("biformer_nano", output=path, random_weights=True)
    return fuse(load_model(path)).model


def linears() -> onnx.ModelProto:
    """Two Linears, of 16 and 64 inputs, without a product in FP32, which TensorRT-RTX has not for Turing."""
    b = Builder(("batch", 3, 16, 16))
    x = b.op("Relu", b.linear("input", 16, 64, "fc1"))
    b.op("Add", b.linear(x, 64, 16, "fc2"), "input", output="y")
    return b.model("y")


def typed(model: onnx.ModelProto, precision: Any, size: int) -> onnx.ModelProto:
    samples = None
    if precision == "fp8":
        samples = ArraySamples(np.random.default_rng(0).normal(size=(4, 3, size, size)).astype(np.float32))
    return to_float_type(quantize(model, samples, precision=precision).model, "float16")


def report_on(model: onnx.ModelProto, target: str) -> EngineReport:
    return build_engine(
        model, target=get_target(target), batch=BatchProfile.parse("1"), use_plugin=find_plugin_library() is not None
    ).report


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8-weights", "fp8", "int4-weights"])
def test_engines_for_ada_and_blackwell(fused: onnx.ModelProto, precision: str) -> None:
    model = typed(fused, precision, 112)
    floats = report_on(to_float_type(fused, "float16"), "rtx-40")
    for target in ("rtx-40", "rtx-50"):
        report = report_on(model, target)
        assert report.engine_bytes > 1_000_000
        if find_plugin_library() is not None:
            assert report.plugin.in_network == report.plugin.in_engine == report.op_nodes == 4
        # They are stored as they are in the graph, and not as the floats that they stand for.
        assert report.weight_bytes is not None
        assert floats.weight_bytes is not None
        assert report.weight_bytes < 0.75 * floats.weight_bytes


@pytest.mark.parametrize(
    ("precision", "target"),
    [("fp8", "rtx-20"), ("fp8", "a100-rtx"), ("fp8", "rtx-30"), ("fp8", "rtx"), ("int4-weights", "rtx-20")],
)
def test_what_the_table_refuses_tensorrt_refuses(precision: Any, target: str) -> None:
    """The table says what TensorRT-RTX would say at the end of a build."""
    asked = get_target(target)
    assert support(asked.flavour, asked.sms, precision).gain == "refused"
    with pytest.raises(BuildFailed, match="HW-specific datatypes"):
        build_engine(typed(transformer(), precision, 16), target=asked, batch=BatchProfile.parse("1"), use_plugin=False)


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        ("int8-weights", "rtx-20"),
        ("fp8", "rtx-40"),
        pytest.param("int8-weights", "rtx", marks=pytest.mark.slow),
        pytest.param("int4-weights", "rtx", marks=pytest.mark.slow),
    ],
)
def test_what_the_table_takes_builds(precision: Any, target: str) -> None:
    report = build_engine(
        typed(linears(), precision, 16), target=get_target(target), batch=BatchProfile.parse("1"), use_plugin=False
    ).report
    assert report.engine_bytes > 10_000
    assert not [text for text in report.warnings if "error" in text]


def test_int4_blocks_that_differ_from_layer_to_layer_build() -> None:
    model = typed(linears(), "int4-weights", 16)
    dequantizers = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert [attribute(node, "block_size") for node in dequantizers] == [16, 32]
    report = build_engine(model, target=get_target("rtx-40"), batch=BatchProfile.parse("1"), use_plugin=False).report
    assert report.engine_bytes > 10_000
