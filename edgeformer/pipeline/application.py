"""What a bundle's manifest tells an application, made from what the build knows, and read back by `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeformer.bundle import ApplicationRecord, Manifest
from edgeformer.bundle.application import ImageRecord, NormalizedImage, PlainImage
from edgeformer.data import ArrayInput, Preparation, Preprocessing
from edgeformer.errors import InputError
from edgeformer.records.terms import Layout, Task
from edgeformer.runtime.session import channels_last

if TYPE_CHECKING:
    from edgeformer.runtime import TensorInfo

__all__ = ["describe_application", "preprocessing_of"]


def describe_application(
    preprocessing: Preparation,
    class_count: int | None,
    labels: tuple[str, ...] | None,
    inputs: Mapping[str, TensorInfo],
    outputs: Mapping[str, TensorInfo],
) -> ApplicationRecord:
    """What an application has to know.

    Args:
        preprocessing: how images become inputs, as far as it is done in front of the network.
        class_count: classes that the model tells apart; None where it is no classifier.
        labels: their names, if known.
        inputs: of the network that is built: one.
        outputs: of the same.
    """
    ((name, info),) = inputs.items()
    task = _task(class_count, outputs)
    if isinstance(preprocessing, ArrayInput):
        return ApplicationRecord(task=task, labels=labels, image=None)
    layout: Layout = "NHWC" if channels_last(info.shape) else "NCHW"
    return ApplicationRecord(task=task, labels=labels, image=_image(preprocessing, name, layout))


def preprocessing_of(manifest: Manifest) -> Preparation:
    """How images become inputs, as the manifest says; the shape of the input where that is no image.

    Raises:
        InputError: there is no such input: the manifest was changed.
    """
    image = manifest.application.image
    if image is None:
        sizes = [tensor.shape[1:] for tensor in manifest.inputs]
        if len(sizes) != 1 or not all(isinstance(size, int) for size in sizes[0]):
            raise InputError("EF702", f"the manifest lists the inputs {sizes} and no image: build the bundle again")
        return ArrayInput(tuple(int(size) for size in sizes[0]))
    prepared = Preprocessing(
        image.height, image.width, resize_mode=image.resize_mode, crop_fraction=float(image.crop_fraction)
    )
    if isinstance(image, NormalizedImage):
        return replace(prepared, mean=image.mean, std=image.std)
    return prepared.with_normalization(image.normalization)


def _task(class_count: int | None, outputs: Mapping[str, TensorInfo]) -> Task:
    """Classification where the one output is ``[batch, classes]`` of floats, which is what a head gives."""
    infos = list(outputs.values())
    head = len(infos) == 1 and len(infos[0].shape) == 2 and infos[0].shape[1] == class_count
    return "classification" if head and infos[0].dtype.kind == "f" else "features"


def _image(preprocessing: Preprocessing, name: str, layout: Layout) -> ImageRecord:
    common: dict[str, Any] = {
        "input": name,
        "layout": layout,
        "channels": "RGB",
        "height": preprocessing.height,
        "width": preprocessing.width,
        "resize_mode": preprocessing.resize_mode,
        "crop_fraction": preprocessing.crop_fraction,
    }
    normalization = preprocessing.normalization
    if normalization == "mean_std":
        return NormalizedImage(**common, normalization=normalization, mean=preprocessing.mean, std=preprocessing.std)
    return PlainImage(**common, normalization=normalization)
