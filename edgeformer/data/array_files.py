"""The one reader of .npy and .npz files: nothing is unpickled, and nothing is believed before it is checked."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeformer.errors import InputError
from edgeformer.text import shortened

__all__ = ["ArrayReader", "archive_names", "open_array", "read_array"]

MOST_BYTES = 1 << 31
"""Size of an array that is read as a whole, at most."""

# What `zipfile` and the decompressors below it raise for damaged, encrypted and unknown archives.
_UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # NotImplementedError is one
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    IndexError,
    struct.error,
    OverflowError,
    MemoryError,
)
_LONGEST_HEADER = 1 << 16
# Deflate packs at most 1032 bytes into one; other methods pack more, but no real data.
_MOST_PACKED = 1100

# The header is a literal of Python. Written out it needs no parser that a hostile one could overwhelm, and what is no
# plain array (a list of fields, a pickled object) does not match.
_ENTRIES = {
    "descr": r"""['"](?P<descr>[^'"(){}]{1,40})['"]""",
    "fortran_order": r"(?P<fortran_order>True|False)",
    "shape": r"\((?P<shape>[\dL,\s-]*)\)",
}
_ENTRY = "|".join(rf"""['"]{name}['"]\s*:\s*{value}""" for name, value in _ENTRIES.items())
_HEADER = re.compile(rf"\s*(?:{_ENTRY})\s*")
_PLAIN_TYPE = re.compile(r"[<>|=]?[biufc?]\d{0,2}")


class ArrayReader:
    """An array in a stream of .npy format: its header, and its rows one after another, one of them in memory at a time.

    Attributes:
        shape: the shape that the header gives; the stream was found to be as long as it says where that can be told.
        dtype: numbers or booleans, of any byte order.
        fortran: whether the array is stored in Fortran order, which `rows` does not read.
    """

    def __init__(self, stream: IO[bytes], name: str, size: int | None) -> None:
        """Read the header.

        Args:
            stream: at the beginning of the array.
            name: what messages call it.
            size: bytes of the stream, where they are known.

        Raises:
            InputError: it is no array, holds objects or fields, or its shape is impossible.
        """
        self._stream, self._name = stream, name
        try:
            self.shape, self.fortran, self.dtype = _read_header(stream, name)
        except _UNREADABLE as error:
            raise InputError("EF408", f"{name} cannot be read as an array: {_reason(error)}") from error
        # Plain integers: a product of NumPy's would wrap.
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        if self.nbytes >= 1 << 62 or max(self.shape, default=0) >= 1 << 62:
            raise InputError("EF408", f"{name} cannot be read as an array: its shape is {_shape(self.shape)}")
        self._missing = None if size is None else self.nbytes - (size - stream.tell())

    def check_whole(self) -> None:
        """Check that all of the array can be there.

        Raises:
            InputError: the file is too short for the shape that its header gives.
        """
        if self._missing is not None and self._missing > 0:
            raise InputError(
                "EF408",
                f"{self._name} is truncated: {self.dtype} {_shape(self.shape)} takes {self.nbytes} bytes, and "
                f"{self._missing} of them are not there: sample {self._whole_rows()} of {self.shape[0]} is cut off",
            )

    def rows(self, count: int) -> Iterator[NDArray[Any]]:
        """The first ``count`` rows: what lies along the first axis."""
        shape = self.shape[1:]
        size = math.prod(shape) * self.dtype.itemsize
        for index in range(count):
            data = self._read(size, f"sample {index} of {self.shape[0]}")
            yield np.frombuffer(data, self.dtype).reshape(shape)

    def whole(self) -> NDArray[Any]:
        """The whole array.

        Raises:
            InputError: it is cut off, or larger than ``MOST_BYTES``.
        """
        if self.nbytes > MOST_BYTES:
            raise InputError(
                "EF408",
                f"{self._name} is said to be {_shape(self.shape)}, {self.nbytes} bytes; at most {MOST_BYTES} are read",
            )
        self.check_whole()
        data = self._read(self.nbytes, "the array")
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")

    def _whole_rows(self) -> int:
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        return (self.nbytes - (self._missing or 0)) // row if row else 0

    def _read(self, size: int, what: str) -> bytes:
        try:
            data = self._stream.read(size)
        except _UNREADABLE as error:
            raise InputError("EF408", f"{self._name} is damaged at {what}: {_reason(error)}") from error
        if len(data) < size:
            raise InputError("EF408", f"{self._name} is truncated: {what} is cut off")
        return data


