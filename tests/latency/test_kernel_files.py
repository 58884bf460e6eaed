"""Small files of the kernel."""

from __future__ import annotations

from pathlib import Path

from edgeformer.latency.kernel_files import number_of, text_of


def test_text_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b" 1500\n\0")
    assert (text_of(path), number_of(path)) == ("1500", 1500.0)
    path.write_bytes(b"\xffno")
    assert number_of(path) is None
    for missing in (tmp_path / "no", tmp_path, None):
        assert (text_of(missing), number_of(missing)) == ("", None)
