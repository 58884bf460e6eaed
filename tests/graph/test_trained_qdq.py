from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, QuantizedWeight, dequantize, insert_qdq, layer_site
from edgeformer.graph.trained_qdq import is_trained, mark_trained, with_trained_rounding, without_qdq
from edgeformer.runtime import OnnxSession
from tests.raising import raises


def two_readers(seed: int = 0) -> onnx.ModelProto:
    """A convolution, and two products that read what it makes."""
    rng = np.random.default_rng(seed)
    weights = {
        "stem": rng.normal(size=(4, 3, 2, 2)),
        "left": rng.normal(size=(4, 6)),
        "right": rng.normal(size=(4, 6)),
    }
    nodes = [
        helper.make_node("Conv", ["input", "stem"], ["map"], strides=[2, 2]),
        helper.make_node("Transpose", ["map"], ["tokens"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["tokens", "left"], ["a"]),
        helper.make_node("MatMul", ["tokens", "right"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Add", ["sum", "tokens_mean"], ["output"]),
    ]
    nodes.insert(2, helper.make_node("ReduceMean", ["tokens", "axes"], ["tokens_mean"], keepdims=1))
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.asarray([3]), "axes"))
    graph = helper.make_graph(
        nodes,
        "two_readers",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 4, 4, 6])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


RANGES = {"input": 3.0, "tokens": 7.5}


def sites_of(model: onnx.ModelProto) -> list[LayerSite]:
    index = GraphIndex(model)
    found = [layer_site(index, node) for node in model.graph.node]
    return [site for site in found if isinstance(site, LayerSite)]


def quantized(weights: Mapping[str, QuantizedWeight] | None = None) -> onnx.ModelProto:
    model = two_readers()
    result = insert_qdq(model, sites_of(model), RANGES, weights=weights)
    mark_trained(result)
    return result


def outputs(model: onnx.ModelProto) -> np.ndarray:
    images = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    with OnnxSession(model, optimization="none") as session:
        return session.run({"input": images})["output"]


def test_what_is_taken_apart_is_put_together_again() -> None:
    given = quantized()
    plain, rounding = without_qdq(given)
    assert not any("Quantize" in node.op_type for node in plain.graph.node)
    assert set(rounding.weights) == {"map", "a", "b"}
    assert is_trained(given)
    assert not is_trained(plain)
    again, sites, ranges = with_trained_rounding(plain, rounding)
    assert [site.output for site in sites] == ["map", "a", "b"]
    assert ranges.keys() == RANGES.keys()
    kinds = [node.op_type for node in again.graph.node]
    assert kinds == [node.op_type for node in given.graph.node]
    assert kinds.count("QuantizeLinear") == 2  # the two readers share one
    assert outputs(again).tobytes() == outputs(given).tobytes()


def test_weights_that_no_rule_gives_are_kept() -> None:
    rng = np.random.default_rng(2)
    odd = QuantizedWeight(rng.integers(-90, 91, (4, 6)).astype(np.int8), np.full(6, 2.0**-6, np.float32))
    given = quantized({"a": odd})
    plain, rounding = without_qdq(given)
    index = GraphIndex(plain)
    weight = index.array(index.producer["a"].input[1])
    assert weight is not None
    assert np.array_equal(weight, dequantize(odd, 1))
    assert np.array_equal(rounding.weights["a"].values, odd.values)
    again, _, _ = with_trained_rounding(plain, rounding)
    assert outputs(again).tobytes() == outputs(given).tobytes()


def test_an_activation_may_have_another_name_since() -> None:
    plain, rounding = without_qdq(quantized())
    for node in plain.graph.node:
        node.input[:] = ["renamed" if name == "tokens" else name for name in node.input]
        node.output[:] = ["renamed" if name == "tokens" else name for name in node.output]
    again, _, ranges = with_trained_rounding(plain, rounding)
    assert ranges["renamed"] == pytest.approx(7.5, rel=0.01)
    assert outputs(again).tobytes() == outputs(quantized()).tobytes()


def test_the_hash_tells_ranges_and_weights_apart() -> None:
    _, rounding = without_qdq(quantized())
    _, same = without_qdq(quantized())
    model = two_readers()
    _, wider = without_qdq(insert_qdq(model, sites_of(model), {**RANGES, "tokens": 15.0}))
    other = two_readers(seed=1)
    _, heavier = without_qdq(insert_qdq(other, sites_of(other), RANGES))
    assert rounding.sha256() == same.sha256()
    assert len({one.sha256() for one in (rounding, wider, heavier)}) == 3


class TestRefusals:
    def test_a_layer_that_is_gone_or_has_another_weight(self) -> None:
        plain, rounding = without_qdq(quantized())
        renamed = onnx.ModelProto()
        renamed.CopyFrom(plain)
        for node in renamed.graph.node:
            node.input[:] = ["c" if name == "b" else name for name in node.input]
            node.output[:] = ["c" if name == "b" else name for name in node.output]
        with raises("EF561", "1 layers", "'b'"):
            with_trained_rounding(renamed, rounding)
        for tensor in plain.graph.initializer:
            if tensor.name == "a_weight":
                tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        with raises("EF561", "1 layers", "'a'"):
            with_trained_rounding(plain, rounding)

    @pytest.mark.parametrize("fault", ["activation alone", "weight alone", "unsigned", "other scale"])
    def test_pairs_that_are_written_otherwise(self, fault: str) -> None:
        model = quantized()
        made = {name: node for node in model.graph.node for name in node.output}
        product = made["a"]
        if fault == "activation alone":
            product.input[1] = "left"
            model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 6), np.float32), "left"))
        elif fault == "weight alone":
            product.input[0] = "tokens"
        elif fault == "unsigned":
            values = made[product.input[1]].input[0]
            (tensor,) = [one for one in model.graph.initializer if one.name == values]
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((4, 6), np.uint8), values))
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "other"))
            made[product.input[0]].input[1] = "other"
        with raises("EF561", "Export the fake-quantized model again"):
            without_qdq(model)
