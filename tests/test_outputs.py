"""Where results go: refused before any work where they cannot be written or would replace an input."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from edgeformer.outputs import check_not_an_input, check_output, making_folders
from tests.raising import raises


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("folder", errno.EISDIR, "is a folder"),
        ("file/below", errno.ENOTDIR, "Not a directory"),
        ("loop", errno.ELOOP, "symbolic links"),
        ("b" * 256, errno.ENAMETOOLONG, "too long"),
        ("a\0b", errno.EINVAL, "null"),
    ],
)
def test_what_cannot_be_written_is_known_beforehand(tmp_path: Path, name: str, number: int, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=message) as caught:
        check_output(tmp_path / name)
    assert caught.value.errno == number
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder", "loop"]


def test_what_can_be_written_is_not_made(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "folders" / "file")
    check_output(tmp_path, folder=True)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_refused_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="a pipe, a device or a socket"):
            check_output(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_output_is_not_an_input_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_text("mine")
    (tmp_path / "soft").symlink_to("weights.pth")
    os.link("weights.pth", "hard")
    (tmp_path / "way").symlink_to(tmp_path)
    for output in ("weights.pth", "soft", "hard", "./way/weights.pth", tmp_path / "weights.pth"):
        for given in ("weights.pth", tmp_path / "soft", "way/hard"):
            with raises("EF131", output, "checkpoint", given):
                check_not_an_input(output, [("data", None), ("checkpoint", given)])
    with raises("EF131", "new.json", "calibration"):
        check_not_an_input("way/new.json", [("calibration", "new.json")])
    check_not_an_input("other.pth", [("data", [1, 2]), ("checkpoint", "weights.pth"), ("recipe", "a\0b")])


def test_a_folder_neither_holds_an_input_nor_lies_in_one(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "weights.pth").write_text("mine")
    (tmp_path / "weights.pth").write_text("mine")
    (tmp_path / "bundle" / "link.pth").symlink_to("../weights.pth")
    (tmp_path / "way").symlink_to("images")
    images = ("data", tmp_path / "images")
    for output, given in (
        ("images", images),
        ("images/bundle", images),
        ("way/cat/new/bundle", images),
        ("bundle", ("checkpoint", tmp_path / "bundle" / "weights.pth")),
        ("bundle", ("checkpoint", tmp_path / "bundle" / "link.pth")),
        (".", images),
    ):
        with raises("EF131", tmp_path / output, *given):
            check_not_an_input(tmp_path / output, [given], folder=True)
    for output in ("bundle", "images2", "new"):
        check_not_an_input(tmp_path / output, [images, ("checkpoint", tmp_path / "weights.pth")], folder=True)
    check_not_an_input(tmp_path / "images" / "model.onnx", [images])


def test_folders_that_were_made_go_where_what_follows_fails(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    def fail(error: type[BaseException], mine: str = "") -> None:
        with making_folders(tmp_path / "old" / "a" / "b"):
            assert (tmp_path / "old" / "a" / "b").is_dir()
            if mine:
                (tmp_path / "old" / "a" / mine).write_text("")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
        assert list((tmp_path / "old").iterdir()) == []
    with pytest.raises(RuntimeError):
        fail(RuntimeError, "mine")
    assert [path.name for path in (tmp_path / "old" / "a").iterdir()] == ["mine"]
    with making_folders(tmp_path / "old" / "a" / "b"):
        pass
    assert (tmp_path / "old" / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), making_folders(tmp_path / "file" / "a"):
        pass
