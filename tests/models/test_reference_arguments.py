"""The reference's constructor arguments give the reference's model, or one message that says what cannot be had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgeformer.models import from_reference, load_checkpoint
from edgeformer.models.reference_arguments import REFERENCE_KINDS, config_from_reference
from tests.models.conftest import REFERENCE_NAMES, ReferenceModel
from tests.raising import raises

SMALL: dict[str, Any] = {
    "depth": [1, 1, 1, 1],
    "embed_dim": [32, 64, 96, 128],
    "topks": [1, 4, 16, -2],
    "qk_dims": [32, 64, 96, 128],
    "head_dim": 32,
    "kv_downsample_mode": "identity",
    "mlp_ratios": [3, 3, 3, 3],
}


def test_all_three_recordings_are_there() -> None:
    assert REFERENCE_NAMES == ("biformer_backbone_pad_200x264", "biformer_cls_224", "biformer_stl_224")


def test_recorded_outputs_are_met(reference: ReferenceModel) -> None:
    model = from_reference(reference.kind, **reference.arguments)
    load_checkpoint(model, reference.weights)
    with torch.no_grad():
        result = model(torch.from_numpy(reference.input))
    outputs = result if isinstance(result, tuple) else (result,)
    assert len(outputs) == len(reference.outputs)
    for ours, recorded in zip(outputs, reference.outputs, strict=True):
        assert ours.shape == recorded.shape
        # FP32 sums in another order: 3e-6 was measured for outputs of up to 6.8; one flipped region gives above 1e-3.
        assert np.abs(ours.numpy() - recorded).max() < 1e-5


def test_every_kind_is_known() -> None:
    assert REFERENCE_KINDS == ("BiFormer", "BiFormer_mm", "BiFormerSTL", "nchwBiFormerSTL")


def test_biformer_arguments_become_fields() -> None:
    config = config_from_reference(
        "BiFormer",
        SMALL
        | {
            "n_win": 8,
            "num_classes": 5,
            "in_chans": 1,
            "qk_scale": 0.5,
            "auto_pad": True,
            "side_dwconv": 3,
            "before_attn_dwconv": 0,
            "layer_scale_init_value": 1e-4,
            "mlp_dwconv": True,
            "pre_norm": False,
            "param_attention": "qkv",
            "qk_dims": [32, 32, None, 128],
        },
    )
    assert config.depths == (1, 1, 1, 1)
    assert config.regions == (8, 8, 8, 8)
    assert config.query_dims == (32, 32, 96, 128)
    assert config.routing_heads == (1, 1, 3, 4)
    assert (config.num_classes, config.in_channels, config.qk_scale, config.auto_pad) == (5, 1, 0.5, True)
    assert (config.lepe_kernel, config.pos_embed_kernel, config.layer_scale) == (3, 0, 1e-4)
    assert (config.mlp_dwconv, config.pre_norm, config.output_projection) == (True, False, False)
    assert (config.layout, config.dense) == ("biformer", False)


def test_defaults_are_the_references() -> None:
    stl = config_from_reference("BiFormerSTL", {})
    assert (stl.depths, stl.dims, stl.norm, stl.head_norm) == ((2, 2, 6, 2), (96, 192, 384, 768), "layer", None)
    with raises("EF203", "kv_downsample_mode is 'ada_avgpool'"):
        config_from_reference("BiFormer", {"qk_dims": [64, 128, 320, 512]})


def test_backbone_drops_the_head_and_training_arguments_have_no_effect() -> None:
    plain = config_from_reference("BiFormer_mm", SMALL)
    trained = config_from_reference(
        "BiFormer_mm (as in a remark)",
        SMALL
        | {
            "drop_path_rate": 0.3,
            "drop_rate": 0.1,
            "use_checkpoint_stages": [0, 1],
            "norm_eval": True,
            "disable_bn_grad": False,
            "pretrained": None,
        },
    )
    assert plain.dense
    assert plain.num_classes == 0
    assert trained == plain


@pytest.mark.parametrize("norm", ["BatchNorm2d", "torch.nn.BatchNorm2d", torch.nn.BatchNorm2d])
def test_a_norm_is_a_class_or_its_name(norm: object) -> None:
    config = config_from_reference("nchwBiFormerSTL", {"topks": [1, 4, 16, -1], "norm_layer": norm})
    assert (config.layout, config.norm, config.head_norm) == ("stl_nchw", "batch", None)


def test_the_head_may_have_a_norm_of_its_own() -> None:
    config = config_from_reference(
        "BiFormerSTL", {"norm_layer": "BatchNorm2d", "pre_head_norm_layer": "LayerNorm2d", "n_wins": 7, "qk_scale": 3.0}
    )
    assert (config.norm, config.head_norm, config.regions) == ("batch", "layer", (7, 7, 7, 7))
    # The reference's STL takes qk_scale and drops it; so the output must not depend on it here either.
    assert config.qk_scale is None


def test_modes_that_pool_nothing_are_identity() -> None:
    for mode in ("avgpool", "maxpool"):
        config = config_from_reference(
            "BiFormer", SMALL | {"kv_downsample_mode": mode, "kv_downsample_ratios": [1, 1, 1, 4]}
        )
        assert config == config_from_reference("BiFormer", SMALL)


def test_a_model_without_routing_may_have_any_routing_argument() -> None:
    config = config_from_reference(
        "BiFormer", SMALL | {"topks": [0, 0, -1, -2], "kv_downsample_mode": "ada_avgpool", "soft_routing": True}
    )
    assert config.topks == (0, 0, -1, -2)


@pytest.mark.parametrize(
    ("argument", "value", "accepted"),
    [
        ("kv_downsample_mode", "ada_maxpool", "'identity'"),
        ("kv_downsample_mode", "avgpool", "'identity'"),
        ("soft_routing", True, "False"),
        ("diff_routing", True, "False"),
        ("param_routing", True, "False"),
        ("pe", "sum", "None"),
        ("representation_size", 64, "None"),
        ("param_attention", "none", "'qkvo' or 'qkv'"),
        ("window", 7, "the reference's BiFormer"),
    ],
)
def test_what_has_no_counterpart_is_named(argument: str, value: object, accepted: str) -> None:
    with raises("EF203", f"{argument} is", accepted, ".onnx"):
        config_from_reference("BiFormer", SMALL | {argument: value})


def test_all_problems_come_in_one_message() -> None:
    with raises("EF203", "pretrained is 'a.pth'", "soft_routing is True", "pe is 'sum'"):
        config_from_reference("BiFormer_mm", SMALL | {"pretrained": "a.pth", "soft_routing": True, "pe": "sum"})
    with raises("EF203", "norm_layer is 'GroupNorm'", "BatchNorm2d or LayerNorm2d"):
        config_from_reference("BiFormerSTL", {"norm_layer": "GroupNorm"})


def test_values_that_the_configuration_refuses() -> None:
    with raises("EF202", "depths is (1, 1)", "4 integers"):
        config_from_reference("BiFormer", SMALL | {"depth": [1, 1]})
    with raises("EF202", "topk is -2", "layout 'stl_nchw'"):
        config_from_reference("nchwBiFormerSTL", {})
    with raises("EF201", "'MaxViT'", "BiFormer, BiFormer_mm, BiFormerSTL, nchwBiFormerSTL"):
        from_reference("MaxViT")
