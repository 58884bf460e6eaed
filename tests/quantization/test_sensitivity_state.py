from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.quantization.calibration import CalibrationKey
from edgeformer.quantization.sensitivity_state import SensitivityState, images_sha256
from tests.raising import raises

KEY = CalibrationKey(model="m", data="d", settings="s", tool="t")


def state() -> SensitivityState:
    return SensitivityState(key=KEY, images="i", ranges={"x": 1.5}, noise={"a": (1e-3, 1.1e-3), "b": (0.1 + 0.2,)})


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state().save(tmp_path / "state.json")
    assert SensitivityState.read(tmp_path / "state.json", KEY, "i") == state()


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert SensitivityState.read(tmp_path / "state.json", KEY, "i") is None
    state().save(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "images", "reason"),
    [
        ({"model": "x"}, "i", "another model"),
        ({"data": "x"}, "i", "other calibration data"),
        ({"settings": "x"}, "i", "another recipe"),
        ({"tool": "x"}, "i", "another version"),
        ({}, "x", "other images"),
    ],
)
def test_a_state_of_something_else_is_refused(tmp_path: Path, change: dict[str, str], images: str, reason: str) -> None:
    path = tmp_path / "state.json"
    state().save(path)
    before = path.read_bytes()
    with raises("EF564", path, reason, "Delete the file"):
        SensitivityState.read(path, KEY.model_copy(update=change), images)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema_version": 2}',
        b"\xff\xfe",
        json.dumps({**state().model_dump(mode="json"), "more": 1}).encode(),
        json.dumps({**state().model_dump(mode="json"), "noise": {"a": [-1.0]}}).encode(),
        json.dumps({**state().model_dump(mode="json"), "noise": {"a": []}}).encode(),
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with raises("EF563", path, "delete it"):
        SensitivityState.read(path, KEY, "i")


def test_a_state_that_cannot_be_read(tmp_path: Path) -> None:
    with raises("EF563", tmp_path):
        SensitivityState.read(tmp_path, KEY, "i")


def test_a_full_disk_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    state().save(path)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    more = state()
    more.noise["c"] = (1.0,)
    with pytest.raises(OSError, match="No space left") as caught:
        more.save(path)
    assert caught.value.filename == str(path)
    assert SensitivityState.read(path, KEY, "i") == state()
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_the_hash_of_images_tells_values_and_grouping() -> None:
    one = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    groups: list[Any] = [([one], []), ([one[:1], one[1:]], []), ([one], [one]), ([], [one]), ([one + 1], [])]
    assert len({images_sha256(*group) for group in groups}) == len(groups)
    assert images_sha256([one], []) == images_sha256([one.copy()], [])
