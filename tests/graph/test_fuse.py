"""The fuser's promises: nothing unproven is replaced, nothing wrong comes out, whatever is given."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import edgeformer.graph.fuse as fuse_module
from edgeformer.graph.fuse import fuse
from edgeformer.graph.fusion import proof
from edgeformer.graph.fusion.execution import random_images
from edgeformer.graph.fusion.geometry import Geometry, geometry_of, measured_scale
from edgeformer.graph.fusion.rewrite import rewrite
from edgeformer.graph.prepare import prepared
from edgeformer.models.attention import BiLevelRoutingAttention
from edgeformer.ops.bi_level_routing_attention import is_op
from tests.graph.blocks import Block, dynamo, torchscript
from tests.graph.graphs import difference, ops, reference_graph, run
from tests.raising import raises


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """One block with 2 heads, 4 x 4 regions, top 3, 16 query channels and scale 0.25."""
    torch.manual_seed(0)
    return dynamo(Block(), torch.randn(2, 8, 8, 16))


@pytest.fixture(scope="module")
def full_model() -> onnx.ModelProto:
    """The same with all regions picked, so that routing decides nothing."""
    torch.manual_seed(0)
    return dynamo(Block(topk=16), torch.randn(2, 8, 8, 16))


@pytest.mark.parametrize(
    "wrong",
    [{"num_heads": 1}, {"num_heads": 4}, {"regions": 2}, {"regions": 8}, {"topk": 2}, {"topk": 4}],
)
def test_the_proof_sees_every_wrong_attribute(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, int]
) -> None:
    right = geometry_of

    def mistaken(*arguments: Any) -> Geometry:
        geometry = right(*arguments)
        return dataclasses.replace(geometry, attributes=dataclasses.replace(geometry.attributes, **wrong))

    monkeypatch.setattr(proof, "geometry_of", mistaken)
    (report,) = fuse(model).blocks

    assert report.status == "left"
    assert report.proof_error is not None
    # Not a matter of the tolerance: wrong by far.
    assert report.proof_error > 1e-2


@pytest.mark.parametrize("factor", [0.999, 1.001, 2.0])
@pytest.mark.parametrize("fixture", ["model", "full_model"])
def test_the_proof_sees_a_wrong_scale(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, factor: float, fixture: str
) -> None:
    right = measured_scale
    monkeypatch.setattr(proof, "measured_scale", lambda *arguments: right(*arguments) * factor)
    (report,) = fuse(request.getfixturevalue(fixture)).blocks

    assert report.status == "left"
    assert report.proof_error is not None
    assert report.proof_error > 1e-4


def test_wrong_heads_are_seen_where_all_regions_are_picked(
    full_model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = geometry_of

    def mistaken(*arguments: Any) -> Geometry:
        geometry = right(*arguments)
        return dataclasses.replace(geometry, attributes=dataclasses.replace(geometry.attributes, num_heads=4))

    monkeypatch.setattr(proof, "geometry_of", mistaken)
    assert [report.status for report in fuse(full_model).blocks] == ["left"]


def test_weights_that_hide_everything_hide_nothing_from_the_proof() -> None:
    """With all-zero query and key weights any routing and any scale give the same output: the proof draws its own."""
    torch.manual_seed(0)
    plain, masked = Block(), Block(attend="mask")
    for module in (plain, masked):
        module.qkv.weight.data[:32] = 0
        module.qkv.bias.data[:32] = 0
    example = torch.randn(2, 8, 8, 16)

    assert [report.status for report in fuse(dynamo(plain, example)).blocks] == ["fused"]
    assert [report.status for report in fuse(dynamo(masked, example)).blocks] == ["left"]


def test_a_graph_that_came_out_wrong_is_not_returned(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    right = rewrite

    def mistaken(*arguments: Any) -> onnx.ModelProto:
        fused = right(*arguments)
        (node,) = [node for node in fused.graph.node if is_op(node)]
        next(attribute for attribute in node.attribute if attribute.name == "num_heads").i = 1
        return fused

    monkeypatch.setattr(fuse_module, "rewrite", mistaken)
    with pytest.raises(RuntimeError, match="the fused graph differs from the given one"):
        fuse(model)


def test_an_input_full_of_ties_says_nothing_and_another_is_drawn(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On constant images all regions tie; a graph that differs there alone is judged by other images."""
    calls: list[dict[str, Any]] = []

    def constant_first(rng: np.random.Generator, *arguments: Any) -> dict[str, Any]:
        feeds = random_images(rng, *arguments)
        calls.append(feeds)
        return feeds if len(calls) > 1 else {name: np.zeros_like(value) for name, value in feeds.items()}

    sound, judged = fuse_module._difference, []

    def pessimist(expected: Any, got: Any) -> float:
        judged.append(sound(expected, got))
        return 1.0 if len(judged) == 1 else judged[-1]

    monkeypatch.setattr(fuse_module, "random_images", constant_first)
    monkeypatch.setattr(fuse_module, "_difference", pessimist)
    result = fuse(model)

    assert len(calls) == 2
    assert result.whole_graph_error is not None
    assert result.whole_graph_error <= 1e-5


@pytest.mark.parametrize("draws", [0, -1])
def test_no_draws_is_no_proof(model: onnx.ModelProto, draws: int) -> None:
    with raises("EF101", f"draws {draws}", "at least 1"):
        fuse(model, draws=draws)


@pytest.mark.parametrize("draws", [1, 5])
def test_as_many_draws_as_asked_for(model: onnx.ModelProto, draws: int) -> None:
    assert [report.draws for report in fuse(model, draws=draws).blocks] == [draws]


