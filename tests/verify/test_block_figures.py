"""The network part by part: what each computes in, and where the harm is done."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.pointwise import linears_as_convolutions
from edgeformer.graph.types import to_float_type
from edgeformer.quantization import load_recipe, quantize
from edgeformer.records.network import BlockFigures
from edgeformer.verify.block_figures import block_figures
from tests.graph.precision_graphs import transformer
from tests.quantization.conftest import ArraySamples

IMAGES = np.random.default_rng(3).standard_normal((3, 3, 16, 16)).astype(np.float32)
# The last node of each part.
ENDS = {"stem": "stem", "image": "stages.0.0", "downsample": "downsample", "logits": "head"}


def noted_transformer() -> onnx.ModelProto:
    """A small network whose nodes tell their modules as PyTorch's exporter notes them."""
    model = transformer()
    waiting: list[onnx.NodeProto] = []
    for node in model.graph.node:
        waiting.append(node)
        if node.output[0] in ENDS:
            for one in waiting:
                scopes = ["", ENDS[node.output[0]], one.output[0]]
                one.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
            waiting.clear()
    assert not waiting
    return model


def by_name(fused: onnx.ModelProto, typed: onnx.ModelProto, images: np.ndarray = IMAGES) -> dict[str, BlockFigures]:
    return {figures.name: figures for figures in block_figures(fused, typed, images)}


def test_a_graph_is_as_good_as_itself() -> None:
    fused = noted_transformer()
    found = by_name(fused, fused)
    assert list(found) == ["stem", "stages.0.0", "downsample", "head"]
    assert {figures.snr_db for figures in found.values()} == {math.inf}
    assert {figures.int8_layers for figures in found.values()} == {0}
    block = found["stages.0.0"]
    assert (block.attention, block.regions, block.topk) == ("fp32", 2, 2)
    assert block.op is not None
    assert [found[name].op for name in ("stem", "downsample", "head")] == [None] * 3


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_sixteen_bits_cost_what_they_cost(kind: str) -> None:
    fused = noted_transformer()
    found = by_name(fused, to_float_type(fused, kind))  # type: ignore[arg-type]
    low, high = (50, 90) if kind == "float16" else (30, 65)
    assert all(figures.snr_db is not None and low < figures.snr_db < high for figures in found.values())
    assert found["stages.0.0"].attention == {"float16": "fp16", "bfloat16": "bf16"}[kind]


def test_the_part_that_is_wrong_is_the_first_whose_figure_falls() -> None:
    fused, typed = noted_transformer(), noted_transformer()
    weight = next(tensor for tensor in typed.graph.initializer if tensor.name == "downsample.weight")
    weight.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(weight), weight.name))
    found = {name: figures.snr_db for name, figures in by_name(fused, typed).items()}
    assert found["stem"] == found["stages.0.0"] == math.inf
    assert found["downsample"] == pytest.approx(20, abs=3)
    assert 5 < (found["head"] or 0.0) < 40


def test_int8_layers_are_counted_in_their_part() -> None:
    fused = noted_transformer()
    recipe = load_recipe().model_copy(update={"min_int8_share": 1.0})
    result = quantize(fused, ArraySamples(IMAGES), recipe=recipe)
    decided = {decision.node: decision.quantized for decision in result.decisions}
    for model in (result.model, linears_as_convolutions(to_float_type(result.model, "float16"))[0]):
        found = by_name(fused, model)
        layers = sum(figures.int8_layers for figures in found.values())
        assert layers == sum(decided.values()) > 0
        assert found["head"].int8_layers == 0
        assert all(figures.snr_db is not None and 5 < figures.snr_db < 60 for figures in list(found.values())[1:])


def test_linears_as_convolutions_keep_their_part_and_their_figure() -> None:
    fused = noted_transformer()
    typed, count = linears_as_convolutions(fused)
    assert count > 0
    plain, moved = by_name(fused, fused), by_name(fused, typed)
    assert list(moved) == list(plain)
    for name, figures in moved.items():
        assert figures.float_layers == plain[name].float_layers
        assert figures.snr_db is not None
        assert figures.snr_db > 100


def test_a_fixed_batch_is_filled_up() -> None:
    fused = noted_transformer()
    for value in fused.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del fused.graph.value_info[:]
    assert by_name(fused, fused)["head"].snr_db == math.inf


def test_a_network_without_parts_has_none() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["y"])],
        "plain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 16, 16])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert block_figures(model, model, IMAGES) == ()
