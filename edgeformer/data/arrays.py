"""Arrays as samples: .npy and .npz files, read row by row, and arrays that Python code hands over."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.artifacts import temporary_folder
from edgeformer.data.array_files import ArrayReader, archive_names, open_array
from edgeformer.data.array_input import ArrayInput, Preparation, sample_rank
from edgeformer.data.preprocessing import MAX_PIXELS
from edgeformer.data.samples import Sample, Samples, class_indices
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.text import shortened

__all__ = ["ArrayFile", "ArrayStream", "Spool", "prepared"]

_ACCEPTED = (
    "accepted are float32 [N, 3, height, width], already preprocessed, and uint8 [N, height, width, 3] (or 1 or 4 "
    "channels, or [N, height, width]), which is preprocessed"
)


def prepared(sample: NDArray[Any], preprocessing: Preparation) -> NDArray[np.float32]:
    """Turn one array into an input.

    Args:
        sample: a float ``[3, height, width]`` that is already preprocessed, or an image to preprocess: uint8
            ``[h, w, 3]``, ``[h, w, 1]``, ``[h, w, 4]`` (alpha is dropped) or ``[h, w]``.
        preprocessing: how images are prepared; a float array must have its height and width. For a model that takes
            no images, the shape of all arrays.

    Returns:
        ``[3, height, width]`` float32, or of the shape of an input that is no image.

    Raises:
        InputError: another shape or type, or values that are not finite.
    """
    if isinstance(preprocessing, ArrayInput):
        return preprocessing(sample)
    if sample.dtype == np.uint8:
        if sample.ndim == 3 and sample.shape[2] == 1:
            sample = sample[:, :, 0]
        if (sample.ndim == 2 or (sample.ndim == 3 and sample.shape[2] in (3, 4))) and sample.size:
            return preprocessing(Image.fromarray(np.ascontiguousarray(sample)))
    elif np.issubdtype(sample.dtype, np.floating):
        if sample.shape == (3, preprocessing.height, preprocessing.width):
            with np.errstate(over="ignore"):  # what overflows is infinite below
                result = sample.astype(np.float32)
            if not np.isfinite(result).all():
                raise InputError("EF411", "an array holds NaN, infinity or a value beyond float32")
            return result
        raise InputError(
            "EF410",
            f"a float sample has shape {list(sample.shape)}; the model's input is "
            f"[3, {preprocessing.height}, {preprocessing.width}] ({_ACCEPTED})",
        )
    raise InputError("EF410", f"a sample has type {sample.dtype} and shape {list(sample.shape)}; {_ACCEPTED}")


class ArrayFile(Samples):
    """The rows of a ``.npy``, or of the array ``images`` (or the only one) of a ``.npz``, with its ``labels``."""

    def __init__(self, path: Path, preprocessing: Preparation, limit: int | None) -> None:
        self._path = path
        self._images = not isinstance(preprocessing, ArrayInput)
        self._member: str | None = None
        labels = None
        if path.suffix.lower() == ".npz":
            self._member, labels = self._find_arrays()
        with open_array(path, self._member) as reader:
            self._check(reader)
            total = reader.shape[0]
        if labels is not None and labels.shape != (total,):
            raise InputError(
                "EF412", f"{path}: labels have shape {list(labels.shape)} for {total} images; they must have [{total}]"
            )
        self._labels = labels
        super().__init__(
            str(path),
            preprocessing,
            class_names=None,
            labelled=labels is not None,
            count=total if limit is None else min(total, limit),
        )

    def _find_arrays(self) -> tuple[str, NDArray[np.int64] | None]:
        names = archive_names(self._path)
        others = [name for name in names if name != "labels"]
        if "images" not in others and len(others) != 1:
            raise InputError(
                "EF409",
                f"{self._path} holds the arrays {shortened(names, 300)}: call the one with the images 'images'",
            )
        labels = None
        if "labels" in names:
            with open_array(self._path, "labels") as reader:
                if reader.dtype.kind not in "iu" or len(reader.shape) != 1:
                    raise InputError(
                        "EF412",
                        f"{self._path}: labels are {reader.dtype} {list(reader.shape)}; they must be class indices: "
                        "[N], integers, 0 or above",
                    )
                labels = class_indices(reader.whole(), f"{self._path}: labels {reader.dtype} {list(reader.shape)}")
        return "images" if "images" in others else others[0], labels

    def _rows(self) -> Iterator[tuple[NDArray[Any], int | None]]:
        with open_array(self._path, self._member) as reader:
            self._check(reader)
            if reader.dtype != np.uint8:
                # Before a row is read, which might not fit into memory.
                try:
                    prepared(np.broadcast_to(np.zeros((), reader.dtype), reader.shape[1:]), self.preprocessing)
                except InputError as error:
                    raise InputError(error.code, f"{self.name}, sample 0: {error}") from error
            for index, row in enumerate(reader.rows(len(self))):
                self._check_same(index, _digest(row), f"{self.name}, sample {index},")
                yield row, None if self._labels is None else int(self._labels[index])

    def _check(self, reader: ArrayReader) -> None:
        """Refuse an array that cannot be samples, whatever its rows hold."""
        path, shape = self._path, reader.shape
        if not shape:
            raise InputError("EF410", f"{path} holds a single number; {_ACCEPTED}")
        if reader.fortran and len(shape) > 1:
            raise InputError("EF410", f"{path} is in Fortran order: save it through np.ascontiguousarray")
        if not self._images:
            self._check_count(shape[0])
            reader.check_whole()
            return
        if len(shape) not in ((3, 4) if reader.dtype == np.uint8 else (4,)) or 0 in shape[1:]:
            raise InputError("EF410", f"{path} holds {reader.dtype} {shortened(list(shape))}; {_ACCEPTED}")
        if reader.dtype == np.uint8 and shape[1] * shape[2] * (*shape, 1)[3] > 4 * MAX_PIXELS:
            raise InputError("EF406", f"{path} holds images {list(shape[1:])}, more than {MAX_PIXELS} pixels each")
        self._check_count(shape[0])
        reader.check_whole()

    def _check_count(self, count: int) -> None:
        if count == 0:
            raise InputError("EF403", f"{self._path} holds no samples")

    def samples(self) -> Iterator[Sample]:
        """Yield every row, preprocessed where it is uint8."""
        for index, (row, label) in enumerate(self._rows()):
            try:
                yield prepared(row, self.preprocessing), label
            except InputError as error:
                raise InputError(error.code, f"{self.name}, sample {index}: {error}") from error

    def content(self) -> Iterator[bytes]:
        """Yield every row's type, shape, label and bytes."""
        return _array_content(self._rows())


