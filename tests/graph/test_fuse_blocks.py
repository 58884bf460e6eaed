"""One attention block at a time: ways to write it that must all fuse, and other functions that must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeformer.graph.fuse import fuse
from tests.graph.blocks import DIFFERENT, SAME, Block, dynamo, torchscript
from tests.graph.graphs import difference, ops, run

SAME_CASES = sorted({(piece, way) for piece, ways in SAME.items() for way in ways})
# What the dynamo exporter writes in another way than the old one; its exports take longer.
DYNAMO_CASES = [(piece, way) for piece in ("gather", "attend") for way in SAME[piece]]
DYNAMO_CASES += [
    ("linear", way) for way in ("regions", "conv", "no_bias", "separate", "separate_conv", "q_vk", "by_head")
]
DIFFERENT_CASES = [(piece, way, word) for piece, ways in DIFFERENT.items() for way, word in ways.items()]


def block(**parts: Any) -> tuple[Block, torch.Tensor]:
    torch.manual_seed(len(str(parts)))
    size = 12 if parts.get("layout") == "rectangular" else 8
    return Block(size=size, **parts), torch.randn(2, size, size, 16)


def assert_fused(model: onnx.ModelProto, example: torch.Tensor, heads: int = 2) -> onnx.ModelProto:
    result = fuse(model)
    assert [report.reason for report in result.blocks] == [None]
    assert result.blocks[0].attributes == {
        "num_heads": heads,
        "regions": 4,
        "topk": 3,
        "qk_dim": 16,
        "scale": pytest.approx(0.25, rel=1e-7),
    }
    feeds = {"input": example.numpy()}
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5
    assert not {"TopK", "GatherElements", "GatherND", "Gather", "Reshape", "Softmax"} & ops(result.model).keys()
    return result.model


@pytest.mark.parametrize(("piece", "way"), SAME_CASES)
def test_every_way_to_write_it_fuses(piece: str, way: str) -> None:
    module, example = block(**{piece: way})
    fused = assert_fused(torchscript(module, example, dynamic={0: "batch"}), example)

    # The batch is still open: one that neither the exporter nor the proof has seen.
    other = torch.randn(5, 8, 8, 16)
    with torch.no_grad():
        expected = module(other).numpy()
    assert difference([expected], run(fused, {"input": other.numpy()})) <= 1e-5


@pytest.mark.parametrize(("piece", "way"), DYNAMO_CASES)
def test_dynamo_exports_fuse(piece: str, way: str) -> None:
    module, example = block(**{piece: way})
    assert_fused(dynamo(module, example, dynamic={0: torch.export.Dim("batch")}), example)


@pytest.mark.parametrize("fold", [True, False])
def test_open_height_and_width(fold: bool) -> None:
    module, example = block()
    model = torchscript(module, example, dynamic={0: "batch", 1: "height", 2: "width"}, fold=fold)
    fused = assert_fused(model, example)

    other = torch.randn(1, 12, 20, 16)
    with torch.no_grad():
        expected = module(other).numpy()
    assert difference([expected], run(fused, {"input": other.numpy()})) <= 1e-5


@pytest.mark.parametrize("opset", [13, 16, 18, 20])
def test_torchscript_opsets(opset: int) -> None:
    module, example = block()
    fused = assert_fused(torchscript(module, example, opset=opset), example)
    assert max(entry.version for entry in fused.opset_import if entry.domain == "") == max(opset, 18)
    onnx.checker.check_model(fused, full_check=True)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_dynamo_opsets(opset: int) -> None:
    module, example = block()
    fused = assert_fused(dynamo(module, example, opset=opset), example)
    onnx.checker.check_model(fused, full_check=True)


def test_full_topk_other_widths_and_an_odd_scale() -> None:
    torch.manual_seed(1)
    module = Block(dim=24, qk_dim=12, heads=3, regions=2, topk=4, size=6, scale="logits", routing="unscaled")
    example = torch.randn(1, 6, 6, 24)
    result = fuse(torchscript(module, example))

    assert result.blocks[0].attributes == {
        "num_heads": 3,
        "regions": 2,
        "topk": 4,
        "qk_dim": 12,
        "scale": pytest.approx(12**-0.5, rel=1e-6),
    }


def test_a_constant_temperature_is_a_scale() -> None:
    """One number for all heads is what the op's scale is for, wherever the exporter put it."""
    module, example = block(scale="per_head")
    module.temperature.data[:] = 0.7

    result = fuse(torchscript(module, example))

    assert result.blocks[0].attributes is not None
    assert result.blocks[0].attributes["scale"] == pytest.approx(0.7, rel=1e-6)


@pytest.mark.parametrize(("piece", "way", "word"), DIFFERENT_CASES)
def test_other_functions_stay_as_they_were(piece: str, way: str, word: str) -> None:
    module, example = block(**{piece: way})
    model = torchscript(module, example)

    result = fuse(model)

    (report,) = result.blocks
    assert report.status == "left"
    assert report.reason is not None
    assert word in report.reason
    assert report.attributes is None
    assert report.op is None
    assert report.nodes[0] == next(node.name for node in model.graph.node if node.op_type == "TopK")
    assert result.model.SerializeToString() == model.SerializeToString()


def test_one_other_block_does_not_keep_its_neighbours_from_fusing() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(Block(), Block(attend="mask"), Block(gather="rows"))
    example = torch.randn(2, 8, 8, 16)
    model = torchscript(module, example)

    result = fuse(model)

    assert [report.status for report in result.blocks] == ["fused", "left", "fused"]
    assert ops(result.model)["BiLevelRoutingAttention"] == 2
    assert ops(result.model)["TopK"] == 1
    feeds = {"input": example.numpy()}
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5


def test_a_block_with_an_attention_op_is_fused() -> None:
    """Opset 23 has one; it is taken apart first."""
    module, example = block(attend="sdpa")
    model = dynamo(module, example, opset=23)
    assert "Attention" in {node.op_type for node in model.graph.node}
    assert_fused(model, example)


def test_lepe_of_the_fused_block_reads_a_slice_of_the_image() -> None:
    module, example = block()
    fused = assert_fused(dynamo(module, example), example)

    producer = {name: node for node in fused.graph.node for name in node.output}
    convolution = next(node for node in fused.graph.node if node.op_type == "Conv")
    to_channels_first = producer[convolution.input[0]]
    values = producer[to_channels_first.input[0]]
    attention = next(node for node in fused.graph.node if node.domain == "edgeformer")
    assert to_channels_first.op_type == "Transpose"
    assert values.op_type == "Slice"
    assert values.input[0] == attention.input[0]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in fused.graph.initializer}
    np.testing.assert_array_equal([constants[name][0] for name in values.input[1:]], [32, 48, 3])
