"""Atomic files: whole or absent, never half."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgeformer.artifacts import (
    hidden_prefix,
    replacing,
    sha256_of_bytes,
    sha256_of_file,
    temporary_folder,
    write_bytes,
    write_text,
)


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


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    (tmp_path / "file").chmod(0o600)
    write_text(tmp_path / "file", "y")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_folders_that_were_made_for_a_failed_write_go(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(tmp_path / "new" / "folder" / "file"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


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


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to("elsewhere/file")
    for text in ("one", "two"):  # dangling, then not
        write_text(link, text)
        assert link.readlink() == Path("elsewhere/file")
        assert (tmp_path / "elsewhere" / "file").read_text() == text
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["elsewhere", "file", "link"]


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(OSError, match="a pipe, a device or a socket"):
            write_text(path, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_terminal_is_not_replaced(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    with pytest.raises(OSError, match="a pipe, a device or a socket"):
        write_text(name, "x")
    assert stat.S_ISCHR(os.stat(name).st_mode)
    os.close(ours)
    os.close(theirs)


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("b" * 250)
    write_text(path, "x")
    assert path.read_text() == "x"
    assert len(os.fsencode(hidden_prefix("\N{EURO SIGN}" * 85, "staging-"))) <= 220
    assert hidden_prefix("a" * 254, "") != hidden_prefix("a" * 253 + "b", "")
    assert hidden_prefix("name", "staging-") == ".name.staging-"


def test_a_full_disk_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import os, sys
    from pathlib import Path
    from edgeformer.artifacts import replacing, temporary_folder
    with {what} as path:
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("what", ["replacing(Path(sys.argv[1]) / 'file')", "temporary_folder('engine')"])
def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "edgeformer-mine").mkdir()
    (tmp_path / ".file.partial").write_text("mine")

    def left() -> list[str]:
        return sorted(set(os.listdir(tmp_path)) - {"edgeformer-mine", ".file.partial", "file"})

    script = textwrap.dedent(KILLED.format(what=what))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):  # while it runs, what it makes is left alone
        write_text(tmp_path / "file", "x")
        with temporary_folder("engine"):
            pass
        assert len(left()) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    write_text(tmp_path / "file", "x")
    with temporary_folder("engine") as folder:
        assert left() == [folder.name]
    assert left() == []
    assert (tmp_path / ".file.partial").read_text() == "mine"
    assert (tmp_path / "edgeformer-mine").is_dir()