def archive_names(path: Path) -> list[str]:
    """The names of the arrays in a .npz file.

    Raises:
        InputError: it is no archive.
    """
    with _archive(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def open_array(path: Path, member: str | None = None) -> Iterator[ArrayReader]:
    """The array of a .npy file, or the array called ``member`` of a .npz file.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if member is None:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                yield ArrayReader(file, str(path), size)
        except OSError as error:
            raise InputError("EF408", f"cannot read {path}: {error}") from error
        return
    name = f"{path} ({shortened(member)})"
    with _archive(path) as archive:
        try:
            info = archive.getinfo(member if member in archive.NameToInfo else f"{member}.npy")
            _check_member(info, name)
            stream: IO[bytes] = archive.open(info)
        except _UNREADABLE as error:
            raise InputError("EF408", f"{name} cannot be read: {_reason(error)}") from error
        with stream:
            yield ArrayReader(stream, name, info.file_size)


def read_array(path: Path, member: str | None = None) -> NDArray[Any]:
    """A whole array; see `open_array`.

    Raises:
        InputError: it cannot be read, or is larger than ``MOST_BYTES``.
    """
    with open_array(path, member) as reader:
        return reader.whole()


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise InputError("EF408", f"{path} cannot be read as an .npz file: {_reason(error)}") from error
    with archive:
        yield archive


def _check_member(info: zipfile.ZipInfo, name: str) -> None:
    """Refuse what is encrypted, and what would unpack to more than it can hold."""
    if info.flag_bits & 1:
        raise InputError("EF408", f"{name} is encrypted: save it with np.savez")
    if info.file_size > max(info.compress_size, 1) * _MOST_PACKED:
        raise InputError(
            "EF408", f"{name} would unpack from {info.compress_size} to {info.file_size} bytes: no array packs so well"
        )


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    magic = stream.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY":
        raise ValueError("it does not begin as a .npy file does")
    if magic[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError(f"format version {magic[6]}.{magic[7]} is not known")
    (length,) = struct.unpack(*(("<H", stream.read(2)) if magic[6] == 1 else ("<I", stream.read(4))))
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header is said to have {length} bytes")
    content = stream.read(length)
    if len(content) < length:
        raise ValueError("its header is cut off")
    text = content.decode("utf-8" if magic[6] == 3 else "latin-1")
    found = _entries(text)
    if found is None:
        if re.search(r"""['"]descr['"]\s*:\s*\[""", text):
            raise InputError("EF410", f"{name} has a structured type (fields): give an array of plain numbers")
        raise ValueError(f"its header is {shortened(text.strip(), 60)!r}")
    descr = found["descr"]
    if re.fullmatch(r"[<>|=]?O\d*", descr):
        raise InputError("EF410", f"{name} holds Python objects (pickles), which are never loaded")
    if not _PLAIN_TYPE.fullmatch(descr):
        raise InputError("EF410", f"{name} has type {descr!r}: give an array of plain numbers")
    try:
        dtype = np.dtype(descr)
    except TypeError:
        raise InputError("EF410", f"{name} has type {descr!r}, which NumPy does not know") from None
    sizes = [size.strip().rstrip("L") for size in found["shape"].split(",")]
    if any(len(size) > 40 for size in sizes) or len(sizes) > 33:
        raise ValueError(f"its shape is ({shortened(found['shape'], 60)})")
    shape = tuple(int(size) for size in sizes if size)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {_shape(shape)}")
    return shape, found["fortran_order"] == "True", dtype


def _entries(text: str) -> dict[str, str] | None:
    """The three entries of a header, in any order; None for anything else."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    found: dict[str, str] = {}
    place, end = 1, len(text) - 1
    while place < end:
        match = _HEADER.match(text, place, end)
        if match is None:
            return None
        (entry,) = ((name, value) for name, value in match.groupdict().items() if value is not None)
        if entry[0] in found:
            return None
        found[entry[0]] = entry[1]
        place = match.end()
        if place < end:
            if text[place] != ",":
                return None
            place += 1
            if not text[place:end].strip():
                break
    return found if len(found) == len(_ENTRIES) else None


def _shape(shape: tuple[int, ...]) -> str:
    return shortened(list(shape), 120)


def _reason(error: BaseException) -> str:
    return shortened(str(error) or type(error).__name__, 200)
