"""Cases are the same by number, and each kind of mutation changes its input."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.fuzz.mutations import (
    Rng,
    mutate_archive,
    mutate_array,
    mutate_bytes,
    mutate_json,
    mutate_onnx,
    mutate_safetensors,
)
from tests.graph.precision_graphs import transformer


def _npy() -> bytes:
    made = io.BytesIO()
    np.save(made, np.zeros((3, 3, 4, 4), np.float32))
    return made.getvalue()


def _npz() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("images.npy", _npy())
        archive.writestr("labels.npy", _npy())
    return made.getvalue()


def _safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.mark.parametrize(
    ("mutate", "content"),
    [
        (mutate_bytes, b"some bytes"),
        (mutate_json, b'{"a": 1, "b": [2]}'),
        (mutate_array, _npy()),
        (mutate_archive, _npz()),
        (mutate_safetensors, _safetensors()),
        (mutate_onnx, transformer().SerializeToString()),
    ],
)
def test_equal_numbers_are_equal_cases(mutate: Callable[[bytes, Rng], bytes], content: bytes) -> None:
    first = [mutate(content, np.random.default_rng([0, number])) for number in range(60)]
    assert first == [mutate(content, np.random.default_rng([0, number])) for number in range(60)]
    assert sum(made != content for made in first) > 50
    assert len(set(first)) > 20
