"""Files that are either whole or absent, and the hashes that prove it.

What is temporary is known as ours by its lock and by its name or marker, so that what a killed process left behind is
removed by the next one, and nothing else ever is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeformer.outputs import destination, making_folders
from edgeformer.supervision import temporary

__all__ = [
    "MARKER",
    "hidden_prefix",
    "is_marked",
    "locked",
    "mark",
    "naming_folder",
    "remove_marked",
    "replacing",
    "sha256_of_bytes",
    "sha256_of_file",
    "sync_directory",
    "temporary_folder",
    "try_lock",
    "write_bytes",
    "write_text",
]

_CHUNK = 1 << 20
# The file that says what a folder of ours is.
MARKER = ".edgeformer"
_LARGEST_MARKER = 4096
_PARTIAL = ".edgeformer-partial"
# Of a name's bytes; file systems take 255, and something is put before and behind it.
_LONGEST_STEM = 200
# What a disk, rather than a path, is to blame for.
_DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


def sha256_of_bytes(*parts: bytes) -> str:
    """SHA-256, as lower-case hex, of the concatenation of ``parts``."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256, as lower-case hex, of a file's content, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark(folder: Path, kind: str, **more: int | str) -> None:
    """Say in ``folder`` that it is one of ours, and of which ``kind``."""
    (folder / MARKER).write_text(json.dumps({"edgeformer": kind, **more}) + "\n", encoding="utf-8")


def is_marked(folder: Path, kind: str) -> bool:
    """Whether `mark` was called for this folder with this ``kind``; a link is not a mark."""
    try:
        handle = os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return False
        try:
            document = json.loads(file.read(_LARGEST_MARKER))
        except (ValueError, RecursionError, OSError):
            return False
    return isinstance(document, dict) and document.get("edgeformer") == kind


def hidden_prefix(name: str, kind: str) -> str:
    """``.NAME.KIND``: how the names of hidden files beside ``name`` begin, NAME shortened so that all of it fits."""
    encoded = os.fsencode(name)
    if len(encoded) > _LONGEST_STEM:
        name = encoded[: _LONGEST_STEM - 20].decode(errors="ignore") + "~" + sha256_of_bytes(encoded)[:12]
    return f".{name}.{kind}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder; waits for others who hold it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def try_lock(path: Path) -> int | None:
    """The lock on a file or folder, as a descriptor to close; None where another process holds it, or there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def remove_marked(folder: Path) -> None:
    """Remove a folder of ours as far as it can be; the mark goes last, so that what is left is known the next time."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.name != MARKER]
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()
    with contextlib.suppress(OSError):
        if not any(entry.name != MARKER for entry in folder.iterdir()):
            (folder / MARKER).unlink(missing_ok=True)
            folder.rmdir()


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """A folder in TMPDIR, removed on the way out; those that killed processes left there are removed first.

    Args:
        kind: what it is for, a word of its name.

    Raises:
        OSError: it cannot be made.
    """
    base = Path(tempfile.gettempdir())
    for left in base.glob("edgeformer-*"):
        _remove_if_abandoned(left)
    path = Path(tempfile.mkdtemp(prefix=f"edgeformer-{kind}-", dir=base))
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # The mark comes after the lock: what is marked and not locked is abandoned.
        mark(path, "temporary")
        with temporary(path):
            yield path
    finally:
        remove_marked(path)
        os.close(handle)


def _remove_if_abandoned(folder: Path) -> None:
    if not is_marked(folder, "temporary"):
        return
    handle = try_lock(folder)
    if handle is None:
        return
    try:
        if os.fstat(handle).st_uid == os.geteuid():
            remove_marked(folder)
    finally:
        os.close(handle)


@contextmanager
def naming_folder(folder: Path) -> Iterator[None]:
    """Let a fault of the disk say which folder was written."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FAULTS and error.filename is None:
            error.filename = str(folder)
        raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success make it durable and rename it over ``path``.

    Whatever happens, ``path`` holds either its old content or the whole new one. No temporary file stays behind, and no
    folder that was made for it; a temporary file of a killed process is removed. A link is followed and stays; other
    hard links to the file keep its old content.

    Raises:
        OSError: the folder cannot be created or written, or ``path`` is no regular file.
    """
    target = destination(path)
    with naming_folder(target.parent), making_folders(target.parent):
        handle, partial = _partial_of(target)
        with temporary(partial):
            try:
                yield partial
                umask = os.umask(0)
                os.umask(umask)
                partial.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~umask)
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
                partial.replace(target)
                sync_directory(target.parent)
            finally:
                partial.unlink(missing_ok=True)
                os.close(handle)


def _partial_of(target: Path) -> tuple[int, Path]:
    """A new temporary file beside ``target`` and the lock on it; those that nobody holds are removed."""
    prefix = hidden_prefix(target.name, "")
    for left in target.parent.iterdir():
        if left.name.startswith(prefix) and left.name.endswith(_PARTIAL):
            abandoned = try_lock(left)
            if abandoned is not None:
                left.unlink(missing_ok=True)
                os.close(abandoned)
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=_PARTIAL, dir=target.parent)
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Between the two calls another process may have taken it for abandoned.
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` atomically and durably."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically and durably."""
    write_bytes(path, text.encode())
