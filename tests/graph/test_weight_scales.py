"""One weight scale a layer: the same function, exactly the same weights, and the memory that it saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.engine.builder import BatchProfile, build_engine
from edgeformer.engine.targets import get_target
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import scalar
from edgeformer.graph.qdq import LayerSite, insert_qdq, layer_site
from edgeformer.graph.types import to_float_type
from edgeformer.graph.weight_scales import one_weight_scale
from edgeformer.quantization.policy import decide
from tests.graph.graphs import ops
from tests.graph.precision_graphs import Builder, check, run, snr_db, transformer
from tests.raising import raises


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """All layers that the policy allows, with a range of 4 for every activation."""
    sites = [decision.site for decision in decide(model) if decision.quantized and decision.site is not None]
    return insert_qdq(model, sites, {site.activation: 4.0 for site in sites})


def all_quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every layer there is, whatever the policy says."""
    index = GraphIndex(model)
    sites = [site for node in model.graph.node if isinstance(site := layer_site(index, node), LayerSite)]
    return insert_qdq(model, sites, {site.activation: 4.0 for site in sites})


def weight_scales(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, np.ndarray[Any, Any]]]:
    """Layers with an INT8 weight, and its scales."""
    index = GraphIndex(model)
    found = []
    for node in model.graph.node:
        maker = index.producer.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in ("MatMul", "Conv", "Gemm") and maker is not None and maker.op_type == "DequantizeLinear":
            scales = index.array(maker.input[1])
            assert scales is not None
            found.append((node, scales))
    return found


def test_a_layer_keeps_its_weights_exactly() -> None:
    model = quantized(transformer(dim=8))
    before = model.SerializeToString(deterministic=True)
    result, count = one_weight_scale(model)
    assert model.SerializeToString(deterministic=True) == before
    check(result)
    assert count == 6  # stem, qkv, wo, fc1, fc2, downsample
    assert all(scales.ndim == 1 for _, scales in weight_scales(model))
    index, old = GraphIndex(result), GraphIndex(model)
    changed = weight_scales(result)
    assert len(changed) == 6
    for node, scale in changed:
        common = scalar(scale)
        assert common is not None
        assert np.log2(common) == int(np.log2(common))
        multiply = index.sole_consumer(node.output[0])
        assert multiply is not None
        assert multiply.op_type == "Mul"
        factors = index.array(multiply.input[1])
        assert factors is not None
        # The layer's output keeps its name, so the original's scales are found by it.
        end = index.sole_consumer(multiply.output[0]) if node.op_type == "Conv" else multiply
        assert end is not None
        original = old.producer[end.output[0]]
        scales = old.array(old.producer[original.input[1]].input[1])
        assert scales is not None
        assert common / 2 < scales.max() <= common
        assert np.array_equal(factors.reshape(-1) * common, scales)
        rank = 4 if node.op_type == "Conv" else 1
        assert factors.shape == ((scales.size, 1, 1) if rank == 4 else (scales.size,))
        # 16 bits hold the factors, as they held the scales.
        assert np.array_equal(factors.astype(np.float16).astype(np.float32), factors)


@pytest.mark.parametrize("size", [8, 10])
def test_the_function_stays_the_same(size: int) -> None:
    model = quantized(transformer(dim=8, size=size))
    result, _ = one_weight_scale(model)
    x = np.random.default_rng(0).normal(size=(2, 3, 2 * size, 2 * size)).astype(np.float32)
    (expected,), (got,) = run(model, x), run(result, x)
    # One step of an activation's INT8 more or less is all that another order of the same products can make.
    assert snr_db(expected, got) > 60
    half = [run(to_float_type(graph, "float16"), x)[0] for graph in (model, result)]
    assert all(snr_db(expected, value) > 35 for value in half)


def test_typing_before_or_after_gives_the_same_graph() -> None:
    model = quantized(transformer())
    before, _ = one_weight_scale(to_float_type(model, "float16"))
    after = to_float_type(one_weight_scale(model)[0], "float16")
    check(before)
    assert ops(before) == ops(after)
    x = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    assert np.array_equal(run(before, x)[0], run(after, x)[0])


def test_a_second_pass_finds_nothing() -> None:
    result, _ = one_weight_scale(quantized(transformer()))
    again, count = one_weight_scale(result)
    assert count == 0
    assert again.SerializeToString() == result.SerializeToString()


def test_a_float_graph_stays_as_it_is() -> None:
    model = transformer()
    result, count = one_weight_scale(model)
    assert count == 0
    assert result.SerializeToString() == model.SerializeToString()


