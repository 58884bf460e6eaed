"""The one way in: whatever the user calls their data becomes :class:`Samples`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.data.array_input import ArrayInput, Preparation, sample_rank
from edgeformer.data.arrays import ArrayFile, ArrayStream, Spool
from edgeformer.data.class_names import Classes
from edgeformer.data.image_folder import ImageFolder
from edgeformer.data.samples import Samples
from edgeformer.errors import InputError

__all__ = ["Source", "open_samples"]

Source = str | os.PathLike[str] | Iterable[Any] | Callable[[], Iterable[Any]]
"""A path, arrays, or a function that returns a fresh iterable of arrays."""


def open_samples(
    source: Source,
    preprocessing: Preparation,
    *,
    limit: int | None = None,
    labels: bool = True,
    classes: Classes | None = None,
) -> Samples:
    """Open a data source.

    Args:
        source: one of

            * an image folder: sub-folders are classes (their names are class indices, or labels of ``classes``, or
              their place among the sorted names is the index: torchvision's convention), or a flat folder without
              labels. With labels the classes take turns, so that ``limit`` keeps all of them. ``images/``, ``train/``
              and the like are no classes: what is below them has no labels.
            * a ``.npy`` file, or a ``.npz`` with the array ``images`` (or a single one of any name) and, if labelled,
              ``labels`` (class indices, ``[N]``);
            * an iterable of arrays, or a function that returns one anew for each pass. An item is one sample, a batch
              of samples, or a pair of these and class indices. A one-shot iterator is read at once, up to ``limit``,
              into a temporary file (an endless one needs ``limit``).

            Float arrays ``[N, 3, height, width]`` are taken as preprocessed. Arrays of uint8, ``[N, h, w, 3]`` (also 1
            or 4 channels, or ``[N, h, w]``), are images and are preprocessed.
        preprocessing: what prepares images; for a model that takes none, the shape of its arrays.
        limit: use no more than the first ``limit`` samples.
        labels: whether labels are wanted. Without, the folders of an image folder mean nothing.
        classes: of the model that the labels are for; default: as many as there are class folders.

    Raises:
        InputError: the source does not exist, is empty, cannot be read, or is none of these. What shows only when the
            samples are read (a damaged image in the middle) is raised by ``batches``, with the file's name.
        EnvironmentFault: there is no room for the temporary file.
    """
    if limit is not None and limit < 1:
        raise InputError("EF401", f"the limit is {limit} samples; it must be at least 1")
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source), preprocessing, limit, labels, classes)
    if callable(source):
        return ArrayStream(source, f"the arrays of {getattr(source, '__name__', 'a function')}", preprocessing, limit)
    if isinstance(source, np.ndarray):
        source = [source]
    if isinstance(source, Iterator):
        return ArrayStream(Spool(source, limit, sample_rank(preprocessing)), "the arrays given", preprocessing, limit)
    if isinstance(source, Iterable):
        items = source
        return ArrayStream(lambda: items, "the arrays given", preprocessing, limit)
    raise InputError(
        "EF402", f"{source!r} is not a data source: give an image folder, a .npy or .npz file, or an iterable of arrays"
    )


def _open_path(
    path: Path, preprocessing: Preparation, limit: int | None, labels: bool, classes: Classes | None
) -> Samples:
    try:
        if path.is_dir():
            if isinstance(preprocessing, ArrayInput):
                raise InputError(
                    "EF841",
                    f"{path} is a folder, and the model's input is no image: give arrays of floats "
                    f"{['N', *preprocessing.shape]}, an .npy or .npz file",
                )
            return ImageFolder(path, preprocessing, limit, labels=labels, classes=classes)
        if not path.exists():
            raise InputError("EF102", f"no data at {path}: no such file or folder")
    except OSError as error:
        raise InputError("EF102", f"cannot read {path}: {error}") from error
    if path.suffix.lower() in (".npy", ".npz"):
        return ArrayFile(path, preprocessing, limit)
    raise InputError("EF402", f"{path} is not a data source: give an image folder, or a .npy or .npz file")
