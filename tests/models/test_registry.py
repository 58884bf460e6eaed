"""Named models: what is known of them without torch, and that it is true of what is built."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from edgeformer.errors import EnvironmentFault
from edgeformer.models import create_model, list_models, model_info
from tests.raising import raises


def test_list_models() -> None:
    assert list_models() == (
        "biformer_nano",
        "biformer_tiny",
        "biformer_small",
        "biformer_base",
        "biformer_stl",
        "biformer_stl_nchw",
        "biformer_small_segmentation",
        "biformer_base_segmentation",
        "biformer_small_detection",
        "biformer_base_detection",
    )


def _parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in create_model(name).parameters())


@pytest.mark.parametrize("name", list_models())
def test_parameters_are_as_many_as_the_registry_says(name: str) -> None:
    assert _parameters(name) / 1e6 == pytest.approx(model_info(name).params_millions, abs=0.006)


@pytest.mark.parametrize(("name", "published"), [("tiny", 13.1), ("small", 25.5), ("base", 56.8)])
def test_parameters_are_as_published(name: str, published: float) -> None:
    assert _parameters(f"biformer_{name}") / 1e6 == pytest.approx(published, abs=0.1)


@pytest.mark.parametrize("name", list_models())
def test_the_usual_input_size_is_one_the_model_takes(name: str) -> None:
    info = model_info(name)
    info.config.check_input_size(*info.input_size)
    assert (info.preprocessing.height, info.preprocessing.width) == info.input_size
    assert info.num_classes == info.config.num_classes


def test_preprocessing() -> None:
    nano, tiny = model_info("biformer_nano").preprocessing, model_info("biformer_tiny").preprocessing
    assert (nano.height, nano.width, nano.resize_mode, nano.crop_fraction) == (112, 112, "bilinear", 1.0)
    assert (tiny.height, tiny.width, tiny.resize_mode, tiny.crop_fraction) == (224, 224, "bicubic", 0.875)
    assert nano.mean == tiny.mean == (0.485, 0.456, 0.406)
    assert nano.std == tiny.std == (0.229, 0.224, 0.225)


def test_nano_routes_four_blocks() -> None:
    config = model_info("biformer_nano").config
    routed = sum(depth for depth, topk in zip(config.depths, config.topks, strict=True) if topk > 0)
    assert routed == 4
    assert config.stage_sizes(112, 112)[2] == (7, 7)


def test_overrides_replace_fields() -> None:
    model = create_model("biformer_nano", num_classes=3, regions=8, auto_pad=True)
    assert model.config.regions == (8, 8, 8, 8)
    assert not model.training
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 40, 72)).shape == (2, 3)


def test_unknown_names_are_refused_with_a_guess() -> None:
    with raises("EF201", "'biformer_tny'", "'biformer_tiny'"):
        create_model("biformer_tny")
    with raises("EF201", "'resnet50'", "biformer_nano, biformer_tiny"):
        model_info("resnet50")
    with raises("EF201", "n_win, window", "depths, dims"):
        create_model("biformer_nano", window=3, n_win=7)
    with raises("EF202", "topk is 99"):
        create_model("biformer_nano", topks=(99, 1, 1, 1))


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails
from edgeformer.errors import EnvironmentFault
from edgeformer.models import create_model, list_models, load_checkpoint, model_info
assert model_info(list_models()[0]).params_millions == 0.61
for call in (lambda: create_model("biformer_nano"), lambda: load_checkpoint(None, "x.pth")):
    try:
        call()
    except EnvironmentFault as error:
        print(error.code, error)
"""


def test_without_torch_models_are_listed_but_not_built() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("EF601") and line.endswith("pip install 'edgeformer[export]'") for line in lines)
    assert EnvironmentFault.exit_code == 4
