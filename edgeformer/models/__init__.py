"""BiFormer in PyTorch: a registry of models, reference configurations, strict checkpoint loading.

Listing models and their figures needs no torch; it is imported when a model is built.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeformer.errors import EnvironmentFault
from edgeformer.models.config import BiFormerConfig
from edgeformer.models.reference_arguments import config_from_reference
from edgeformer.models.registry import ModelInfo, config_with, list_models, model_info

if TYPE_CHECKING:
    from torch import nn

    from edgeformer.models.biformer import BiFormer

__all__ = [
    "BiFormerConfig",
    "ModelInfo",
    "checkpoint_labels",
    "create_model",
    "from_reference",
    "list_models",
    "load_checkpoint",
    "model_info",
    "use_attention",
]


def create_model(name: str, *, attention: Literal["reference", "fused"] = "reference", **overrides: Any) -> BiFormer:
    """Build a named model with random weights, in evaluation mode.

    Args:
        name: one of :func:`list_models`.
        attention: what computes the routing attention: "reference", plain PyTorch that can be trained and exported, or
            "fused", the CUDA kernels of the plugin library, forward only (:func:`edgeformer.models.use_attention`
            changes it later).
        **overrides: fields of :class:`BiFormerConfig` to replace, such as ``num_classes=5`` or ``regions=8``.

    Raises:
        InputError: no such model, field or attention, or values that cannot work together.
        EnvironmentFault: torch is not installed, or "fused" was asked for and the plugin library is missing.
    """
    model = _build(config_with(name, overrides))
    use_attention(model, attention)
    return model


def use_attention(model: nn.Module, kind: Literal["reference", "fused"]) -> None:
    """Choose what computes the routing attention of every block of ``model``, as ``create_model(attention=...)`` does.

    Raises:
        InputError: there is no such kind.
        EnvironmentFault: torch is not installed, or ``kind`` is "fused" and the plugin library is missing or cannot be
            loaded.
    """
    _require_torch()
    from edgeformer.models import attention

    attention.use_attention(model, kind)


def from_reference(kind: str, **arguments: Any) -> BiFormer:
    """Build a model from the constructor arguments of the reference implementation, in evaluation mode.

    Args:
        kind: the reference's class: "BiFormer", "BiFormer_mm", "BiFormerSTL" or "nchwBiFormerSTL".
        **arguments: as its constructor takes them; defaults are the reference's.

    Raises:
        InputError: no such class, no such argument, or a value that edgeformer cannot express; one message lists them
            all.
        EnvironmentFault: torch is not installed.
    """
    return _build(config_from_reference(kind, arguments))


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, key: str | None = None) -> str | None:
    """Load a checkpoint into ``model``: every parameter, nothing left over, or an error and an unchanged model.

    Args:
        model: gets the weights.
        path: ``.safetensors``, or what ``torch.save`` writes (``.pth``, ``.pt``, ``.pth.tar``, ``.ckpt``, ``.bin``): a
            state dict, or a dict with one under a usual key such as ``model`` or ``state_dict``. Nothing but tensors
            and plain values is ever unpickled. What wrappers put before the names is taken off: ``module.``,
            ``_orig_mod.``, ``model.``, ``backbone.``, one after the other. Tensors beside such a prefix are left out,
            for a dense model (the heads of a segmentor or detector) in silence, else with a warning.
        key: which weights to take where the file holds several, such as ``model_ema``. Default: the raw ones, and a
            warning names the others.

    Returns:
        The key that the weights were under, or None where they were at the top of the file.

    Raises:
        InputError: the file is missing, damaged, not a checkpoint, or holds other objects; or keys are missing, too
            many, or of another shape or type: one message lists them all; or a weight is NaN or infinite.
        EnvironmentFault: torch or safetensors is not installed.
    """
    _require_torch()
    from edgeformer.models.checkpoint import load_into

    return load_into(model, path, key)


def checkpoint_labels(path: str | os.PathLike[str], count: int) -> tuple[str, ...] | None:
    """The names of the classes that a checkpoint keeps beside its weights, in the order of their indices.

    They are looked for under ``class_names``, ``classes``, ``id2label``, ``class_to_idx`` and the like, at the top or
    in ``meta``, ``hyper_parameters`` or ``config``; of a ``.safetensors`` file in the metadata, as JSON.

    Args:
        path: the checkpoint, as for `load_checkpoint`.
        count: classes of the model.

    Returns:
        None where it keeps none; what looks like them and is not gets a warning.

    Raises:
        InputError: there are names for another number of classes, or the file cannot be read.
        EnvironmentFault: safetensors, or for another file torch, is not installed.
    """
    if Path(path).suffix.lower() != ".safetensors":
        _require_torch()
    from edgeformer.models.checkpoint_classes import find_labels

    return find_labels(Path(path), count)


def _build(config: BiFormerConfig) -> BiFormer:
    _require_torch()
    from edgeformer.models.biformer import BiFormer

    return BiFormer(config).eval()


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault("EF601", "models need torch: pip install 'edgeformer[export]'") from error
