"""LePE beside the attention: ways to write it that must fold into the op, and other functions that must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgeformer.graph.fuse import FuseResult, fuse
from edgeformer.graph.types import to_float_type
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op, with_function
from tests.graph.blocks import Block, dynamo, torchscript
from tests.graph.graphs import constants_as_nodes, difference, ops, renamed, run

DIM = 16


def depthwise(kernel: int = 5, **changes: object) -> nn.Conv2d:
    return nn.Conv2d(DIM, DIM, kernel, **{"padding": kernel // 2, "groups": DIM, **changes})  # type: ignore[arg-type]


class SeparateBias(nn.Module):
    """A convolution without a bias, and a bias added twice behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = depthwise(bias=False)
        self.bias = nn.Parameter(torch.randn(2, DIM, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        return y + self.bias[0] + self.bias[1]


class Doubled(nn.Module):
    """A convolution, and the values themselves: another function, though a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = depthwise()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        return y + x


# Name -> what the values go through, and the side of its kernel.
SAME: dict[str, tuple[nn.Module, int]] = {
    "usual": (depthwise(), 5),
    "3 x 3": (depthwise(3), 3),
    "7 x 7": (depthwise(7), 7),
    "1 x 1": (depthwise(1), 1),
    "no bias": (depthwise(bias=False), 5),
    "bias apart": (SeparateBias(), 5),
    "padding apart": (nn.Sequential(nn.ZeroPad2d(2), depthwise(padding=0)), 5),
}
# Name -> what the values go through, and a word that the reason must contain.
DIFFERENT: dict[str, tuple[nn.Module, str]] = {
    "dilated": (depthwise(3, dilation=2, padding=2), "is not a depthwise convolution"),
    "even": (nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), depthwise(2, padding=0)), "is not a depthwise convolution"),
    "too large": (depthwise(9), "is not a depthwise convolution with an odd kernel of at most 7 x 7"),
    "oblong": (nn.Conv2d(DIM, DIM, (3, 5), padding=(1, 2), groups=DIM), "is not a depthwise convolution"),
    "not depthwise": (nn.Conv2d(DIM, DIM, 5, padding=2, groups=2), "is not a depthwise convolution"),
    "shifted": (nn.Sequential(nn.ZeroPad2d((3, 1, 2, 2)), depthwise(padding=0)), "differ"),
    "reflecting": (nn.Sequential(nn.ReflectionPad2d(2), depthwise(padding=0)), "differ"),
    "bent": (nn.Sequential(depthwise(), nn.ReLU()), "Relu"),
    "twice": (nn.Sequential(depthwise(), depthwise()), "2 convolutions"),
    "padded with ones": (nn.Sequential(nn.ConstantPad2d(2, 1.0), depthwise(padding=0)), "at every token"),
    "doubled": (Doubled(), "Add"),
}


def block(lepe: nn.Module, **parts: Any) -> tuple[Block, Tensor]:
    torch.manual_seed(7)
    module = Block(**parts)
    module.lepe = lepe  # type: ignore[assignment]
    return module, torch.randn(2, 8, 8, DIM)


def export(lepe: nn.Module, **parts: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    module, example = block(lepe, **parts)
    return torchscript(module, example, dynamic={0: "batch"}), {"input": example.numpy()}


def assert_folded(model: onnx.ModelProto, feeds: dict[str, np.ndarray], kernel: int) -> FuseResult:
    result = fuse(model, fuse_lepe=True)
    (report,) = result.lepe
    assert (report.status, report.reason, report.draws) == ("fused", None, 3)
    assert report.proof_error is not None
    assert report.proof_error <= 1e-5
    (node,) = (node for node in result.model.graph.node if is_op(node))
    attributes = Attributes.from_node(node)
    assert (attributes.lepe_kernel, attributes.dim) == (kernel, DIM)
    assert not {"Conv", "Slice", "Split", "Pad"} & ops(result.model).keys()
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5
    return result


@pytest.mark.parametrize("way", SAME)
def test_every_way_to_write_it_folds(way: str) -> None:
    lepe, kernel = SAME[way]
    result = assert_folded(*export(lepe), kernel)
    assert [found.status for found in result.blocks] == ["fused"]
    assert (result.blocks[0].attributes or {})["lepe_kernel"] == kernel


@pytest.mark.parametrize("linear", ["image", "matrix"])
def test_it_folds_wherever_the_values_come_from(linear: str) -> None:
    assert_folded(*export(depthwise(), linear=linear), 5)


def test_dynamo_exports_fold() -> None:
    module, example = block(depthwise())
    model = dynamo(module, example, dynamic={0: torch.export.Dim("batch")})
    assert_folded(model, {"input": example.numpy()}, 5)


@pytest.mark.parametrize("change", [renamed, constants_as_nodes])
def test_neither_names_nor_the_place_of_constants_matter(change: object) -> None:
    model, feeds = export(depthwise())
    changed = change(model)  # type: ignore[operator]
    feeds = {changed.graph.input[0].name: feeds["input"]}
    assert_folded(changed, feeds, 5)


@pytest.mark.parametrize("way", DIFFERENT)
def test_other_functions_stay(way: str) -> None:
    lepe, word = DIFFERENT[way]
    model, feeds = export(lepe)
    result = fuse(model, fuse_lepe=True)
    assert [found.status for found in result.blocks] == ["fused"]
    (report,) = result.lepe
    assert report.status == "left"
    assert word in (report.reason or "")
    (node,) = (node for node in result.model.graph.node if is_op(node))
    assert not Attributes.from_node(node).lepe
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5


def test_a_block_without_lepe_says_so() -> None:
    torch.manual_seed(7)
    model = torchscript(Block(lepe="none"), torch.randn(2, 8, 8, DIM), dynamic={0: "batch"})
    (report,) = fuse(model, fuse_lepe=True).lepe
    assert report.status == "left"
    assert "no LePE is added to" in (report.reason or "")


def test_it_stays_outside_unless_asked_for() -> None:
    model, _ = export(depthwise())
    result = fuse(model)
    assert result.lepe == ()
    assert ops(result.model)["Conv"] == 1


def test_a_graph_that_is_fused_already_is_folded_later() -> None:
    model, feeds = export(depthwise())
    fused = fuse(model).model
    result = fuse(fused, fuse_lepe=True)
    assert result.blocks == ()
    assert [report.status for report in result.lepe] == ["fused"]
    assert result.whole_graph_error is not None
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5
    again = fuse(result.model, fuse_lepe=True)
    assert again.lepe == ()
    assert again.model == result.model


class Two(nn.Module):
    """Two blocks; the second one's LePE is of a kind that does not fold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()
        self.second.lepe = depthwise(9)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


def test_all_fold_or_none() -> None:
    torch.manual_seed(0)
    example = torch.randn(2, 8, 8, DIM)
    model = torchscript(Two(), example, dynamic={0: "batch"})
    result = fuse(model, fuse_lepe=True)
    assert [report.status for report in result.blocks] == ["fused", "fused"]
    first, second = result.lepe
    assert (first.status, second.status) == ("left", "left")
    assert f"into all op nodes of a graph or none, and {second.op} has none that could" in (first.reason or "")
    assert first.proof_error is not None  # it was proven, and says so
    assert ops(result.model)["Conv"] == 2


def test_values_that_others_read_too_stay_in_the_graph() -> None:
    model, feeds = export(depthwise(), linear="image")
    fused = fuse(model).model
    (convolution,) = (node for node in fused.graph.node if node.op_type == "Conv")
    values = convolution.input[0]
    fused.graph.output.append(helper.make_tensor_value_info(values, TensorProto.FLOAT, ["batch", DIM, 8, 8]))
    folded = fuse(fused, fuse_lepe=True)
    assert [report.status for report in folded.lepe] == ["fused"]
    assert difference(run(fused, feeds), run(folded.model, feeds)) <= 1e-5


def test_an_attention_that_others_read_too_is_left() -> None:
    model, _ = export(depthwise())
    fused = fuse(model).model
    (node,) = (node for node in fused.graph.node if is_op(node))
    fused.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, ["batch", 8, 8, DIM]))
    (report,) = fuse(fused, fuse_lepe=True).lepe
    assert "is used by more than one sum" in (report.reason or "")


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_weights_take_the_graphs_type(kind: str) -> None:
    model, _ = export(depthwise())
    typed = to_float_type(fuse(model).model, kind)  # type: ignore[arg-type]
    result = fuse(typed, fuse_lepe=True)
    assert [report.status for report in result.lepe] == ["fused"]
    low = TensorProto.FLOAT16 if kind == "float16" else TensorProto.BFLOAT16
    (node,) = (node for node in result.model.graph.node if is_op(node))
    kinds = {tensor.name: tensor.data_type for tensor in result.model.graph.initializer}
    assert [kinds[name] for name in node.input[1:]] == [low, low]