class ArrayStream(Samples):
    """Arrays from Python code: ``make`` is called for every pass, and what it returns is iterated.

    An item is one sample or a batch of them (one dimension more), or a pair of such an array and its label or labels.
    """

    def __init__(self, make: Callable[[], Iterable[Any]], name: str, preprocessing: Preparation, limit: int | None):
        self._make, self._limit = make, limit
        super().__init__(name, preprocessing, class_names=None, labelled=False, count=None)
        first = next(self._rows(), None)
        if first is None:
            raise InputError("EF403", f"{name} yields no arrays")
        self.labelled = first[1] is not None

    def _rows(self) -> Iterator[tuple[NDArray[Any], int | None]]:
        split = partial(_split, rank=sample_rank(self.preprocessing))
        rows = islice(chain.from_iterable(map(split, self._make())), self._limit)
        for index, (row, label) in enumerate(rows):
            self._check_same(index, _digest(row), f"{self.name}: sample {index}")
            yield row, label

    def samples(self) -> Iterator[Sample]:
        """Yield every sample, preprocessed where it is uint8."""
        for index, (row, label) in enumerate(self._rows()):
            if (label is not None) != self.labelled:
                first, this = ("a", "none") if self.labelled else ("no", "one")
                raise InputError(
                    "EF412",
                    f"{self.name}: sample 0 has {first} label and sample {index} has {this}: label all of them or none",
                )
            try:
                yield prepared(row, self.preprocessing), label
            except InputError as error:
                raise InputError(error.code, f"{self.name}, sample {index}: {error}") from error

    def content(self) -> Iterator[bytes]:
        """Yield every sample's type, shape, label and bytes."""
        return _array_content(self._rows())


class Spool:
    """What a one-shot iterator yields, kept in a temporary file; call it to iterate over the items again.

    Raises:
        EnvironmentFault: the disk is full or cannot be written.
    """

    def __init__(self, items: Iterator[Any], limit: int | None, rank: int = 3) -> None:
        self._count = 0
        folder = contextlib.ExitStack()
        weakref.finalize(self, folder.close)
        try:
            self._file = folder.enter_context(temporary_folder("samples")) / "samples"
            with self._file.open("wb") as file:
                for row, label in islice(chain.from_iterable(map(partial(_split, rank=rank), items)), limit):
                    np.save(file, row, allow_pickle=False)
                    np.save(file, np.int64(-1 if label is None else label), allow_pickle=False)
                    self._count += 1
        except OSError as error:
            raise EnvironmentFault(
                "EF602",
                f"cannot keep the iterator's samples in {tempfile.gettempdir()}: {error}; make room, set TMPDIR, "
                "or give a list, an .npy file or a function that returns a fresh iterator",
            ) from error

    def __call__(self) -> Iterator[Any]:
        """Yield the samples kept, as arrays or pairs of array and label."""
        with self._file.open("rb") as stream:
            for _ in range(self._count):
                row, label = (ArrayReader(stream, str(self._file), None).whole() for _ in range(2))
                yield row if label < 0 else (row, int(label))


def _digest(row: NDArray[Any]) -> bytes:
    return hashlib.sha256(f"{row.dtype.str}{row.shape}".encode() + row.tobytes()).digest()


def _array_content(rows: Iterator[tuple[NDArray[Any], int | None]]) -> Iterator[bytes]:
    for row, label in rows:
        yield f"{row.dtype.str}{row.shape}{label}".encode()
        yield row.tobytes()


def _split(item: object, rank: int) -> Iterator[tuple[NDArray[Any], int | None]]:
    """One item of a stream as samples: a sample, a batch, or a pair of one of those with its labels.

    Args:
        item: what was given.
        rank: axes of a sample; a batch has one more.
    """
    labels: NDArray[Any] | None = None
    array: Any = item
    if isinstance(item, tuple):
        if len(item) != 2:
            raise InputError("EF410", f"an item is a tuple of {len(item)}; it must be an array, or (array, labels)")
        array, labels = item[0], _as_array(item[1])
    array = _as_array(array)
    single = array.ndim <= rank
    rows = array[None] if single else array
    if labels is None:
        yield from ((row, None) for row in rows)
        return
    what = f"an item of {len(rows)} samples has labels {shortened(labels.dtype)} {list(labels.shape)}"
    if labels.size != len(rows) or labels.dtype.kind not in "iu":
        raise InputError("EF412", f"{what}; they must be class indices: integers, 0 or above, one per sample")
    yield from zip(rows, map(int, class_indices(labels.reshape(-1), what)), strict=True)


def _as_array(item: object) -> NDArray[Any]:
    try:
        return np.asarray(item)
    except (ValueError, OverflowError) as error:  # a ragged list
        raise InputError("EF410", f"an item cannot be made an array: {error}; {_ACCEPTED}") from error
