"""Linears as 1 x 1 convolutions: the same function, and the graph that TensorRT makes one kernel of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.fuse import fuse
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.pointwise import linears_as_convolutions
from edgeformer.graph.qdq import AttentionSite, attention_site, insert_qdq
from edgeformer.graph.types import to_float_type
from edgeformer.ops.bi_level_routing_attention import is_op
from edgeformer.quantization.policy import decide
from tests.graph.blocks import torchscript
from tests.graph.graphs import difference, images, ops, run
from tests.graph.test_fuse_models import build

RNG = np.random.default_rng(3)


def graph(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, Sequence[int]],
    shape: Sequence[int | str] = ("n", 4, 6, 8),
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A graph that reads ``x``, with random weights of these shapes."""
    model = helper.make_model(
        helper.make_graph(
            list(nodes),
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)) for name in outputs],
            [
                numpy_helper.from_array(RNG.standard_normal(size).astype(np.float32), name)
                for name, size in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"node_{output}", **attributes)


def converted(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """The model converted, checked to compute the same, to be unchanged itself, and to have nothing left to do."""
    before = model.SerializeToString(deterministic=True)
    result, done = linears_as_convolutions(model)
    assert done == count
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result, full_check=True)
    shape = [axis.dim_value or 2 for axis in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    assert difference(run(model, feeds), run(result, feeds)) <= 1e-6
    again, more = linears_as_convolutions(result)
    assert more == 0
    assert ops(again) == ops(result)
    return result


def mlp(x: str, y: str) -> list[onnx.NodeProto]:
    """Linear, GELU, Linear and a residual sum."""
    return [
        node("MatMul", f"{x} w1", f"{y}_product"),
        node("Add", f"{y}_product b1", f"{y}_hidden"),
        node("Gelu", f"{y}_hidden", f"{y}_gelu"),
        node("MatMul", f"{y}_gelu w2", f"{y}_second"),
        node("Add", f"b2 {y}_second", f"{y}_out"),
        node("Add", f"{x} {y}_out", y),
    ]


WEIGHTS: dict[str, Sequence[int]] = {"w1": (8, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)}


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_an_mlp_stays_channels_first_inside(batch: int | str) -> None:
    result = converted(graph(mlp("x", "y"), WEIGHTS, (batch, 4, 6, 8)), 2)
    # In, out, and nothing between: bias, GELU and residual stand directly behind their convolutions.
    assert ops(result) == {"Transpose": 2, "Conv": 2, "Gelu": 1, "Add": 1}
    assert [tensor.name for tensor in result.graph.initializer if tensor.name in ("w1", "w2")] == []
    assert {tuple(tensor.dims) for tensor in result.graph.initializer} == {(24, 8, 1, 1), (24,), (8, 24, 1, 1), (8,)}


def test_blocks_in_a_row_pass_their_residual_on_channels_first() -> None:
    result = converted(graph([*mlp("x", "a"), *mlp("a", "b"), *mlp("b", "y")], WEIGHTS), 6)
    assert ops(result) == {"Transpose": 2, "Conv": 6, "Gelu": 3, "Add": 3}
    # Shared weights are turned once.
    assert len(result.graph.initializer) == 4


def test_a_convolution_before_and_behind_needs_no_transpose() -> None:
    nodes = [
        node("Transpose", "x", "image", perm=[0, 3, 1, 2]),
        node("Conv", "image kernels", "c", group=8, pads=[1, 1, 1, 1]),
        node("Transpose", "c", "tokens", perm=[0, 2, 3, 1]),
        *mlp("tokens", "m"),
        node("Transpose", "m", "back", perm=[0, 3, 1, 2]),
        node("Conv", "back kernels", "y", group=8, pads=[1, 1, 1, 1]),
    ]
    result = converted(graph(nodes, {**WEIGHTS, "kernels": (8, 1, 3, 3)}), 2)
    assert ops(result) == {"Transpose": 1, "Conv": 4, "Gelu": 1, "Add": 1}


def test_what_wants_channels_last_gets_them() -> None:
    nodes = [*mlp("x", "m"), node("LayerNormalization", "m g h", "n"), *mlp("n", "y")]
    result = converted(graph(nodes, {**WEIGHTS, "g": (8,), "h": (8,)}), 4)
    assert ops(result) == {"Transpose": 4, "Conv": 4, "Gelu": 2, "Add": 2, "LayerNormalization": 1}


def test_a_gelu_that_was_written_out_moves_along() -> None:
    nodes = [
        node("MatMul", "x w1", "p"),
        node("Div", "p two", "d"),
        node("Erf", "d", "e"),
        node("Add", "e two", "o"),
        node("Mul", "p o", "m"),
        node("MatMul", "m w2", "y"),
    ]
    result = converted(graph(nodes, {"w1": (8, 24), "w2": (24, 8), "two": ()}), 2)
    assert ops(result)["Transpose"] == 2


@pytest.mark.parametrize(
    ("nodes", "weights", "shape"),
    [
        ([node("MatMul", "x w1", "y")], WEIGHTS, ("n", 24, 8)),
        ([node("MatMul", "x t", "y")], {"t": (4, 8, 24)}, ("n", 4, 6, 8)),
        ([node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")], {}, ("n", 4, 6, 8)),
    ],
    ids=["rank 3", "a stack of matrices", "two activations"],
)
def test_other_products_stay(
    nodes: list[onnx.NodeProto], weights: dict[str, Sequence[int]], shape: Sequence[int | str]
) -> None:
    used = {name: size for name, size in weights.items() if any(name in made.input for made in nodes)}
    model = graph(nodes, used, shape)
    result, count = linears_as_convolutions(model)
    assert count == 0
    assert result == model


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        # A sum that is broadcast is not one of two images.
        ([node("MatMul", "x w1", "p"), node("Add", "p map", "y")], {"w1": (8, 24), "map": (4, 6, 24)}),
        ([node("MatMul", "x w1", "p"), node("Add", "p row", "y")], {"w1": (8, 24), "row": (1, 1, 6, 24)}),
        ([node("MatMul", "x w1", "p"), node("Mul", "p b1", "y")], {"w1": (8, 24), "b1": (24,)}),
        ([node("MatMul", "x w1", "p"), node("Softmax", "p", "y")], {"w1": (8, 24)}),
    ],
    ids=["map", "row", "gain", "softmax"],
)
def test_what_depends_on_the_layout_stays_channels_last(
    nodes: list[onnx.NodeProto], weights: dict[str, Sequence[int]]
) -> None:
    result = converted(graph(nodes, weights), 1)
    assert ops(result)["Transpose"] == 2


def test_a_product_that_is_an_output_keeps_its_name() -> None:
    nodes = [node("MatMul", "x w1", "p"), node("Add", "p b1", "y")]
    result = converted(graph(nodes, {"w1": (8, 24), "b1": (24,)}, outputs=("p", "y")), 1)
    assert [value.name for value in result.graph.output] == ["p", "y"]


@pytest.mark.parametrize("lepe", [False, True])
@pytest.mark.parametrize("name", ["nano", "channels first", "padded"])
def test_whole_models_compute_the_same(name: str, lepe: bool) -> None:
    module, example, blocks = build(name)
    model = torchscript(module, example, dynamic={0: "batch"})
    fused = fuse(model, fuse_lepe=lepe).model
    result, count = linears_as_convolutions(fused)
    assert count >= 3 * blocks or name == "channels first"
    feeds = images(model, batch=3, size=tuple(example.shape[2:]))  # type: ignore[arg-type]
    assert difference(run(fused, feeds), run(result, feeds)) <= 1e-5
    half = to_float_type(result, "float16")
    onnx.checker.check_model(half, full_check=True)


@pytest.mark.parametrize("lepe", [False, True])
def test_int8_attention_reads_what_a_convolution_makes(lepe: bool) -> None:
    module, example, blocks = build("nano")
    fused = fuse(torchscript(module, example, dynamic={0: "batch"}), fuse_lepe=lepe).model
    index = GraphIndex(fused)
    found = [attention_site(index, node) for node in fused.graph.node if is_op(node)]
    places = [place for place in found if isinstance(place, AttentionSite)]
    assert len(places) == blocks
    ranges = {part.name: 6.0 for place in places for part in place.parts}
    quantized = insert_qdq(fused, [], ranges, attention=places)
    result, count = linears_as_convolutions(quantized)
    assert count == linears_as_convolutions(fused)[1]
    feeds = images(fused, batch=2, size=tuple(example.shape[2:]))  # type: ignore[arg-type]
    # A value on the border between two steps may fall to the other side of it.
    assert difference(run(quantized, feeds), run(result, feeds)) <= 5e-3
    onnx.checker.check_model(to_float_type(result, "float16"), full_check=True)


def test_quantized_linears_stay() -> None:
    module, example, _ = build("nano")
    fused = fuse(torchscript(module, example, dynamic={0: "batch"})).model
    sites = [decision.site for decision in decide(fused) if decision.quantized and decision.site is not None]
    kept = sites[::2]
    quantized = insert_qdq(fused, kept, {site.activation: 4.0 for site in kept})
    _, all_of_them = linears_as_convolutions(fused)
    result, count = linears_as_convolutions(quantized)
    assert 0 < count < all_of_them
    assert ops(result)["DequantizeLinear"] == ops(quantized)["DequantizeLinear"]
