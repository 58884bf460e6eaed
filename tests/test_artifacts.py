"""Atomic files: whole or absent, never half."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgeformer.artifacts import replacing, sha256_of_bytes, sha256_of_file, write_bytes, write_text


def test_write_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    content = os.urandom((1 << 20) + 17)  # more than one chunk
    write_bytes(path, content)
    assert path.read_bytes() == content
    assert sha256_of_file(path) == hashlib.sha256(content).hexdigest()
    assert sha256_of_bytes(content[:5], content[5:]) == hashlib.sha256(content).hexdigest()
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