def test_folded_graphs_take_types() -> None:
    model, feeds = export(depthwise())
    folded = fuse(model, fuse_lepe=True).model
    half = to_float_type(folded, "float16")
    onnx.checker.check_model(half, full_check=True)
    assert difference(run(folded, feeds), run(half, feeds)) <= 1e-2


@pytest.mark.parametrize(
    ("kind", "declared", "expected"),
    [
        ("float16", TensorProto.FLOAT, TensorProto.FLOAT16),
        ("bfloat16", TensorProto.FLOAT16, TensorProto.FLOAT16),
        ("bfloat16", TensorProto.FLOAT, TensorProto.FLOAT),
    ],
)
def test_lepe_of_an_int8_node_is_of_its_output_type(kind: str, declared: int, expected: int) -> None:
    attributes = Attributes(
        2, 2, 1, 8, 0.5, q_scale=0.125, k_scale=0.125, v_scale=0.125, output_type=declared, lepe_kernel=3, dim=8
    )
    low = helper.tensor_dtype_to_np_dtype(declared)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        attributes.make_node("q", "o", "op", lepe_weight="w", lepe_bias="b"),
        helper.make_node("Cast", ["o"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {
        "scale": np.float32(0.125),
        "zero": np.int8(0),
        "w": np.ones((3, 3, 8), low),
        "b": np.ones(8, low),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    typed = to_float_type(model, kind)  # type: ignore[arg-type]
    onnx.checker.check_model(typed, full_check=True)
    (node,) = (node for node in typed.graph.node if is_op(node))
    kinds = {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    assert [kinds[name] for name in node.input[1:]] == [expected, expected]
    assert Attributes.from_node(node).output_type == expected
