"""Array files that were made to do harm, or were damaged: one error each, and never more memory than they hold."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeformer.data import open_samples
from edgeformer.data.array_files import archive_names, open_array, read_array
from edgeformer.errors import InputError
from tests.data.conftest import PLAIN
from tests.raising import raises

READY = np.random.default_rng(0).standard_normal((5, 3, 4, 6)).astype(np.float32)


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """A .npy file with any header."""
    text = header.encode("latin-1")
    length = struct.pack("<H", len(text)) if version == 1 else struct.pack("<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def header(shape: str, descr: str = "'<f4'", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "array",
    [
        READY,
        READY.astype(">f8"),
        np.asfortranarray(READY),
        np.arange(7, dtype=np.uint64) + 2**63,
        np.array(3.5),
        np.zeros((2, 0)),
        np.array([True, False]),
        np.array([1 + 2j]),
    ],
)
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, array: NDArray[Any], name: str) -> None:
    path = tmp_path / name
    np.save(path, array) if name == "x.npy" else np.savez_compressed(path, here=array)
    found = read_array(path, None if name == "x.npy" else "here")
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    "text",
    [
        "{'shape': (2,), 'descr': '<f4', 'fortran_order': False}",
        '{"descr":"<f4","fortran_order":False,"shape":(2,)}',
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L,), }     \n",
        "  { 'descr' : '<f4' ,'fortran_order':  False , 'shape': ( 2 , ) }\n",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_that_others_write(tmp_path: Path, text: str, version: int) -> None:
    (tmp_path / "x.npy").write_bytes(npy(text, np.array([1, 2], np.float32).tobytes(), version))
    assert read_array(tmp_path / "x.npy").tolist() == [1.0, 2.0]


HOSTILE = {
    "negative": (header("(2, 3, 16, -16)"), "EF408", "-16"),
    "product that wraps": (header(f"(2, {2**32}, {2**32}, 1)"), "EF408", 2**32),
    "far too long": (header(f"({10**12}, 3, 4, 6)"), "EF408", 10**12),
    "beyond every integer": (header(f"({10**30}, 3, 4, 6)"), "EF408", 10**30),
    "zero times huge": (header(f"(0, {10**18}, {10**18}, {10**18})"), "EF4", ""),
    "digits": (header("(" + "9" * 5000 + ",)"), "EF408", "999"),
    "axes": (header("(" + "1, " * 5000 + ")"), "EF408", "1, 1"),
    "brackets": ("(" * 3000, "EF408", "((("),
    "brackets in the shape": (header("(" * 3000 + "1" + ")" * 3000), "EF408", ""),
    "objects": (header("(2, 3, 4, 6)", "'|O'"), "EF410", "Python objects"),
    "fields": (header("(2, 3, 4, 6)", "[('a', '<f4')]"), "EF410", "structured"),
    "fields in a string": (header("(2, 3, 4, 6)", "'f4,f4'"), "EF410", "f4,f4"),
    "text": (header("(2, 3, 4, 6)", "'<U10'"), "EF410", "<U10"),
    "times": (header("(2, 3, 4, 6)", "'<M8[s]'"), "EF4", ""),
    "no type": (header("(2, 3, 4, 6)", "'<f7'"), "EF410", "<f7"),
    "bytes of any size": (header("(2, 3, 4, 6)", "'|V99999999999'"), "EF410", "V9999"),
    "no shape": ("{'descr': '<f4', 'fortran_order': False}", "EF408", "fortran_order"),
    "a key twice": ("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "EF408", "descr"),
    "a call": (header("(2, 3, 4, 6)", "print('x')"), "EF408", "print"),
    "binary": ("\x00\xff\x1b[31m", "EF408", ""),
    "empty": ("", "EF408", ""),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("member", [None, "images", "labels"])
def test_headers_that_lie(tmp_path: Path, name: str, member: str | None) -> None:
    text, code, value = HOSTILE[name]
    if member is None:
        path = tmp_path / "x.npy"
        path.write_bytes(npy(text))
    else:
        path = tmp_path / "x.npz"
        whole = io.BytesIO()
        np.save(whole, READY if member == "labels" else np.arange(5))
        other = "images" if member == "labels" else "labels"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{other}.npy", whole.getvalue())
            archive.writestr(f"{member}.npy", npy(text))
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        list(open_samples(path, PLAIN).batches(2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700
    if member != "labels":  # those need a shape of their own first
        assert caught.value.code.startswith(code), str(caught.value)
        assert str(value) in str(caught.value)


def test_headers_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}")
    with raises("EF408", path, 2**32 - 1):
        read_array(path)


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    np.savez_compressed(tmp_path / "x.npz", images=READY, labels=np.arange(5))
    return tmp_path / "x.npz"


def _flag(path: Path, offset_local: int, offset_central: int, value: bytes) -> None:
    """Overwrite a field in the headers of every member of an archive."""
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", offset_local), (b"PK\x01\x02", offset_central)):
        place = content.find(magic)
        while place >= 0:
            content[place + offset : place + offset + len(value)] = value
            place = content.find(magic, place + 4)
    path.write_bytes(content)


def test_encrypted_members_are_refused(compressed: Path) -> None:
    _flag(compressed, 6, 8, b"\x01")
    with raises("EF408", compressed, "encrypted"):
        open_samples(compressed, PLAIN)


def test_unknown_compression_is_refused(compressed: Path) -> None:
    _flag(compressed, 8, 10, b"\x63")
    with raises("EF408", compressed):
        open_samples(compressed, PLAIN)


def test_what_unpacks_to_more_than_it_can_hold_is_refused_before(compressed: Path) -> None:
    _flag(compressed, 22, 24, struct.pack("<I", 2**31))
    with raises("EF408", compressed, 2**31):
        open_samples(compressed, PLAIN)


def test_every_damaged_byte_of_an_archive_gives_one_error_or_the_right_data(compressed: Path) -> None:
    whole = compressed.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        compressed.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = np.concatenate([batch.images for batch in open_samples(compressed, PLAIN).batches(2)])
        except InputError:
            refused += 1
        else:
            assert np.array_equal(found, READY)
    assert refused > 100


def test_archives_without_the_array(compressed: Path, tmp_path: Path) -> None:
    assert archive_names(compressed) == ["images", "labels"]
    with raises("EF408", compressed, "nothing"), open_array(compressed, "nothing"):
        pass
    with raises("EF408", tmp_path / "none.npy"):
        read_array(tmp_path / "none.npy")


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2**64 - 1, 0, 1, 2, 3], np.uint64),
        np.array([2**63, 0, 1, 2, 3], np.uint64),
        np.array([0, 1, 2, 3, -(2**63)]),
        np.array([True, False, True, False, True]),
        np.arange(5.0),
        np.array(["0", "1", "2", "3", "4"]),
        np.arange(5).astype("M8[s]"),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_are_exact_or_refused(tmp_path: Path, labels: NDArray[Any]) -> None:
    np.savez(tmp_path / "x.npz", images=READY, labels=labels)
    with pytest.raises(InputError) as caught:
        open_samples(tmp_path / "x.npz", PLAIN)
    assert caught.value.code in ("EF410", "EF412")
    with pytest.raises(InputError):
        list(open_samples([(READY, labels)], PLAIN).batches(5))


def test_large_labels_stay_what_they_are(tmp_path: Path) -> None:
    labels = np.array([2**63 - 1, 10**12, 3, 2, 1], np.uint64)
    np.savez(tmp_path / "x.npz", images=READY, labels=labels)
    (batch,) = open_samples(tmp_path / "x.npz", PLAIN).batches(5)
    assert batch.labels is not None
    assert batch.labels.tolist() == [2**63 - 1, 10**12, 3, 2, 1]
