"""What an application has to know of a bundle: its task, its classes, and how an image becomes the network's input."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgeformer.records.base import Record
from edgeformer.records.terms import Layout, Task

__all__ = ["ApplicationRecord", "ImageRecord", "NormalizedImage", "PlainImage"]

Triple = tuple[float, float, float]


class _Image(Record):
    """The steps from an upright RGB image to the network's input, in their order: resize, crop, normalize, lay out.

    ``height`` and ``width`` are those of the input, in pixels. With ``crop_fraction`` 1.0 the image is resized straight
    to them; below 1.0 it is resized, its shape kept, to the smallest size that covers both over ``crop_fraction``, and
    the centre is cut out.
    """

    input: str = Field(description="name of the network's input; its type is in `inputs`")
    layout: Layout
    channels: Literal["RGB"]
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    resize_mode: Literal["bilinear", "bicubic"]
    crop_fraction: float = Field(gt=0, le=1)


class NormalizedImage(_Image):
    """An image that the application normalizes: ``(x / 255 - mean) / std`` for each channel."""

    normalization: Literal["mean_std"]
    mean: Triple = Field(description="of R, G and B, on the scale 0..1")
    std: Triple = Field(description="of R, G and B, on the scale 0..1")


class PlainImage(_Image):
    """An image that the application scales to 0..1 (``scale``: ``x / 255``), or gives as it is (``none``: 0..255)."""

    normalization: Literal["scale", "none"]


ImageRecord = Annotated[NormalizedImage | PlainImage, Field(discriminator="normalization")]


class ApplicationRecord(Record):
    """What a program that runs the bundle needs besides the names, types and shapes of inputs and outputs."""

    task: Task
    labels: tuple[str, ...] | None = Field(
        description="names of the classes in the order of their indices; null where they are not known"
    )
    image: ImageRecord | None = Field(description="null where the network's input is no image")

    @model_validator(mode="after")
    def _labels_are_names(self) -> ApplicationRecord:
        if self.labels is not None and not self.labels:
            raise ValueError("labels are an empty list: they are one name for each class, or null")
        return self
