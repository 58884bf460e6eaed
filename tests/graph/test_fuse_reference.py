"""The fuser on exports of the reference implementation, and on the same graphs written differently."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from edgeformer.graph.fuse import fuse
from edgeformer.ops.bi_level_routing_attention import is_op
from tests.graph.graphs import (
    constants_as_initializers,
    constants_as_nodes,
    difference,
    images,
    ops,
    reference_graph,
    renamed,
    run,
    shared_initializers,
)

# Graph -> (nodes before, nodes after, op nodes). Node counts are exact so that a reshape left behind shows.
GRAPHS = {
    "biformer_cls_224.dynamo20": (294, 138, 4),
    "biformer_cls_224.torchscript17": (551, 191, 4),
    "biformer_stl_224.dynamo20": (224, 107, 3),
    "biformer_stl_224.torchscript17": (412, 146, 3),
    "biformer_backbone_pad_200x264.dynamo20": (247, 130, 3),
    "biformer_backbone_pad_200x264.torchscript17": (1970, 186, 3),
}
HEADS_AND_TOPK = [(1, 1), (2, 4), (3, 16), (3, 16)]
SMALL = "biformer_stl_224.dynamo20"
# Ops that only the unfused attention has.
GONE = ("TopK", "GatherElements", "Expand", "ConstantOfShape", "Where", "Equal")


@pytest.mark.parametrize("name", GRAPHS)
def test_every_block_of_a_reference_export_is_fused(name: str) -> None:
    before, after, count = GRAPHS[name]
    model = reference_graph(name)
    original = model.SerializeToString()
    model.metadata_props.add(key="trained_on", value="nothing")

    result = fuse(model)

    assert [block.status for block in result.blocks] == ["fused"] * count
    assert len(model.graph.node) == before
    assert len(result.model.graph.node) == after
    counts = ops(result.model)
    assert counts["BiLevelRoutingAttention"] == count
    assert not set(GONE) & counts.keys()
    regions = 8 if "pad" in name else 7
    for block, (heads, topk) in zip(result.blocks, HEADS_AND_TOPK, strict=False):
        assert block.attributes == {
            "num_heads": heads,
            "regions": regions,
            "topk": topk,
            "qk_dim": 32 * heads,
            "scale": pytest.approx((32 * heads) ** -0.5, rel=1e-7),
        }
        assert block.proof_error is not None
        assert block.proof_error <= 1e-5
        assert block.draws == 3
        assert block.reason is None
    # Independently of what fuse() found out about it: another input, optimized, as a user runs it.
    feeds = images(model)
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5
    assert result.whole_graph_error is not None
    assert result.whole_graph_error <= 1e-5
    onnx.checker.check_model(result.model, full_check=True)
    assert [value.SerializeToString() for value in result.model.graph.input] == [
        value.SerializeToString() for value in model.graph.input
    ]
    assert [value.name for value in result.model.graph.output] == [value.name for value in model.graph.output]
    assert [(entry.key, entry.value) for entry in result.model.metadata_props] == [("trained_on", "nothing")]
    # The given model is not touched.
    del model.metadata_props[:]
    assert model.SerializeToString() == original


def test_pads_and_crops_of_auto_pad_stay() -> None:
    model = reference_graph("biformer_backbone_pad_200x264.dynamo20")
    fused = fuse(model).model

    # Three padded blocks; two crops each (rows and columns), and one slice each that takes LePE's values out of qkv.
    assert ops(fused)["Pad"] == 3
    assert ops(fused)["Slice"] == 9


@pytest.mark.parametrize(
    "rewritten", [renamed, constants_as_nodes, shared_initializers, lambda m: renamed(constants_as_nodes(m))]
)
def test_neither_names_nor_kinds_of_constants_matter(rewritten: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
    model = rewritten(reference_graph(SMALL))

    result = fuse(model)

    assert len(result.fused) == 3
    feeds = images(model)
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5


def test_constant_nodes_may_be_initializers() -> None:
    model = constants_as_initializers(reference_graph("biformer_stl_224.torchscript17"))
    assert ops(model)["Constant"] == 0

    result = fuse(model)

    assert len(result.fused) == 3
    # The same graph as with Constant nodes, without them, but for one that raising the opset makes.
    assert ops(result.model)["Constant"] == 1
    assert len(result.model.graph.node) == 146 - 22
    feeds = images(model)
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5


def test_shared_weights_are_not_edited() -> None:
    model = shared_initializers(reference_graph(SMALL))
    before = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}

    fused = fuse(model).model

    after = {tensor.name: tensor.SerializeToString() for tensor in fused.graph.initializer}
    weights = [name for name in before if name in after]
    assert len(weights) > 20
    assert all(before[name] == after[name] for name in weights)


def test_same_input_same_bytes_and_reports() -> None:
    model = reference_graph(SMALL)
    first, second = fuse(model, seed=3), fuse(model, seed=3)

    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert first.report == second.report


def test_a_fused_model_is_left_as_it_is() -> None:
    fused = fuse(reference_graph(SMALL)).model

    again = fuse(fused)

    assert again.blocks == ()
    assert again.whole_graph_error is None
    for model in (again.model, fused):
        del model.graph.value_info[:]  # notes, which preparing a model may drop
    assert again.model.SerializeToString(deterministic=True) == fused.SerializeToString(deterministic=True)


def test_a_half_fused_model_is_finished() -> None:
    """Blocks beside op nodes: the op nodes stay, the block joins them, and no name is given twice."""
    model = reference_graph(SMALL)
    fused = fuse(model).model
    both = onnx.compose.merge_models(
        onnx.compose.add_prefix(_at_opset_ir(fused), "a_"),
        onnx.compose.add_prefix(_at_opset_ir(model), "b_"),
        io_map=[],
    )
    both.functions.extend(fused.functions)

    result = fuse(both)

    assert len(result.fused) == 3
    op_nodes = [node for node in result.model.graph.node if is_op(node)]
    assert len(op_nodes) == 6
    assert len({node.name for node in op_nodes}) == 6
    assert len(result.model.functions) == 1


def _at_opset_ir(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = 10
    if all(opset.domain != "edgeformer" for opset in copy.opset_import):
        copy.opset_import.add(domain="edgeformer", version=1)
    del copy.functions[:]
    return copy
