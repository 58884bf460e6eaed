"""Whole models: what each option does to the block, what goes in and out, and names of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgeformer.models import BiFormerConfig
from edgeformer.models.biformer import BiFormer, Block
from tests.raising import raises

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 40), "head_dim": 8, "num_classes": 5}


def _model(seed: int = 0, **fields: Any) -> BiFormer:
    torch.manual_seed(seed)
    return BiFormer(BiFormerConfig(**SMALL | fields)).eval()


def _image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_parameter_names_of_every_kind_of_block() -> None:
    model = _model(topks=(1, 0, -1, -2), mlp_dwconv=True, layer_scale=0.1)
    names = set(model.state_dict())
    expected = {
        "downsample_layers.0.0.weight",
        "downsample_layers.0.4.running_mean",
        "downsample_layers.3.1.num_batches_tracked",
        "stages.0.0.pos_embed.weight",
        "stages.0.0.gamma2",
        "stages.0.0.attn.qkv.qkv.bias",
        "stages.0.0.attn.wo.weight",
        "stages.0.0.attn.lepe.bias",
        "stages.0.0.mlp.1.dwconv.weight",
        "stages.0.0.mlp.3.bias",
        "stages.1.0.attn.1.weight",
        "stages.1.0.attn.2.weight",
        "stages.1.0.attn.3.bias",
        "stages.2.0.attn.qkv.weight",
        "stages.2.0.attn.proj.bias",
        "stages.3.0.attn.lepe.weight",
        "norm.running_var",
        "head.weight",
    }
    assert expected <= names
    assert "stages.2.0.attn.lepe.weight" not in names
    assert "stages.3.0.attn.qkv.bias" not in names


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_block_is_its_formula(pre_norm: bool) -> None:
    config = BiFormerConfig(**SMALL, pre_norm=pre_norm, layer_scale=0.3, mlp_dwconv=True, topks=(0, 0, 0, 0))
    torch.manual_seed(2)
    block: Any = Block(config, 0).eval()  # its modules are looked into; their types say nothing of what is inside
    with torch.no_grad():
        block.norm1.weight.uniform_(0.5, 1.5)
        block.norm2.bias.uniform_(-0.5, 0.5)
        x = _image(2, 16, 5, 7)
        result = block(x)

        y = x + functional.conv2d(x, block.pos_embed.weight, block.pos_embed.bias, padding=1, groups=16)
        y = y.permute(0, 2, 3, 1)

        def norm(layer: torch.nn.LayerNorm, z: torch.Tensor) -> torch.Tensor:
            deviation = (z.var(dim=-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
            return (z - z.mean(dim=-1, keepdim=True)) / deviation * layer.weight + layer.bias

        def attention(z: torch.Tensor) -> torch.Tensor:
            c1, c2, c3 = block.attn[1], block.attn[2], block.attn[3]
            z = functional.conv2d(z.permute(0, 3, 1, 2), c1.weight, c1.bias)
            z = functional.conv2d(z, c2.weight, c2.bias, padding=2, groups=16)
            return functional.conv2d(z, c3.weight, c3.bias).permute(0, 2, 3, 1)

        def mlp(z: torch.Tensor) -> torch.Tensor:
            first, conv, last = block.mlp[0], block.mlp[1].dwconv, block.mlp[3]
            z = (z @ first.weight.T + first.bias).permute(0, 3, 1, 2)
            z = functional.conv2d(z, conv.weight, conv.bias, padding=1, groups=48).permute(0, 2, 3, 1)
            result: torch.Tensor = functional.gelu(z) @ last.weight.T + last.bias
            return result

        if pre_norm:
            y = y + 0.3 * attention(norm(block.norm1, y))
            y = y + 0.3 * mlp(norm(block.norm2, y))
        else:
            y = norm(block.norm1, y + 0.3 * attention(y))
            y = norm(block.norm2, y + 0.3 * mlp(y))
    assert torch.allclose(result, y.permute(0, 3, 1, 2), atol=1e-5)


def test_without_positional_convolution() -> None:
    block: Any = _model(pos_embed_kernel=0).stages[0]
    assert block[0].pos_embed is None


def test_logits_do_not_depend_on_the_batch() -> None:
    """An image's logits are its own, whatever it shares the batch with: no state, no mixing."""
    model = _model()
    images = _image(3, 3, 112, 112)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
        assert together.shape == (3, 5)
        assert torch.allclose(together, alone, atol=1e-5)
        assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_zero_classes_give_pooled_features() -> None:
    with torch.no_grad():
        model = _model(num_classes=0)
        features = model(_image(2, 3, 112, 112))
    assert features.shape == (2, 40)
    assert "head.weight" not in model.state_dict()


