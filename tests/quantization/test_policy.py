from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeformer.quantization import Decision, Override, decide
from tests.graph.precision_graphs import Builder, transformer
from tests.raising import raises


def by_output(model: onnx.ModelProto, *overrides: Override) -> dict[str, Decision]:
    return {decision.output: decision for decision in decide(model, overrides)}


def test_fused_network() -> None:
    decisions = by_output(transformer())
    assert {name for name, item in decisions.items() if item.quantized} == {
        "stem",
        "qkv_matmul",
        "wo_matmul",
        "fc1_matmul",
        "fc2_matmul",
        "downsample",
    }
    reasons = {name: item.because for name, item in decisions.items() if not item.quantized}
    assert reasons == {
        "pos_embed": "a grouped convolution is bound by memory, not by arithmetic",
        "bra_7": "attention and its routing take 16-bit input",
        "logits": "a classifier's error goes straight into the result",
    }
    assert decisions["stem"].because == "a dense convolution"
    assert decisions["fc1_matmul"].because == "a Linear: a matrix product with a constant weight"
    assert decisions["fc1_matmul"].node == "node_fc1_matmul"
    assert decisions["fc1_matmul"].site is not None
    assert decisions["fc1_matmul"].site.activation == "norm2"


def test_attention_is_quantized_where_a_recipe_asks() -> None:
    decisions = decide(transformer(), quantize_attention=True)
    (attention,) = (item for item in decisions if item.op_type == "BiLevelRoutingAttention")
    assert attention.quantized
    assert attention.site is None
    assert attention.because == "recipe: attention takes INT8 queries, keys and values"
    others = [item for item in decisions if item is not attention]
    assert others == [item for item in decide(transformer()) if item.op_type != "BiLevelRoutingAttention"]


def test_int8_attention_without_attention_is_refused() -> None:
    with raises("EF504", "BiLevelRoutingAttention", "edgeformer fuse"):
        decide(routing_graph(), quantize_attention=True)


def test_int8_attention_of_unknown_width_is_refused() -> None:
    b = Builder((1, 4, 4, "channels"))
    b.op("Relu", b.attention_op("input"), output="y")
    with raises("EF504", "'bra_0'", "number of channels of 'input'"):
        decide(b.model("y"), quantize_attention=True)


def test_names_play_no_part() -> None:
    model = transformer()
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    renamed = by_output(model)
    assert {n: d.quantized for n, d in renamed.items()} == {n: d.quantized for n, d in by_output(transformer()).items()}


def test_attention_products_are_left() -> None:
    b = Builder((2, 4, 8))
    x = b.op("Relu", b.linear("input", 8, 8, "fc"))
    scores = b.op("Softmax", b.op("MatMul", x, b.op("Transpose", x, perm=[0, 2, 1]), output="scores"))
    b.op("Add", b.op("MatMul", scores, x, output="weighted"), "input", output="y")
    decisions = by_output(b.model("y"))
    assert {name: item.quantized for name, item in decisions.items()} == {
        "fc_matmul": True,
        "scores": False,
        "weighted": False,
    }
    assert decisions["scores"].because == "it multiplies two activations"


def routing_graph() -> onnx.ModelProto:
    """A block whose routing passes its region means through a Linear of its own before TopK."""
    b = Builder((2, 16, 4, 8))
    x = b.linear("input", 8, 8, "qkv")
    mean = b.op("ReduceMean", x, b.const(np.array([2])), keepdims=0, output="mean")
    embedded = b.linear(mean, 8, 8, "router")
    logits = b.op("MatMul", embedded, b.op("Transpose", embedded, perm=[0, 2, 1]), output="routing")
    b.op("TopK", logits, b.const(np.array([3])), output="topk", outputs=2)
    b.op("Add", "input", b.linear(x, 8, 8, "wo"), output="y")
    return b.model("y", "topk_1")


def test_linear_that_decides_routing_is_left() -> None:
    decisions = by_output(routing_graph())
    assert decisions["qkv_matmul"].quantized
    assert decisions["wo_matmul"].quantized
    assert not decisions["router_matmul"].quantized
    assert decisions["router_matmul"].because.startswith("it decides routing")
    assert decisions["routing"].because == "it multiplies two activations"


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid", "Identity", None])
def test_layer_that_leads_to_the_output_is_a_classifier(last: str | None) -> None:
    b = Builder((2, 8))
    x = b.op("Relu", b.linear("input", 8, 8, "hidden"))
    x = b.linear(x, 8, 4, "head")
    decisions = by_output(b.model(b.op(last, x, output="y") if last else x))
    assert decisions["hidden_matmul"].quantized
    assert not decisions["head_matmul"].quantized


def test_layer_behind_global_pooling_is_a_classifier() -> None:
    b = Builder((2, 4, 6, 6))
    x = b.conv("input", 4, 8, 1, "conv")
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    hidden = b.op("Relu", b.linear(x, 8, 8, "head_hidden"))
    decisions = by_output(b.model(b.op("Mul", hidden, hidden, output="y")))
    assert decisions["conv"].quantized
    assert not decisions["head_hidden_matmul"].quantized


class TestOverrides:
    def test_later_ones_win(self) -> None:
        decisions = by_output(
            transformer(),
            Override(name="fc*", quantize=False, because="test"),
            Override(name="fc2.weight", quantize=True, because="after all"),
        )
        assert decisions["fc1_matmul"].because == "recipe: test"
        assert not decisions["fc1_matmul"].quantized
        assert decisions["fc2_matmul"].because == "recipe: after all"
        assert decisions["fc2_matmul"].quantized

    def test_take_in_what_the_policy_leaves(self) -> None:
        decisions = by_output(transformer(), Override(name="pos_embed", quantize=True, because="try"))
        assert decisions["pos_embed"].quantized
        assert decisions["pos_embed"].site is not None

    def test_by_type(self) -> None:
        decisions = by_output(transformer(), Override(op_type="Conv", quantize=False, because="GEMMs only"))
        assert {name for name, item in decisions.items() if item.quantized and item.op_type == "Conv"} == set()
        assert decisions["qkv_matmul"].quantized

    def test_that_match_nothing_are_refused_together(self) -> None:
        overrides = [Override(name=name, quantize=False, because="x") for name in ("fc9*", "*", "neck")]
        with raises("EF504", "'fc9*'", "'neck'") as caught:
            decide(transformer(), overrides)
        assert "'*'" not in str(caught.value)

    def test_that_ask_for_attention_are_told_how(self) -> None:
        override = Override(op_type="BiLevelRoutingAttention", quantize=True, because="x")
        with raises("EF504", "BiLevelRoutingAttention", "quantize_attention"):
            decide(transformer(), [override])

    def test_that_ask_for_the_impossible_are_refused(self) -> None:
        with raises("EF504", "'node_routing'", "two activations"):
            decide(routing_graph(), [Override(name="routing", quantize=True, because="x")])
