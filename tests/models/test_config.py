"""A configuration is right as a whole or refused as a whole; input sizes are judged before a model runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgeformer.models import BiFormerConfig
from tests.raising import raises

DEPTHS, DIMS = (1, 1, 1, 1), (32, 64, 96, 128)
STL: dict[str, Any] = {"layout": "stl", "pos_embed_kernel": 0}


def test_lists_and_single_numbers_become_tuples() -> None:
    config = BiFormerConfig(depths=[1, 2, 3, 4], dims=[32, 64, 96, 128], regions=8, mlp_ratios=4, topks=2)  # type: ignore[arg-type]  # what users pass
    assert config.depths == (1, 2, 3, 4)
    assert config.regions == (8, 8, 8, 8)
    assert config.mlp_ratios == (4, 4, 4, 4)
    assert config.topks == (2, 2, 2, 2)
    assert config.query_dims == DIMS
    assert config.routing_heads == (1, 2, 3, 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dense = True  # type: ignore[misc]  # that is the test


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"depths": (1, 1, 1)}, ("depths is (1, 1, 1)", "4 integers")),
        ({"depths": (1, 0, 1, 1)}, ("depths is (1, 0, 1, 1)", "at least 1")),
        ({"dims": (32, 64, 96.0, 128)}, ("dims is (32, 64, 96.0, 128)", "4 integers")),
        ({"dims": (33, 64, 96, 128), "head_dim": 33, "topks": (1, -2, -2, -2)}, ("dims[0] is 33", "even")),
        ({"mlp_ratios": ("3",) * 4}, ("mlp_ratios is ('3', '3', '3', '3')", "4 numbers")),
        ({"mlp_ratios": (3, 3, 3, 0)}, ("mlp_ratios (3, 3, 3, 0)", "above 0")),
        ({"num_classes": -1}, ("num_classes -1", "at least 0")),
        ({"num_classes": "10"}, ("num_classes is '10'", "integer")),
        ({"auto_pad": 1}, ("auto_pad is 1", "True or False")),
        ({"qk_scale": 0.0}, ("qk_scale is 0.0", "above 0")),
        ({"qk_scale": "1"}, ("qk_scale is '1'", "None")),
        ({"layer_scale": "1"}, ("layer_scale is '1'", "number")),
        ({"lepe_kernel": 4}, ("lepe_kernel is 4", "0 (none)", "odd")),
        ({"pos_embed_kernel": 5}, ("pos_embed_kernel is 5", "0 (none)", "3")),
        ({"topks": (1, 50, 16, -2)}, ("stage 2", "topk is 50", "7 x 7", 49)),
        ({"topks": (1, 4, 16, -3)}, ("stage 4", "topk is -3")),
        ({"head_dim": 48}, ("stage 1", "32 query channels", "num_heads = 32 // 48 = 0")),
        ({"qk_dims": (32, 160, 96, 128)}, ("stage 2", "160 query channels and 64 channels")),
        ({"dims": (32, 64, 96, 132)}, ("stage 4", "132 channels", "8 heads")),
        ({"layout": "swin"}, ("layout is 'swin'", "'biformer', 'stl', 'stl_nchw'")),
        ({"norm": "layer"}, ("norm", "layout 'biformer'", "BatchNorm")),
        (STL | {"dense": True}, ("dense is True", "layout 'stl'", "False")),
        (STL | {"auto_pad": True}, ("auto_pad is True", "layout 'stl'", "False")),
        (STL | {"layer_scale": 0.1}, ("layer_scale is 0.1", "layout 'stl'")),
        ({"layout": "stl"}, ("pos_embed_kernel is 3", "layout 'stl'", "only 0")),
        (STL | {"layout": "stl_nchw"}, ("stage 4", "topk is -2", "layout 'stl_nchw'", "positive number or -1")),
    ],
)
def test_wrong_values_are_named(fields: dict[str, Any], values: tuple[object, ...]) -> None:
    with raises("EF202", *values):
        BiFormerConfig(**{"depths": DEPTHS, "dims": DIMS} | fields)


def test_query_channels_may_differ_from_channels() -> None:
    config = BiFormerConfig(depths=DEPTHS, dims=DIMS, qk_dims=(32, 64, 64, 128))
    assert config.routing_heads == (1, 2, 2, 4)


def test_all_wrong_values_are_in_one_message() -> None:
    with raises("EF202") as caught:
        BiFormerConfig(depths=DEPTHS, dims=DIMS, topks=(99, 99, 16, -7), pos_embed_kernel=4)
    assert str(caught.value).count("\n  - ") == 4


@pytest.mark.parametrize(
    ("layout", "size", "expected"),
    [
        ({}, (224, 112), ((56, 28), (28, 14), (14, 7), (7, 4))),
        ({}, (1, 225), ((1, 57), (1, 29), (1, 15), (1, 8))),
        (STL, (224, 255), ((56, 63), (28, 31), (14, 15), (7, 7))),
    ],
)
def test_stage_sizes(layout: dict[str, Any], size: tuple[int, int], expected: tuple[tuple[int, int], ...]) -> None:
    assert BiFormerConfig(depths=DEPTHS, dims=DIMS, **layout).stage_sizes(*size) == expected


def test_sizes_that_regions_divide_are_taken() -> None:
    config = BiFormerConfig(depths=DEPTHS, dims=DIMS)
    for size in ((112, 112), (224, 336), (109, 109)):
        config.check_input_size(*size)
    # Convolutions round up: 109 pixels give the 28, 14 and 7 tokens of 112.
    assert config.stage_sizes(109, 109) == config.stage_sizes(112, 112)


def test_a_size_that_does_not_fit_is_refused_with_sizes_that_do() -> None:
    config = BiFormerConfig(depths=DEPTHS, dims=DIMS)
    with raises(
        "EF204", "226x224", "height 226", "stage 1", "57 tokens", "7 regions", "224 or 333", "auto_pad=True"
    ) as caught:
        config.check_input_size(226, 224)
    assert "width" not in str(caught.value)
    for size in (224, 333):
        config.check_input_size(size, 224)


@pytest.mark.parametrize("wanted", [0, 5])
def test_where_nothing_smaller_works_only_the_larger_is_offered(wanted: int) -> None:
    with raises("EF204", f"width {wanted}", "use 109;") as caught:
        BiFormerConfig(depths=DEPTHS, dims=DIMS).check_input_size(112, wanted)
    assert "height" not in str(caught.value).partition("input:")[2]


def test_auto_pad_takes_any_size() -> None:
    config = BiFormerConfig(depths=DEPTHS, dims=DIMS, auto_pad=True)
    for size in (1, 37, 226):
        config.check_input_size(size, size)
    with raises("EF204", "height 0", "stage 1"):
        config.check_input_size(0, 32)


def test_stl_layouts() -> None:
    stl = BiFormerConfig(depths=DEPTHS, dims=DIMS, **STL)
    stl.check_input_size(227, 224)  # patches round down
    with raises("EF204", "227 or 336") as caught:
        stl.check_input_size(228, 224)
    assert "auto_pad" not in str(caught.value)  # the layout has none
    nchw = BiFormerConfig(depths=DEPTHS, dims=DIMS, topks=(1, 4, 16, -1), layout="stl_nchw", pos_embed_kernel=0)
    nchw.check_input_size(228, 112)
    with raises("EF204", "stage 3", "6 tokens", "7 regions", "use 112") as caught:
        nchw.check_input_size(111, 224)
    assert "auto_pad" not in str(caught.value)
