"""A user's file comes in through one place, whatever wrote it, and computes what it did."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from edgeformer.graph.fuse import fuse
from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.graph.prepare import open_model, prepared
from edgeformer.graph.sequences import SEQUENCE_OPS
from edgeformer.graph.types import to_float_type
from edgeformer.runtime import OnnxSession
from tests.graph.blocks import Block, dynamo, torchscript
from tests.graph.graphs import difference, ops
from tests.raising import raises

IMAGE = torch.randn(2, 8, 8, 16, generator=torch.Generator().manual_seed(1))


def exported(block: Block, **options: Any) -> onnx.ModelProto:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        program = torch.onnx.export(block.eval(), (IMAGE,), dynamo=True, verbose=False, **options)
    assert program is not None
    return program.model_proto


def assert_same(first: onnx.ModelProto, second: onnx.ModelProto) -> None:
    with OnnxSession(first) as before, OnnxSession(second) as after:
        (name,) = before.inputs
        feeds = {name: IMAGE.numpy()}
        assert difference(list(before.run(feeds).values()), list(after.run(feeds).values())) <= 1e-6


def test_what_is_in_that_form_is_returned_itself() -> None:
    torch.manual_seed(0)
    model = prepared(dynamo(Block(), IMAGE))
    assert prepared(model) is model


def test_an_attention_node_of_opset_23_is_lowered_and_the_block_fused() -> None:
    torch.manual_seed(0)
    model = exported(Block(attend="sdpa"), opset_version=23)
    assert ops(model)["Attention"] == 1
    ready = prepared(model)
    assert "Attention" not in ops(ready)
    assert_same(model, ready)
    result = fuse(model)
    assert len(result.fused) == 1, [block.reason for block in result.blocks]
    assert_same(model, result.model)


def test_an_attention_node_with_a_free_batch_is_lowered_and_the_block_fused() -> None:
    """What its definition computes of the batch's size, and a Where that picks nothing, is in nobody's way."""
    torch.manual_seed(0)
    model = exported(Block(attend="sdpa"), opset_version=23, dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert ops(model)["Attention"] == 1
    assert "Where" not in ops(prepared(model))
    result = fuse(model)
    assert [block.reason for block in result.blocks] == [None]
    assert_same(model, result.model)
    with OnnxSession(to_float_type(result.model, "float16")) as typed, OnnxSession(model) as before:
        for batch in (1, 5):
            feeds = {"x": np.random.default_rng(batch).standard_normal((batch, 8, 8, 16)).astype(np.float32)}
            assert difference(list(before.run(feeds).values()), list(typed.run(feeds).values())) <= 5e-3


@pytest.mark.parametrize("batch", [2, "batch"])
def test_an_attention_node_with_a_mask_beyond_fp16_becomes_fp16(batch: int | str) -> None:
    mask = np.zeros((4, 4), np.float32)
    mask[:, 3] = mask[1] = -1e9
    shape = [batch, 2, 4, 8]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "qkvy"]
    node = helper.make_node("Attention", ["q", "k", "v", "mask"], ["y"], name="attention")
    stored = [onnx.numpy_helper.from_array(mask, "mask")]
    graph = helper.make_graph([node], "g", values[:3], values[3:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    ready = prepared(model)
    assert "Attention" not in ops(ready)
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((2, 2, 4, 8)).astype(np.float32) for name in "qkv"}
    with OnnxSession(model) as before, OnnxSession(to_float_type(ready, "float16")) as typed:
        expected, got = before.run(feeds)["y"], typed.run(feeds)["y"]
    assert np.isfinite(got).all()
    assert difference([expected], [got]) <= 5e-3


def test_an_export_without_optimization_is_fused() -> None:
    """It holds sequences, constants that nobody folded, identities and nodes that nobody reads."""
    torch.manual_seed(0)
    model = exported(Block(), opset_version=18, optimize=False)
    ready = prepared(model)
    assert ops(model)["Identity"] > 0
    assert not ops(ready).keys() & set(SEQUENCE_OPS)
    assert_same(model, ready)
    result = fuse(model)
    assert len(result.fused) == 1, [block.reason for block in result.blocks]
    assert_same(model, result.model)


def test_nodes_named_alike_are_fused() -> None:
    torch.manual_seed(0)
    model = torchscript(Block(), IMAGE)
    for node in model.graph.node:
        node.name = "node"
    result = fuse(model)
    assert len(result.fused) == 1
    assert_same(prepared(model), result.model)


def test_a_file_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = dynamo(Block(), IMAGE)
    model.graph.node.append(helper.make_node("RandomUniform", [], ["r"], name="noise", shape=[1]))
    path = tmp_path / "model.onnx"
    save_model(model, path)
    assert load_model(path) == model
    with raises("EF342", path, "noise"):
        open_model(path)


def test_inputs_and_outputs_stay() -> None:
    torch.manual_seed(0)
    model = dynamo(Block(), IMAGE)
    ready = prepared(model)
    for given, kept in ((model.graph.input, ready.graph.input), (model.graph.output, ready.graph.output)):
        assert list(given) == list(kept)
