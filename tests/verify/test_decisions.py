from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from edgeformer.graph.fuse import fuse
from edgeformer.graph.types import to_float_type
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op, reference, reference_routing, with_function
from edgeformer.runtime import OnnxSession
from edgeformer.verify.decisions import expose_routing, show_routing
from tests.graph.blocks import DIFFERENT, SAME, Block, dynamo, torchscript
from tests.graph.graphs import reference_graph
from tests.runtime.conftest import Value, make_model
from tests.verify.conftest import ATTRIBUTES, gather_attention, linear_model, routing_model


def inputs(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4, 6, 12)).astype(np.float32)


def test_exposed_indices_are_the_ops_own() -> None:
    model, outputs = expose_routing(routing_model())
    x = inputs(2, seed=3)
    found = OnnxSession(model).run({"input": x})
    assert [(output.stage, output.block) for output in outputs] == [(0, 5), (2, 5)]
    first = reference_routing(x, ATTRIBUTES[0])
    np.testing.assert_array_equal(found[outputs[0].name], first)
    middle = np.tile(reference(x, ATTRIBUTES[0]), 3)
    np.testing.assert_array_equal(
        np.sort(found[outputs[1].name], -1), np.sort(reference_routing(middle, ATTRIBUTES[1]), -1)
    )


def test_exposing_leaves_the_model_and_its_outputs_alone() -> None:
    model = routing_model()
    before = model.SerializeToString()
    exposed, _ = expose_routing(model)
    assert model.SerializeToString() == before
    x = inputs(1, seed=4)
    np.testing.assert_array_equal(
        OnnxSession(exposed).run({"input": x})["logits"], OnnxSession(model).run({"input": x})["logits"]
    )


def test_weights_without_such_names() -> None:
    _, outputs = expose_routing(routing_model(named=False))
    assert [(output.stage, output.block) for output in outputs] == [(None, 0), (None, 1)]


def test_weights_that_two_blocks_share_are_not_believed() -> None:
    model = routing_model()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name.startswith("stages.2"):
                node.input[index] = "again"
    extra = model.graph.node.add()
    extra.CopyFrom(helper.make_node("Slice", ["stages.0.5.attn.qkv.weight", "zero", "four"], ["again"]))
    model.graph.node.insert(0, model.graph.node.pop())
    model.graph.initializer.extend(
        [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("zero", 0), ("four", 4))]
    )
    exposed, outputs = expose_routing(model)
    assert [(output.stage, output.block) for output in outputs] == [(None, 0), (None, 1)]
    assert OnnxSession(exposed).run({"input": inputs(1, seed=1)})[outputs[0].name].shape == (1, 4, 1)


def test_showing_leaves_the_weights_where_they_are() -> None:
    model = routing_model()
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    want, outputs = expose_routing(model)
    assert show_routing(model) == outputs
    assert model == want
    assert len(held) == len(model.graph.initializer) == 5
    assert all(held[tensor.name] is tensor for tensor in model.graph.initializer)
    assert not model.functions


REFERENCE_PLACES = {
    "biformer_backbone_pad_200x264": [(0, 0), (1, 0), (2, 0)],
    "biformer_cls_224": [(0, 0), (1, 0), (2, 0), (2, 1)],
    "biformer_stl_224": [(0, 0), (1, 0), (2, 0)],
}


@pytest.mark.parametrize("exporter", ["dynamo20", "torchscript17"])
@pytest.mark.parametrize("name", REFERENCE_PLACES)
def test_every_block_of_the_reference_is_shown(name: str, exporter: Any) -> None:
    _, outputs = expose_routing(reference_graph(f"{name}.{exporter}"))
    assert [(output.stage, output.block) for output in outputs] == REFERENCE_PLACES[name]


@pytest.mark.slow
@pytest.mark.parametrize("lepe", [False, True])
def test_every_block_is_shown_fused_and_in_fp16_too(lepe: bool) -> None:
    fused = fuse(reference_graph("biformer_cls_224.dynamo20"), fuse_lepe=lepe).model
    assert sum(map(is_op, fused.graph.node)) == 4
    for model in (fused, to_float_type(fused, "float16")):
        _, outputs = expose_routing(model)
        assert [(output.stage, output.block) for output in outputs] == REFERENCE_PLACES["biformer_cls_224"]