def test_channels_without_weights_and_large_weights() -> None:
    b = Builder((1, 4, 6))
    weight = np.ones((6, 3), np.float32)
    weight[:, 0] = 0.0  # its scale is the smallest there is, 2**-24
    weight[:, 2] = 1000.0  # its scale is above 1, the largest common one
    b.op("MatMul", "input", b.const(weight, "weight"), output="y")
    model = all_quantized(b.model("y"))
    result, count = one_weight_scale(model)
    assert count == 1
    ((_, scale),) = weight_scales(result)
    assert scalar(scale) == 1.0
    x = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    assert np.allclose(run(model, x)[0], run(result, x)[0], rtol=1e-6)
    assert np.all(run(to_float_type(result, "float16"), x)[0][..., 0] == 0)


@pytest.mark.parametrize(("largest", "changed"), [(8.0, 1), (100.0, 0)])
def test_a_product_that_16_bits_might_not_hold_keeps_its_scales(largest: float, changed: int) -> None:
    """Ones beside one large channel: before the factor their product is up to ``largest`` times what it is behind."""
    b = Builder((1, 4, 256))
    weight = np.ones((256, 3), np.float32)
    weight[:, 1] = largest
    b.op("MatMul", "input", b.const(weight, "weight"), output="y")
    model = all_quantized(b.model("y"))
    result, count = one_weight_scale(model)
    assert count == changed
    x = np.full((1, 4, 256), 4.0, np.float32)  # as large as the activation's range allows
    (got,) = run(to_float_type(result, "float16"), x)
    assert np.allclose(got[..., [0, 2]], 1024, rtol=0.01)


def with_weight_input(model: onnx.ModelProto, axis: int, zero: int) -> onnx.ModelProto:
    """The axis and the zero points of the only weight replaced."""
    ((layer, scales),) = weight_scales(model)
    restored = GraphIndex(model).producer[layer.input[1]]
    del restored.attribute[:]
    restored.attribute.append(helper.make_attribute("axis", axis))
    for tensor in model.graph.initializer:
        if tensor.name == restored.input[2]:
            tensor.CopyFrom(numpy_helper.from_array(np.full(scales.shape, zero, np.int8), tensor.name))
    return model


@pytest.mark.parametrize(("axis", "zero", "changed"), [(1, 0, 1), (0, 0, 0), (1, 3, 0)])
def test_other_axes_and_zero_points_are_left_alone(axis: int, zero: int, changed: int) -> None:
    b = Builder((1, 4, 6))
    b.op("MatMul", "input", b.normal(6, 6, name="weight"), output="y")
    assert one_weight_scale(with_weight_input(all_quantized(b.model("y")), axis, zero))[1] == changed


def test_a_bias_that_is_computed_stays_where_it_is() -> None:
    b = Builder((1, 3, 4, 4))
    bias = b.op("ReduceMean", "input", b.const(np.array([0, 2, 3])), keepdims=0, output="mean")
    weight = b.normal(3, 3, 1, 1, name="weight")
    b.op("Conv", "input", weight, bias, output="y")
    model = all_quantized(b.model("y"))
    result, count = one_weight_scale(model)
    assert count == 0
    assert result.SerializeToString() == model.SerializeToString()


def test_a_gemm_keeps_its_scales() -> None:
    b = Builder((2, 6))
    b.op("Gemm", "input", b.normal(6, 4, name="weight"), b.normal(4), output="y")
    assert one_weight_scale(all_quantized(b.model("y")))[1] == 0


def test_layers_that_share_a_weight_have_a_factor_each() -> None:
    b = Builder((1, 4, 6))
    weight = b.normal(6, 6, name="weight")
    first = b.op("MatMul", "input", weight, output="first")
    b.op("MatMul", b.op("Relu", first), weight, output="y")
    model = all_quantized(b.model("y"))
    result, count = one_weight_scale(model)
    assert count == 2
    check(result)
    x = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    assert snr_db(run(model, x)[0], run(result, x)[0]) > 60


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])])
    node = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    inputs = [helper.make_tensor_value_info("condition", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    with raises("EF305", "If"):
        one_weight_scale(helper.make_model(helper.make_graph([node], "g", inputs, outputs)))


def test_tensorrt_rtx_takes_less_memory_for_it() -> None:
    b = Builder(("batch", 16, 64, 64))
    hidden = b.op("Gelu", b.conv("input", 16, 64, 3, "first", pads=[1, 1, 1, 1]), output="gelu")
    b.conv(hidden, 64, 16, 3, "y", pads=[1, 1, 1, 1])
    model = all_quantized(b.model("y"))
    graphs = {"scales": model, "one scale": one_weight_scale(model)[0]}
    target, batch = get_target("rtx-40"), BatchProfile(min=1, opt=8, max=32)
    memory = {
        name: build_engine(to_float_type(graph, "float16"), target=target, batch=batch).report.activation_bytes or 0
        for name, graph in graphs.items()
    }
    # 64 channels of the largest batch in FP16 instead of FP32.
    assert memory["scales"] - memory["one scale"] >= 32 * 64 * 64 * 64 * 2
