from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.multiply_adds import multiply_adds
from edgeformer.graph.qdq import AttentionSite, LayerSite, attention_site, insert_qdq, layer_site
from edgeformer.graph.types import to_float_type
from edgeformer.ops import bi_level_routing_attention as bra
from tests.graph.precision_graphs import Builder, run, transformer
from tests.raising import raises


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_counts_are_for_one_image(batch: str | int) -> None:
    b = Builder((batch, 3, 8, 10))
    x = b.conv("input", 3, 6, 3, "stem", pads=[1, 1, 1, 1], strides=[2, 2])
    x = b.conv(x, 6, 6, 5, "depthwise", group=6, pads=[2, 2, 2, 2])
    x = b.op("ConvTranspose", x, b.normal(6, 7, 2, 2), strides=[2, 2], output="up")
    tokens = b.op("Transpose", x, perm=[0, 2, 3, 1])
    x = b.linear(tokens, 7, 12, "fc")
    pooled = b.op("ReduceMean", x, b.const(np.array([1, 2])), keepdims=0)
    b.op("Gemm", pooled, b.normal(10, 12), transB=1, output="logits")
    assert multiply_adds(b.model("logits")) == {
        "stem": 4 * 5 * 6 * 3 * 9,
        "depthwise": 4 * 5 * 6 * 25,
        "up": 4 * 5 * 6 * 7 * 4,
        "fc_matmul": 8 * 10 * 7 * 12,
        "logits": 12 * 10,
    }


def test_products_of_activations_and_of_transposed_ones() -> None:
    b = Builder(("batch", 3, 8, 10))
    twice = b.op("MatMul", "input", b.op("Transpose", "input", perm=[0, 1, 3, 2]), output="gram")
    rows = b.op("Reshape", twice, b.const(np.array([24, 8])))
    b.op("Gemm", rows, b.normal(24, 5), transA=1, output="y")
    assert multiply_adds(b.model("y")) == {"gram": 3 * 8 * 8 * 10, "y": 8 * 24 * 5}


def test_a_batch_that_is_folded_into_another_dimension() -> None:
    """As windows of attention are, with a shape that the graph computes."""
    b = Builder(("batch", 3, 8, 8))
    shape = b.op("Shape", "input")
    rows = b.op("Mul", b.op("Slice", shape, b.const(np.array([0])), b.const(np.array([1]))), b.const(np.array([24])))
    x = b.op("Reshape", "input", b.op("Concat", rows, b.const(np.array([8])), axis=0))
    b.op("MatMul", x, b.normal(8, 16), output="y")
    assert multiply_adds(b.model("y")) == {"y": 24 * 8 * 16}


def test_shapes_that_are_not_known_give_no_number() -> None:
    b = Builder((1, 3, 8, 8))
    some = b.op("Compress", "input", b.op("Cast", "input", to=TensorProto.BOOL), axis=2)
    b.op("MatMul", some, b.normal(8, 4), output="y")
    model = b.model("y")
    assert multiply_adds(model) == {"y": None}


@pytest.mark.parametrize("lepe", [False, True])
def test_the_op_takes_what_its_body_takes(lepe: bool) -> None:
    b = Builder(("batch", 8, 12, 28))
    more = {"lepe_kernel": 3, "dim": 12} if lepe else {}
    attributes = bra.Attributes(2, 4, 3, 8, 0.25, **more)
    tensors = {"lepe_weight": b.normal(3, 3, 12), "lepe_bias": b.normal(12)} if lepe else {}
    b.nodes.append(attributes.make_node("input", "y", "attention", **tensors))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 12, 12])
    graph = helper.make_graph(b.nodes, "g", b.inputs, [output], b.initializers)
    model = bra.with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    (count,) = multiply_adds(model).values()
    assert count == 16 * 16 * 8 + 96 * (3 * 6) * (8 + 12) + (96 * 12 * 9 if lepe else 0)
    assert counted_by_running(onnx.inliner.inline_local_functions(model), (1, 8, 12, 28)) == count


def counted_by_running(model: onnx.ModelProto, shape: tuple[int, ...]) -> int:
    """The same from the shapes that ONNX Runtime finds, which a graph computes where inference cannot tell them."""
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul")]
    names = [name for node in nodes for name in (*node.input[:2], node.output[0])]
    values = run(model, np.ones(shape, np.float32), *names)
    found = 0
    for number, node in enumerate(nodes):
        first, second, output = values[3 * number : 3 * number + 3]
        found += output.size * (math.prod(second.shape[1:]) if node.op_type == "Conv" else first.shape[-1])
    return found


def test_a_whole_network() -> None:
    found = multiply_adds(transformer(dim=8, size=8))
    tokens = 64
    assert found == {
        "stem": tokens * 8 * 3 * 9,
        "pos_embed": tokens * 8 * 9,
        "qkv_matmul": tokens * 8 * 24,
        "bra_7": 4 * 4 * 8 + tokens * 2 * 16 * 16,
        "wo_matmul": tokens * 8 * 8,
        "fc1_matmul": tokens * 8 * 24,
        "fc2_matmul": tokens * 24 * 8,
        "downsample": 16 * 16 * 8 * 9,
        "logits": 16 * 10,
    }


@pytest.mark.parametrize("quantized", [False, True])
def test_types_and_qdq_pairs_change_no_number(quantized: bool) -> None:
    model = transformer()
    expected = list(multiply_adds(model).values())
    if quantized:
        index = GraphIndex(model)
        found = [layer_site(index, node) for node in model.graph.node]
        sites = [site for site in found if isinstance(site, LayerSite)]
        (place,) = (attention_site(index, node) for node in model.graph.node if bra.is_op(node))
        assert isinstance(place, AttentionSite)
        ranges = dict.fromkeys([site.activation for site in sites] + [part.name for part in place.parts], 1.0)
        model = insert_qdq(model, sites, ranges, attention=[place])
    for changed in (model, to_float_type(model, "float16")):
        assert list(multiply_adds(changed).values()) == expected


def test_an_op_node_that_does_not_fit_its_input() -> None:
    b = Builder((1, 9, 8, 24))
    b.attention_op("input")
    graph = helper.make_graph(b.nodes, "g", b.inputs, [onnx.ValueInfoProto(name=b.nodes[0].output[0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(bra.DOMAIN, 1)])
    with raises("EF903", "H=9", "regions=2"):
        multiply_adds(model)
