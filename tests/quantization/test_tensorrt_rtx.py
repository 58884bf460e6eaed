"""TensorRT-RTX parses typed and quantized graphs and builds engines of them, ahead of time for SM 86."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import onnx
import pytest

from edgeformer.engine.builder import BatchProfile, build_engine
from edgeformer.engine.targets import get_target
from edgeformer.graph.qdq import BFLOAT16_SCALE_BITS, SCALE_BITS
from edgeformer.graph.types import FloatType, to_float_type
from edgeformer.machine.plugin_library import find_plugin_library
from edgeformer.quantization import load_recipe, quantize
from tests.graph.precision_graphs import transformer
from tests.quantization.conftest import ArraySamples

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def build(model: onnx.ModelProto) -> tuple[int, list[str], list[str]]:
    """Size of the engine in bytes, and the parser's errors and the precisions of the parsed network's tensors."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parser.parse(model.SerializeToString())
    errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
    if errors:
        return 0, errors, []
    kinds = {str(network.get_layer(i).get_output(0).dtype) for i in range(network.num_layers)}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("input", (1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return (engine.nbytes if engine is not None else 0), errors, sorted(kinds)


def bits(float_type: str) -> int:
    return BFLOAT16_SCALE_BITS if float_type == "bfloat16" else SCALE_BITS


@pytest.mark.parametrize("float_type", ["float16", "bfloat16"])
@pytest.mark.parametrize(("int8", "attention"), [(False, False), (True, False), (True, True)])
def test_typed_graph_builds(
    make_samples: Callable[..., ArraySamples], float_type: FloatType, int8: bool, attention: bool
) -> None:
    model = transformer()
    if int8:
        recipe = load_recipe(quantize_attention=attention)
        model = quantize(model, make_samples(16), recipe=recipe, scale_bits=bits(float_type)).model
    size, errors, kinds = build(to_float_type(model, float_type))
    assert errors == []
    assert size > 10_000
    low = "DataType.HALF" if float_type == "float16" else "DataType.BF16"
    assert low in kinds
    assert ("DataType.INT8" in kinds) == int8


@pytest.mark.parametrize("float_type", ["float32", "float16", "bfloat16"])
def test_int8_attention_is_a_plugin_layer(
    make_samples: Callable[..., ArraySamples], float_type: Literal["float32"] | FloatType
) -> None:
    """Heads of 4 channels: which kernel runs is the plugin's affair. Of FLOAT, a Cast makes BF16."""
    if find_plugin_library() is None:
        pytest.skip("the plugin library is not built: cmake --preset default && cmake --build --preset default")
    recipe = load_recipe(quantize_attention=True)
    model = quantize(transformer(), make_samples(16), recipe=recipe, scale_bits=bits(float_type)).model
    if float_type != "float32":
        model = to_float_type(model, float_type)
    report = build_engine(model, target=get_target("rtx-30"), batch=BatchProfile.parse("1:2:4")).report
    assert (report.op_nodes, report.plugin.in_network, report.plugin.in_engine) == (1, 1, 1)


def test_quantized_float32_graph_builds(make_samples: Callable[..., ArraySamples]) -> None:
    size, errors, kinds = build(quantize(transformer(), make_samples(16)).model)
    assert errors == []
    assert size > 10_000
    assert "DataType.HALF" not in kinds
    assert "DataType.INT8" in kinds
