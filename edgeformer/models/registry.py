"""The named models: configuration, input size, preprocessing. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from edgeformer.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edgeformer.errors import InputError
from edgeformer.models.config import CONFIG_FIELDS, BiFormerConfig
from edgeformer.text import shortened

__all__ = ["ModelInfo", "config_with", "list_models", "model_info"]


@dataclass(frozen=True)
class ModelInfo:
    """What is known about a named model without building it.

    Attributes:
        name: what ``create_model`` takes.
        description: one line for people.
        config: what it is built from.
        input_size: height and width in pixels that it is usually run at.
        num_classes: outputs of the head; 0 for a dense backbone.
        params_millions: parameters, in millions.
        preprocessing: how its images are prepared.
    """

    name: str
    description: str
    config: BiFormerConfig
    input_size: tuple[int, int]
    num_classes: int
    params_millions: float
    preprocessing: Preprocessing


_SMALL_DIMS = (64, 128, 256, 512)
_BASE_DIMS = (96, 192, 384, 768)
_STL_DEPTHS = (2, 2, 6, 2)

_TINY = BiFormerConfig(depths=(2, 2, 8, 2), dims=_SMALL_DIMS)
_SMALL = BiFormerConfig(depths=(4, 4, 18, 4), dims=_SMALL_DIMS)
_BASE = BiFormerConfig(depths=(4, 4, 18, 4), dims=_BASE_DIMS)
_STL = BiFormerConfig(depths=_STL_DEPTHS, dims=_BASE_DIMS, layout="stl", mlp_ratios=(4, 4, 4, 4), pos_embed_kernel=0)
_STL_NCHW = replace(_STL, layout="stl_nchw", topks=(1, 4, 16, -1))
_NANO = BiFormerConfig(depths=(1, 1, 2, 1), dims=(32, 64, 96, 128), num_classes=10)


def _backbone(config: BiFormerConfig, regions: int) -> BiFormerConfig:
    return replace(config, dense=True, auto_pad=True, num_classes=0, regions=(regions,) * len(config.depths))


_IMAGENET = Preprocessing(224, 224, IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875)
_DIGITS = Preprocessing(112, 112, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0)
_SEGMENTATION = Preprocessing(512, 512, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0)
_DETECTION = Preprocessing(800, 1344, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0)


def _info(
    name: str, description: str, config: BiFormerConfig, params_millions: float, preprocessing: Preprocessing
) -> ModelInfo:
    size = (preprocessing.height, preprocessing.width)
    return ModelInfo(name, description, config, size, config.num_classes, params_millions, preprocessing)


_MODELS = MappingProxyType(
    {
        info.name: info
        for info in (
            _info(
                "biformer_nano",
                "ten handwritten digits; a trained checkpoint ships with the code",
                _NANO,
                0.61,
                _DIGITS,
            ),
            _info("biformer_tiny", "BiFormer-T, ImageNet-1k", _TINY, 13.14, _IMAGENET),
            _info("biformer_small", "BiFormer-S, ImageNet-1k", _SMALL, 25.54, _IMAGENET),
            _info("biformer_base", "BiFormer-B, ImageNet-1k", _BASE, 56.80, _IMAGENET),
            _info("biformer_stl", "BiFormer in the layout of Swin-T, ImageNet-1k", _STL, 28.37, _IMAGENET),
            _info("biformer_stl_nchw", "the same in NCHW with 1x1 convolutions", _STL_NCHW, 28.37, _IMAGENET),
            _info(
                "biformer_small_segmentation",
                "BiFormer-S backbone for segmentation: 8x8 regions, any input size",
                _backbone(_SMALL, 8),
                25.02,
                _SEGMENTATION,
            ),
            _info(
                "biformer_base_segmentation",
                "BiFormer-B backbone for segmentation: 8x8 regions, any input size",
                _backbone(_BASE, 8),
                56.04,
                _SEGMENTATION,
            ),
            _info(
                "biformer_small_detection",
                "BiFormer-S backbone for detection: 16x16 regions, any input size",
                _backbone(_SMALL, 16),
                25.02,
                _DETECTION,
            ),
            _info(
                "biformer_base_detection",
                "BiFormer-B backbone for detection: 16x16 regions, any input size",
                _backbone(_BASE, 16),
                56.04,
                _DETECTION,
            ),
        )
    }
)


def list_models() -> tuple[str, ...]:
    """The names that :func:`model_info` and ``create_model`` take."""
    return tuple(_MODELS)


def model_info(name: str) -> ModelInfo:
    """What is known about a named model.

    Raises:
        InputError: no model has this name; the message lists all names.
    """
    info = _MODELS.get(name)
    if info is None:
        near = difflib.get_close_matches(name, _MODELS, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError("EF201", f"no model is called {shortened(name)!r}.{guess} Choose one of {', '.join(_MODELS)}")
    return info


def config_with(name: str, overrides: Mapping[str, object]) -> BiFormerConfig:
    """A named model's configuration with some fields replaced.

    Raises:
        InputError: no such model, no such field, or values that do not go together.
    """
    config = model_info(name).config
    unknown = sorted(overrides.keys() - set(CONFIG_FIELDS))
    if unknown:
        raise InputError(
            "EF201", f"no such override: {shortened(', '.join(unknown), 200)}. Choose from {', '.join(CONFIG_FIELDS)}"
        )
    return replace(config, **overrides)  # type: ignore[arg-type]  # the config checks every value itself
