"""The fuser on edgeformer's own models, as both exporters write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeformer.graph.fuse import fuse
from edgeformer.models import create_model
from tests.graph.blocks import dynamo, torchscript
from tests.graph.graphs import difference, images, ops, run

pytestmark = pytest.mark.whole

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (32, 64, 96, 128), "num_classes": 10}
# Name -> (model, what is different about it, image size, blocks).
MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, int], int]] = {
    "nano": ("biformer_nano", {}, (112, 112), 4),
    "stl": ("biformer_stl", SMALL, (224, 224), 3),
    "channels first": ("biformer_stl_nchw", SMALL, (224, 224), 3),
    "padded": ("biformer_nano", {"auto_pad": True, "regions": 8}, (100, 140), 4),
    "all stages": ("biformer_nano", {"topks": (2, 5, 48, 1), "qk_dims": (64, 32, 192, 64)}, (224, 224), 5),
    "few regions": ("biformer_nano", {"regions": (4, 2, 7, 1), "topks": (2, 1, 3, 1), "qk_scale": 0.3}, (224, 224), 5),
    "all regions": ("biformer_nano", {"topks": (-1, 0, 49, -2)}, (112, 112), 2),
    "no lepe, no projection": ("biformer_nano", {"lepe_kernel": 0, "output_projection": False}, (112, 112), 4),
    "post-norm": ("biformer_nano", {"pre_norm": False, "layer_scale": 0.1, "mlp_dwconv": True}, (112, 112), 4),
    "many heads": ("biformer_nano", {"head_dim": 8}, (112, 112), 4),
}


def build(name: str) -> tuple[torch.nn.Module, torch.Tensor, int]:
    kind, changes, size, blocks = MODELS[name]
    torch.manual_seed(0)
    return create_model(kind, **changes), torch.randn(2, 3, *size), blocks


def assert_fused(
    model: onnx.ModelProto, size: tuple[int, ...], blocks: int, tolerance: float = 1e-5
) -> onnx.ModelProto:
    result = fuse(model)
    assert [report.reason for report in result.blocks] == [None] * blocks
    assert ops(result.model)["BiLevelRoutingAttention"] == blocks
    assert not {"TopK", "GatherElements", "GatherND"} & ops(result.model).keys()
    height, width = size
    feeds = images(model, batch=3, size=(height, width))
    assert difference(run(model, feeds), run(result.model, feeds)) <= tolerance
    return result.model


@pytest.mark.parametrize("name", ["nano", "channels first"])
def test_dynamo_export_with_an_open_batch(name: str) -> None:
    module, example, blocks = build(name)
    model = dynamo(module, example, dynamic={0: torch.export.Dim("batch")})
    assert_fused(model, tuple(example.shape[2:]), blocks)


@pytest.mark.parametrize("name", MODELS)
def test_torchscript_export_with_an_open_batch(name: str) -> None:
    module, example, blocks = build(name)
    model = torchscript(module, example, dynamic={0: "batch"}, fold=name != "nano")
    fused = assert_fused(model, tuple(example.shape[2:]), blocks)
    assert len(fused.graph.node) < len(model.graph.node) / 2


def test_torchscript_export_with_open_height_and_width() -> None:
    """Padding that depends on the image's size is computed as before, at sizes that no proof has seen, too."""
    module, example, blocks = build("padded")
    model = torchscript(module, example, dynamic={0: "batch", 2: "height", 3: "width"})
    fused = assert_fused(model, (100, 140), blocks)

    feeds = images(model, batch=1, size=(90, 230), seed=1)
    assert difference(run(model, feeds), run(fused, feeds)) <= 1e-5
    assert ops(fused)["Pad"] == 4


def test_one_image_fixed() -> None:
    module, example, blocks = build("nano")
    assert_fused(torchscript(module, example[:1]), (112, 112), blocks)


@pytest.mark.parametrize("name", ["nano", "channels first"])
def test_fp16_export(name: str) -> None:
    """The proof is run in FP32, so that rounding cannot blur it; what comes out is FP16 like the input."""
    module, example, blocks = build(name)
    model = torchscript(module.half(), example.half())
    # Two FP16 computations of one function: a few units in the last place (2 ** -11) of the greatest logit.
    fused = assert_fused(model, tuple(example.shape[2:]), blocks, tolerance=5e-3)
    onnx.checker.check_model(fused, full_check=True)
    floats = {tensor.data_type for tensor in fused.graph.initializer} - {onnx.TensorProto.INT64}
    assert floats == {onnx.TensorProto.FLOAT16}


def test_bf16_export() -> None:
    """ONNX Runtime has no BF16 kernels on the CPU: the proof does not need them."""
    module, example, blocks = build("nano")
    model = dynamo(module.bfloat16(), example.bfloat16(), opset=22)
    result = fuse(model)

    assert len(result.fused) == blocks
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [tensor for tensor in result.model.graph.initializer if tensor.data_type == onnx.TensorProto.BFLOAT16]
    assert len(weights) > 40
    assert all(tensor.raw_data == stored[tensor.name].raw_data for tensor in weights)


@pytest.mark.parametrize("blocked", [None, ["Softmax", "TopK", "ReduceMean", "LayerNormalization"]])
def test_converted_to_fp16_by_onnx_runtime(blocked: list[str] | None) -> None:
    """Its converter puts Casts around what it keeps in FP32, in the midst of the block."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    module, example, blocks = build("nano")
    model = convert_float_to_float16(dynamo(module, example), keep_io_types=True, op_block_list=blocked)
    assert "Cast" in ops(model)

    fused = assert_fused(model, (112, 112), blocks, tolerance=5e-3)

    values = onnx.shape_inference.infer_shapes(fused).graph.value_info
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    attention = [node for node in fused.graph.node if node.op_type == "BiLevelRoutingAttention"]
    assert {types[node.input[0]] for node in attention} == {onnx.TensorProto.FLOAT16}


def test_padding_after_the_projection_is_left_and_what_divides_is_fused() -> None:
    """The NCHW model pads qkv where the image does not divide, and leaves the padding out of the region means.

    At 256 x 256 its stages have 64, 32 and 16 tokens a side and regions of 64 // 7 = 9, 4 and 2: the first is padded to
    72, the others have 8 x 8 regions, though the model was built with 7 x 7.
    """
    torch.manual_seed(0)
    module = create_model("biformer_stl_nchw", **SMALL)
    model = torchscript(module, torch.randn(1, 3, 256, 256))

    result = fuse(model)

    assert [report.status for report in result.blocks] == ["left", "fused", "fused"]
    assert "differ" in str(result.blocks[0].reason)
    assert [report.attributes["regions"] for report in result.fused if report.attributes] == [8, 8]
    feeds = images(model)
    assert difference(run(model, feeds), run(result.model, feeds)) <= 1e-5


@pytest.mark.slow
def test_full_size_tiny() -> None:
    torch.manual_seed(0)
    model = torchscript(create_model("biformer_tiny"), torch.randn(1, 3, 224, 224))
    result = fuse(model, draws=1)

    assert len(result.fused) == 12
    assert len(result.model.graph.node) < len(model.graph.node) / 2
    feeds = images(model)
    expected, got = run(model, feeds), run(result.model, feeds)
    assert difference(expected, got) <= 1e-5
    assert np.isfinite(got[0]).all()