def test_the_op_on_int8_shows_its_routing() -> None:
    attributes = Attributes(1, 2, 2, 4, 0.5, 0.1, 0.2, 0.3, TensorProto.FLOAT)
    graph = helper.make_graph(
        [attributes.make_node("qkv", "out", "block")],
        "int8",
        [helper.make_tensor_value_info("qkv", TensorProto.INT8, ["batch", 4, 6, 12])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 4, 6, 4])],
    )
    model = with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    exposed, (output,) = expose_routing(model)
    x = np.random.default_rng(2).integers(-128, 128, (3, 4, 6, 12), np.int8)
    found = OnnxSession(exposed).run({"qkv": x})[output.name]
    np.testing.assert_array_equal(np.sort(found, -1), np.sort(reference_routing(x, attributes), -1))


WAYS = [
    (piece, how) for table in (SAME, DIFFERENT) for piece, hows in table.items() if piece != "layout" for how in hows
]


@pytest.mark.parametrize("exporter", [torchscript, dynamo])
@pytest.mark.parametrize(("piece", "how"), WAYS)
def test_however_the_block_is_written_its_routing_is_shown(piece: str, how: str, exporter: Any) -> None:
    """In functions that the fuser leaves alone, too: those decide where to attend just as well."""
    torch.manual_seed(0)
    part: dict[str, Any] = {piece: how}
    _, outputs = expose_routing(exporter(Block(**part), torch.zeros(2, 8, 8, 16)))
    assert len(outputs) == 1


@pytest.mark.parametrize("how", ["one", "reduced", "attention"])
def test_attention_over_gathered_keys_is_routing(how: str) -> None:
    exposed, outputs = expose_routing(gather_attention(how))
    assert [output.name for output in outputs] == ["picked"]
    assert [output.name for output in exposed.graph.output] == ["y", "picked"]
    assert exposed.graph.output[1].type.tensor_type.elem_type == TensorProto.INT64


@pytest.mark.parametrize("how", ["no_softmax", "weights", "gathered_by_others", "values_only"])
def test_a_topk_whose_indices_lead_to_no_attention_is_no_routing(how: str) -> None:
    assert expose_routing(gather_attention(how))[1] == ()


def test_the_best_classes_are_results() -> None:
    """A classifier that gives its classes: they are an output to compare, not a place where queries were sent."""
    values: list[Value] = [("scores", TensorProto.FLOAT, ["n", 2]), ("classes", TensorProto.INT64, ["n", 2])]
    model = make_model(
        [helper.make_node("Softmax", ["x"], ["p"]), helper.make_node("TopK", ["p", "k"], ["scores", "classes"])],
        [("x", TensorProto.FLOAT, ["n", 5])],
        values,
        {"k": np.array([2])},
    )
    exposed, outputs = expose_routing(model)
    assert outputs == ()
    assert exposed == model


def test_routing_that_is_an_output_already_is_not_added_again() -> None:
    model = gather_attention("one")
    model.graph.output.append(helper.make_tensor_value_info("picked", TensorProto.INT64, ["n", 4, 2]))
    exposed, outputs = expose_routing(model)
    assert [output.name for output in outputs] == ["picked"]
    assert [output.name for output in exposed.graph.output] == ["y", "picked"]
    x = np.random.default_rng(3).standard_normal((2, 4, 3)).astype(np.float32)
    want = np.argsort(-(x @ x.transpose(0, 2, 1)), axis=-1, kind="stable")[..., :2]
    np.testing.assert_array_equal(OnnxSession(exposed).run({"x": x})["picked"], want)


def test_a_graph_without_routing_stays_as_it_is() -> None:
    model = linear_model(np.eye(3))
    exposed, outputs = expose_routing(model)
    assert (exposed, outputs) == (model, ())