@pytest.mark.parametrize("size", [(112, 112), (75, 101)])
def test_dense_outputs_are_four_normalized_maps(size: tuple[int, int]) -> None:
    model = _model(dense=True, auto_pad=True)
    with torch.no_grad():
        maps = model(_image(1, 3, *size))
    assert [tuple(m.shape) for m in maps] == [
        (1, dim, *stage) for dim, stage in zip((16, 24, 32, 40), model.config.stage_sizes(*size), strict=True)
    ]
    for feature in maps:
        # Fresh norms scale by 1 and shift by 0: over its channels every token has mean 0 and variance 1.
        assert torch.allclose(feature.mean(dim=1), torch.zeros(()), atol=1e-5)
        assert torch.allclose(feature.var(dim=1, unbiased=False), torch.ones(()), atol=1e-3)
    assert not any(name.startswith(("head", "norm")) for name in model.state_dict())


@pytest.mark.parametrize(
    ("layout", "topks", "size"),
    [
        ("stl", (1, 4, 16, -2), (112, 224)),
        ("stl_nchw", (1, 4, 16, -1), (112, 224)),
        ("stl_nchw", (1, 4, 9, -1), (117, 135)),
    ],
)
def test_stl_layouts_run(layout: str, topks: tuple[int, ...], size: tuple[int, int]) -> None:
    model = _model(layout=layout, topks=topks, pos_embed_kernel=0, norm="layer", head_norm="batch")
    with torch.no_grad():
        logits = model(_image(2, 3, *size))
    assert logits.shape == (2, 5)
    names = set(model.state_dict())
    attention = {"stl": "stages.0.blocks.0.attn.qkv.qkv.weight", "stl_nchw": "stages.0.blocks.0.attn.qkv_linear.weight"}
    assert {attention[layout], "norm.running_mean", "downsample_layers.1.1.weight"} <= names
    assert "downsample_layers.0.1.running_mean" not in names


def test_stl_nchw_equals_stl_where_both_compute_the_same() -> None:
    """With routing blocks only and a size that regions divide, the NCHW layout is the NHWC one in other clothes."""
    fields: dict[str, Any] = {"topks": (1, 4, 9, 2), "pos_embed_kernel": 0, "regions": (4, 4, 4, 2)}
    nhwc, nchw = _model(layout="stl", **fields), _model(layout="stl_nchw", **fields)
    renamed = {}
    for name, value in nhwc.state_dict().items():
        name = name.replace("attn.qkv.qkv", "attn.qkv_linear").replace("attn.wo", "attn.output_linear")
        is_linear = value.ndim == 2 and "head" not in name
        renamed[name] = value[:, :, None, None] if is_linear else value
    nchw.load_state_dict(renamed)
    x = _image(2, 3, 128, 64)
    with torch.no_grad():
        assert torch.allclose(nhwc(x), nchw(x), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((3, 112, 112), ("[3, 112, 112]", "[N, 3, height, width]")),
        ((1, 1, 112, 112), ("[1, 1, 112, 112]", "[N, 3, height, width]")),
        ((1, 3, 112, 120), ("112x120", "width 120")),
    ],
)
def test_inputs_that_do_not_fit(shape: tuple[int, ...], values: tuple[str, ...]) -> None:
    with raises("EF204", *values):
        _model()(torch.zeros(shape))


@pytest.mark.slow
def test_the_padded_nchw_layout_exports_with_a_dynamic_batch() -> None:
    """The layout that tests/export does not have; regions do not divide 128x160, so every routing block pads."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = _model(layout="stl_nchw", topks=(1, 4, 16, -1), pos_embed_kernel=0)
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 3, 128, 160),),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert program is not None
    types = [node.op_type for node in program.model_proto.graph.node]
    assert types.count("TopK") == types.count("GatherElements") == 3
    assert types.count("Softmax") == 4
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for batch in (1, 3):
        x = _image(batch, 3, 128, 160, seed=batch)
        with torch.no_grad():
            expected = model(x).numpy()
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        # Ten times below the gate of 1e-4 of the largest reference value; measured 5e-7.
        assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
