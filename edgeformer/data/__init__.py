"""Images and arrays in, preprocessed batches out: streaming, in a fixed order, with a content hash."""

from __future__ import annotations

from edgeformer.data.array_input import ArrayInput, Preparation
from edgeformer.data.class_names import Classes, read_labels
from edgeformer.data.image_folder import class_folder_names
from edgeformer.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edgeformer.data.samples import Batch, Samples
from edgeformer.data.sources import Source, open_samples

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArrayInput",
    "Batch",
    "Classes",
    "Preparation",
    "Preprocessing",
    "Samples",
    "Source",
    "class_folder_names",
    "open_samples",
    "read_labels",
]