def test_progress_is_reported_block_by_block() -> None:
    seen: list[tuple[int, int]] = []
    fuse(
        reference_graph("biformer_stl_224.dynamo20"),
        draws=1,
        progress=lambda text, done, total: seen.append((done, total)),
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_graph_without_attention_is_unchanged() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("TopK", ["input", "k"], ["values", "indices"]),
            helper.make_node("Relu", ["values"], ["output"]),
        ],
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [2, 5])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.array([3], np.int64), "k")],
    )
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])

    result = fuse(given)

    assert result.blocks == ()
    assert result.report.model_dump(mode="json") == {
        "fused": 0,
        "left": 0,
        "whole_graph_error": None,
        "blocks": [],
        "lepe": [],
    }
    assert result.model.SerializeToString() == given.SerializeToString()
    assert result.model is not given


def test_a_graph_that_cannot_run_is_left_with_the_reason(model: onnx.ModelProto) -> None:
    foreign = onnx.ModelProto()
    foreign.CopyFrom(model)
    foreign.graph.node.append(helper.make_node("Mystery", [foreign.graph.output[0].name], ["m"], domain="vendor"))
    foreign.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, None))
    foreign.opset_import.append(helper.make_opsetid("vendor", 1))

    result = fuse(foreign)

    (report,) = result.blocks
    assert report.status == "left"
    assert report.draws == 0
    assert "ONNX Runtime cannot run this graph" in str(report.reason)
    assert "Mystery" in str(report.reason)
    assert result.model.SerializeToString() == foreign.SerializeToString()


def test_reports_are_json(model: onnx.ModelProto) -> None:
    torch.manual_seed(0)
    left = fuse(dynamo(Block(gather="soft"), torch.randn(2, 8, 8, 16)))
    told = [
        *json.loads(fuse(model).report.model_dump_json())["blocks"],
        *json.loads(left.report.model_dump_json())["blocks"],
    ]

    assert [block["status"] for block in told] == ["fused", "left"]
    assert told[0]["op"] == "BiLevelRoutingAttention_0"
    assert told[0]["attributes"]["regions"] == 4
    assert told[1]["attributes"] is None
    assert all(len(block["nodes"]) > 20 for block in told)


def test_a_block_inside_a_function_is_found(model: onnx.ModelProto) -> None:
    """Some exporters wrap modules into model-local functions."""
    function = helper.make_function(
        "exporter",
        "Attention",
        ["x"],
        ["y"],
        [],
        [],
    )
    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    (given,), (made,) = inner.graph.input, inner.graph.output
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in inner.graph.initializer]
    function.node.extend([*constants, *inner.graph.node])
    function.input[:], function.output[:] = [given.name], [made.name]
    function.opset_import.extend(inner.opset_import)
    graph = helper.make_graph(
        [helper.make_node("Attention", [given.name], [made.name], domain="exporter")], "graph", [given], [made]
    )
    opsets = [*inner.opset_import, helper.make_opsetid("exporter", 1)]
    wrapped = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)

    result = fuse(wrapped)

    assert len(result.fused) == 1
    assert [entry.name for entry in result.model.functions] == ["BiLevelRoutingAttention"]
    feeds = {given.name: np.random.default_rng(0).standard_normal((2, 8, 8, 16)).astype(np.float32)}
    assert difference(run(wrapped, feeds), run(result.model, feeds)) <= 1e-5


def test_nodes_out_of_order_and_stale_types_are_no_obstacle(model: onnx.ModelProto) -> None:
    """ONNX Runtime's FP16 converter leaves both."""
    untidy = onnx.ModelProto()
    untidy.CopyFrom(model)
    nodes = list(untidy.graph.node)[::-1]
    del untidy.graph.node[:]
    untidy.graph.node.extend(nodes)
    for value in untidy.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16

    result = fuse(untidy)

    assert len(result.fused) == 1
    onnx.checker.check_model(result.model, full_check=True)


def test_sizes_that_an_exporter_loses_in_a_block_are_found_behind_it() -> None:
    """The old exporter cannot follow sizes through padding and cropping, and gives outputs names in their place."""
    torch.manual_seed(0)
    block = BiLevelRoutingAttention(
        16,
        num_heads=2,
        regions=3,
        topk=2,
        qk_dim=16,
        scale=None,
        lepe_kernel=3,
        output_projection=True,
        auto_pad=True,
    )
    model = torchscript(nn.Sequential(block, nn.Flatten(1, 2)), torch.randn(1, 8, 7, 16))
    assert any(axis.dim_param for axis in prepared(model).graph.output[0].type.tensor_type.shape.dim)
    (output,) = fuse(model).model.graph.output
    assert [axis.dim_value for axis in output.type.tensor_type.shape.dim] == [1, 56, 16]


def test_the_old_graph_gone_and_the_qkv_linear_moved(model: onnx.ModelProto) -> None:
    fused = fuse(model).model

    assert ops(fused) == {"MatMul": 2, "Add": 4, "Slice": 1, "Transpose": 2, "Conv": 1, "BiLevelRoutingAttention": 1}
    (attention,) = [node for node in fused.graph.node if is_op(node)]
    producer = {name: node for node in fused.graph.node for name in node.output}
    bias = producer[attention.input[0]]
    linear = producer[next(name for name in bias.input if name in producer)]
    assert (bias.op_type, linear.op_type) == ("Add", "MatMul")
    # Straight from the graph's input, in image layout.
    assert linear.input[0] == "input"
    # What the exporter noted at the old Linear stays with it.
    assert any("qkv" in entry.value for entry in linear.metadata_props)
