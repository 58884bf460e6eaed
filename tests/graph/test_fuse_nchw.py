"""Blocks on ``[N, C, H, W]`` with 1 x 1 convolutions and pooled regions: fused, or left where they are another op."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch

from edgeformer.graph.fuse import fuse
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op
from tests.graph.blocks import dynamo, torchscript
from tests.graph.graphs import difference, ops, run
from tests.graph.nchw_blocks import DIFFERENT_NCHW, NchwBlock


def block(size: tuple[int, int] = (8, 12), **options: Any) -> tuple[NchwBlock, torch.Tensor]:
    torch.manual_seed(len(str(options)) + size[0])
    module = NchwBlock(**options)
    return module, torch.randn(2, module.dim, *size)


def assert_fused(module: NchwBlock, model: onnx.ModelProto, example: torch.Tensor, regions: int) -> onnx.ModelProto:
    result = fuse(model)
    assert [report.reason for report in result.blocks] == [None]
    assert result.blocks[0].attributes == {
        "num_heads": module.heads,
        "regions": regions,
        "topk": module.topk,
        "qk_dim": module.dim,
        "scale": pytest.approx(module.dim**-0.5, rel=1e-7),
    }
    for other in (example, torch.randn_like(example)):
        feeds = {"input": other.numpy()}
        assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5
        with torch.no_grad():
            assert difference([module(other).numpy()], run(result.model, feeds)) <= 1e-5
    assert not {"TopK", "GatherElements", "Softmax", "AveragePool", "Einsum"} & ops(result.model).keys()
    onnx.checker.check_model(result.model, full_check=True)
    return result.model


@pytest.mark.parametrize("opset", [17, 18, 19, 20])
def test_torchscript(opset: int) -> None:
    module, example = block()
    assert_fused(module, torchscript(module, example, opset=opset, dynamic={0: "batch"}), example, 4)


@pytest.mark.parametrize("opset", [18, 19, 20])
def test_dynamo(opset: int) -> None:
    module, example = block()
    model = dynamo(module, example, opset=opset, dynamic={0: torch.export.Dim("batch")})
    fused = assert_fused(module, model, example, 4)
    other = torch.randn(5, *example.shape[1:])
    with torch.no_grad():
        assert difference([module(other).numpy()], run(fused, {"input": other.numpy()})) <= 1e-5


@pytest.mark.parametrize(
    ("size", "options", "regions"),
    [
        ((7, 21), {"regions": 7, "topk": 4, "heads": 1}, 7),
        ((9, 15), {"regions": 3, "topk": 9, "heads": 4, "lepe": 5}, 3),
        ((6, 10), {"regions": 2, "topk": 1, "dim": 24, "heads": 3, "lepe": None}, 2),
        ((10, 10), {"regions": 4, "topk": 2}, 5),  # regions of 2 x 2 tokens: five in a row, not four
        ((3, 5), {"regions": 1, "topk": 1, "heads": 2}, 1),
    ],
)
def test_sizes_regions_heads(size: tuple[int, int], options: dict[str, Any], regions: int) -> None:
    module, example = block(size, **options)
    assert_fused(module, torchscript(module, example), example, regions)


@pytest.mark.parametrize("way", ["apart", "apart_no_bias", "count_pad", "floor"])
def test_written_otherwise(way: str) -> None:
    """q, k and v of convolutions of their own; pooling modes that make no difference where regions divide the image."""
    module, example = block(way=way)
    fused = assert_fused(module, torchscript(module, example), example, 4)
    assert ops(fused)["Conv"] == 3  # projection, LePE, output: the three of q, k and v are one


def test_layout_changes_only_around_the_op() -> None:
    module, example = block()
    fused = fuse(torchscript(module, example)).model
    counts = ops(fused)
    assert (counts["Conv"], counts["Transpose"], counts["Slice"]) == (3, 2, 1)
    assert not {"Reshape", "Split", "Einsum", "MatMul"} & counts.keys()


def test_lepe_is_folded_too() -> None:
    module, example = block(lepe=5)
    result = fuse(torchscript(module, example), fuse_lepe=True)

    assert [report.reason for report in result.lepe] == [None]
    (node,) = [node for node in result.model.graph.node if is_op(node)]
    assert Attributes.from_node(node).lepe_kernel == 5
    feeds = {"input": example.numpy()}
    with torch.no_grad():
        assert difference([module(example).numpy()], run(result.model, feeds)) <= 1e-5


@pytest.mark.parametrize("way", DIFFERENT_NCHW)
def test_near_misses_fuse_to_equal_numbers_or_not_at_all(way: str) -> None:
    module, example = block((8, 8), way=way)
    model = torchscript(module, example)
    result = fuse(model)
    feeds = {"input": example.numpy()}
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5
    # The scale is an attribute of the op, and what is done to the output or k alone is no part of the attention.
    same = way in ("head_scale", "scaled_value")
    assert [report.status for report in result.blocks] == ["fused" if same else "left"], result.blocks


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((9, 9), "height and width 5 x 5 regions do not divide"),
        ((8, 9), "20 regions is not a square number"),
        ((11, 10), "30 regions is not a square number"),
        ((8, 10), "20 regions is not a square number"),
    ],
)
def test_regions_cut_off_at_the_border_and_grids_that_are_not_square_are_left(
    size: tuple[int, int], reason: str
) -> None:
    """Means of cut-off regions are over fewer tokens than the op's, which counts the padding."""
    module, example = block(size)
    model = torchscript(module, example)
    result = fuse(model)
    (report,) = result.blocks
    assert report.status == "left"
    assert reason in str(report.reason)
    assert "Use an input size" in str(report.reason)
    assert result.model.SerializeToString() == model.SerializeToString()
