from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeformer.verify.blocks.cuts import Block, Counterpart, blocks_of, counterparts, merged
from tests.runtime.conftest import make_model
from tests.verify.conftest import routing_model


def in_module(node: NodeProto, *modules: str) -> NodeProto:
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(["", *modules, "op"]))
    return node


def chain(
    *nodes: NodeProto, weights: dict[str, np.ndarray] | None = None, outputs: tuple[str, ...] = ("y",)
) -> ModelProto:
    shape: list[int | str] = ["n", 2, 4, 4]
    return make_model(
        nodes,
        [("x", TensorProto.FLOAT, shape)],
        [(name, TensorProto.FLOAT, ["n", "a", "b", "c"]) for name in outputs],
        weights,
    )


def two_blocks() -> ModelProto:
    """A branch around the second block, and a side output that stands between the nodes of the second."""
    return chain(
        in_module(helper.make_node("Relu", ["x"], ["a"]), "stages.0", "stages.0.0"),
        in_module(helper.make_node("Neg", ["a"], ["b"]), "stages.1", "stages.1.0"),
        in_module(helper.make_node("Abs", ["a"], ["side"]), "norm"),
        in_module(helper.make_node("Add", ["b", "a"], ["c"]), "stages.1", "stages.1.0"),
        in_module(helper.make_node("Tanh", ["c"], ["y"]), "head"),
        outputs=("y", "side"),
    )


def test_blocks_stand_together_whatever_the_order_of_the_nodes() -> None:
    assert blocks_of(two_blocks()) == (
        Block("stages.0.0", (), ("a",), ("a",)),
        Block("stages.1.0", ("a",), ("c",), ("a", "c")),
        Block("norm", ("a", "c"), ("side",), ("c",)),
        Block("head", ("c",), ("y",), ()),
    )


def test_op_nodes_divide_a_graph_without_modules() -> None:
    blocks = blocks_of(routing_model(named=False))
    assert [block.name for block in blocks] == ["block0", "block1", "behind the last block"]
    assert [block.outputs for block in blocks] == [("a0",), ("a1",), ("logits",)]


def test_branches_divide_a_graph_without_either() -> None:
    model = chain(
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Abs", ["c"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    )
    assert [(block.name, block.inputs, block.outputs) for block in blocks_of(model)] == [
        ("part 1", (), ("a",)),
        ("part 2", ("a",), ("c",)),
        ("part 3", ("c",), ("y",)),
    ]


def test_blocks_between_which_a_tensor_is_missing_become_one() -> None:
    blocks = [Block("a", (), ("1",), ("1",)), Block("b", ("1",), ("2",), ("2",)), Block("c", ("2",), ("y",), ())]
    assert merged(blocks, lambda name: name == "2") == (
        Block("a + b", (), ("2",), ("2",)),
        Block("c", ("2",), ("y",), ()),
    )
    assert [block.name for block in merged(blocks, lambda name: False)] == ["a + b + c"]


def test_a_tensor_that_is_channels_first_and_its_transpose_are_found() -> None:
    before = chain(
        helper.make_node("Transpose", ["x"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["last"], ["act"]),
        helper.make_node("Transpose", ["act"], ["y"], perm=[0, 3, 1, 2]),
    )
    behind = chain(
        helper.make_node("Relu", ["x"], ["act/channels_first"]),
        helper.make_node("Identity", ["act/channels_first"], ["other"]),
        outputs=("other",),
    )
    assert counterparts(before, behind) == {
        "act": (Counterpart("act/channels_first", (0, 3, 1, 2)),),
        "y": (Counterpart("act/channels_first"),),
    }
    assert counterparts(before, before)["y"] == (Counterpart("y"), Counterpart("act", (0, 2, 3, 1)))


@pytest.mark.parametrize("quantized", [False, True])
def test_what_quantization_moves_has_no_counterpart(quantized: bool) -> None:
    weights = {
        "gamma": np.ones(4, np.float32),
        "beta": np.zeros(4, np.float32),
        "w": np.eye(4, dtype=np.float32),
        "bias": np.ones(4, np.float32),
        "s": np.float32(1),
        "z": np.int8(0),
    }
    layer = [
        helper.make_node("MatMul", ["norm" if not quantized else "d", "w"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    norm = helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["norm"])
    pair = [
        helper.make_node("QuantizeLinear", ["norm", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    ]
    float_layer = [helper.make_node("MatMul", ["norm", "w"], ["product"]), layer[1]]
    before = chain(norm, *float_layer, weights=weights)
    behind = chain(norm, *(pair if quantized else []), *layer, weights=weights)
    assert set(counterparts(before, behind)) == ({"y"} if quantized else {"norm", "product", "y"})
