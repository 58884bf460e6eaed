"""Arrays as samples: .npy and .npz files, read row by row, and arrays that Python code hands over."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.data.preprocessing import Preprocessing
from edgeformer.data.samples import Sample, Samples
from edgeformer.errors import EnvironmentFault, InputError

__all__ = ["ArrayFile", "ArrayStream", "Spool", "prepared"]

_ACCEPTED = (
    "accepted are float32 [N, 3, height, width], already preprocessed, and uint8 [N, height, width, 3] (or 1 or 4 "
    "channels, or [N, height, width]), which is preprocessed"
)


def prepared(sample: NDArray[Any], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn one array into an input.

    Args:
        sample: a float ``[3, height, width]`` that is already preprocessed, or an image to preprocess: uint8
            ``[h, w, 3]``, ``[h, w, 1]``, ``[h, w, 4]`` (alpha is dropped) or ``[h, w]``.
        preprocessing: how images are prepared; a float array must have its height and width.

    Returns:
        ``[3, height, width]`` float32.

    Raises:
        InputError: another shape or type, or values that are not finite.
    """
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


class _RowReader:
    """The header of an array in .npy format, and its rows one after another, only one of them in memory at a time."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        try:
            version = np.lib.format.read_magic(stream)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read_header:
                raise ValueError(f"format version {version[0]}.{version[1]} is not known")
            self.shape, fortran, self.dtype = read_header[version](stream)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise InputError("EF408", f"{name} cannot be read as an array: {error}") from error
        if self.dtype.hasobject:
            raise InputError("EF410", f"{name} holds Python objects (pickles), which are never loaded; {_ACCEPTED}")
        if not self.shape:
            raise InputError("EF410", f"{name} holds a single number; {_ACCEPTED}")
        if fortran and len(self.shape) > 1:
            raise InputError("EF410", f"{name} is in Fortran order: save it through np.ascontiguousarray")

    def rows(self, count: int) -> Iterator[NDArray[Any]]:
        shape = self.shape[1:]
        size = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        for index in range(count):
            try:
                data = self._stream.read(size)
            except (OSError, EOFError, zipfile.BadZipFile) as error:
                raise InputError("EF408", f"{self._name} is damaged at sample {index}: {error}") from error
            if len(data) < size:
                raise InputError("EF408", f"{self._name} is truncated: sample {index} of {self.shape[0]} is cut off")
            yield np.frombuffer(data, self.dtype).reshape(shape)


class ArrayFile(Samples):
    """The rows of a ``.npy``, or of the array ``images`` (or the only one) of a ``.npz``, with its ``labels``."""

    def __init__(self, path: Path, preprocessing: Preprocessing, limit: int | None) -> None:
        self._path = path
        self._member: str | None = None
        labels = None
        if path.suffix.lower() == ".npz":
            self._member, labels = self._find_arrays()
        with self._open() as reader:
            total = reader.shape[0]
            rank = {True: (3, 4), False: (4,)}[reader.dtype == np.uint8]
            if len(reader.shape) not in rank or 0 in reader.shape[1:]:
                raise InputError("EF410", f"{path} holds {reader.dtype} {list(reader.shape)}; {_ACCEPTED}")
        if total == 0:
            raise InputError("EF403", f"{path} holds no samples")
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
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                names = list(archive.files)
                labels = archive["labels"] if "labels" in names else None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError("EF408", f"{self._path} cannot be read as an .npz file: {error}") from error
        others = [name for name in names if name != "labels"]
        if "images" not in others and len(others) != 1:
            raise InputError("EF409", f"{self._path} holds the arrays {names}: call the one with the images 'images'")
        if labels is not None:
            if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or (labels.size and labels.min() < 0):
                raise InputError(
                    "EF412",
                    f"{self._path}: labels are {labels.dtype} {list(labels.shape)}; they must be class "
                    "indices: [N], integers, 0 or above",
                )
            labels = labels.astype(np.int64)
        return ("images" if "images" in others else others[0]) + ".npy", labels

    @contextmanager
    def _open(self) -> Iterator[_RowReader]:
        try:
            if self._member is None:
                with self._path.open("rb") as stream:
                    yield _RowReader(stream, str(self._path))
            else:
                with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as stream:
                    yield _RowReader(stream, f"{self._path} ({self._member[:-4]})")
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise InputError("EF408", f"cannot read {self._path}: {error}") from error

    def _rows(self) -> Iterator[tuple[NDArray[Any], int | None]]:
        with self._open() as reader:
            for index, row in enumerate(reader.rows(len(self))):
                yield row, None if self._labels is None else int(self._labels[index])

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

    def __init__(self, make: Callable[[], Iterable[Any]], name: str, preprocessing: Preprocessing, limit: int | None):
        self._make, self._limit = make, limit
        super().__init__(name, preprocessing, class_names=None, labelled=False, count=None)
        first = next(self._rows(), None)
        if first is None:
            raise InputError("EF403", f"{name} yields no arrays")
        self.labelled = first[1] is not None

    def _rows(self) -> Iterator[tuple[NDArray[Any], int | None]]:
        return islice(chain.from_iterable(map(_split, self._make())), self._limit)

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

    def __init__(self, items: Iterator[Any], limit: int | None) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="edgeformer-samples-")  # noqa: SIM115  lives as long as this object
        self._count = 0
        try:
            for row, label in islice(chain.from_iterable(map(_split, items)), limit):
                np.save(self._file, row, allow_pickle=False)
                np.save(self._file, np.int64(-1 if label is None else label), allow_pickle=False)
                self._count += 1
            self._file.flush()
        except OSError as error:
            raise EnvironmentFault(
                "EF602",
                f"cannot keep the iterator's samples in {tempfile.gettempdir()}: {error}; make room, set TMPDIR, "
                "or give a list, an .npy file or a function that returns a fresh iterator",
            ) from error

    def __call__(self) -> Iterator[Any]:
        """Yield the samples kept, as arrays or pairs of array and label."""
        with open(self._file.name, "rb") as stream:
            for _ in range(self._count):
                row, label = np.load(stream, allow_pickle=False), int(np.load(stream, allow_pickle=False))
                yield row if label < 0 else (row, label)


def _array_content(rows: Iterator[tuple[NDArray[Any], int | None]]) -> Iterator[bytes]:
    for row, label in rows:
        yield f"{row.dtype.str}{row.shape}{label}".encode()
        yield row.tobytes()


def _split(item: object) -> Iterator[tuple[NDArray[Any], int | None]]:
    """One item of a stream as samples: a sample, a batch, or a pair of one of those with its labels."""
    labels: NDArray[Any] | None = None
    array: Any = item
    if isinstance(item, tuple):
        if len(item) != 2:
            raise InputError("EF410", f"an item is a tuple of {len(item)}; it must be an array, or (array, labels)")
        array, labels = item[0], np.asarray(item[1])
    array = np.asarray(array)
    single = array.ndim <= 3
    rows = array[None] if single else array
    if labels is None:
        yield from ((row, None) for row in rows)
        return
    if not np.issubdtype(labels.dtype, np.integer) or labels.size != len(rows) or (labels < 0).any():
        raise InputError(
            "EF412",
            f"an item of {len(rows)} samples has labels {labels.dtype} {list(labels.shape)}; they must be class "
            "indices: integers, 0 or above, one per sample",
        )
    yield from zip(rows, map(int, labels.reshape(-1)), strict=True)
