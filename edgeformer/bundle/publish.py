"""How a bundle is published: filled in a hidden folder beside its final place, and put there in one rename.

So the final place holds a whole bundle or the older one, whatever happens in between. Files of an older bundle are
reused (hard-linked where the file system can) when the stage that made them had the same inputs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeformer.artifacts import sha256_of_file, sync_directory, write_text
from edgeformer.bundle.files import MANIFEST
from edgeformer.bundle.manifest import FileRecord, Manifest, StageRecord, read_manifest
from edgeformer.errors import InputError
from edgeformer.supervision import final_step, temporary

__all__ = ["Staging", "staging"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Staging:
    """A bundle in the making. Made by `staging`; files go into ``path``, `publish` makes it the bundle."""

    def __init__(self, path: Path, target: Path, previous: Manifest | None) -> None:
        self.path = path
        self.target = target
        self._previous = previous

    def reusable(self, name: str, key: str) -> StageRecord | None:
        """Bring the files of the older bundle's stage ``name`` here if it had the same ``key``.

        Returns:
            The older stage's record marked as reused, or ``None``: no older bundle, another key, or a damaged file.
        """
        record = self._previous.stage(name) if self._previous else None
        if record is None or record.key != key:
            return None
        assert self._previous is not None
        for file in record.files:
            known = self._previous.files.get(file)
            source = self.target / file
            if known is None or not source.is_file() or sha256_of_file(source) != known.sha256:
                return None
        for file in record.files:
            (self.path / file).unlink(missing_ok=True)
            try:
                os.link(self.target / file, self.path / file)
            except OSError:
                shutil.copy2(self.target / file, self.path / file)
        return record.model_copy(update={"reused": True})

    def file_records(self) -> dict[str, FileRecord]:
        """Size and SHA-256 of every file put here so far, by name."""
        return {
            file.relative_to(self.path).as_posix(): FileRecord(sha256=sha256_of_file(file), size=file.stat().st_size)
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.name != MANIFEST
        }

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, make all files durable, and put the folder at its final place in one rename.

        Raises:
            OSError: the file system refused; the older bundle, if any, is still in place.
        """
        write_text(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        for file in self.path.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        sync_directory(self.path)
        with final_step():
            if self.target.exists():
                _exchange(self.path, self.target)
            else:
                self.path.rename(self.target)
            sync_directory(self.target.parent)


@contextmanager
def staging(target: Path) -> Iterator[Staging]:
    """Yield a `Staging` for the bundle at ``target``; whatever was not published is removed on the way out.

    Staging folders that a killed build left behind are removed first; those of a build that still runs are not touched.

    Raises:
        InputError: ``target`` exists and is no bundle, or its folder cannot be written.
    """
    target = target.resolve()
    if target.exists() and not (target / MANIFEST).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError("EF705", f"{target}: exists and is no bundle; choose another output or remove it")
    prefix = f".{target.name}.staging-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The parent is locked while a folder is made, so that no other build takes it for an abandoned one.
        with _locked(target.parent):
            _restore(target)
            _remove_abandoned(target.parent, prefix)
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise InputError("EF102", f"{target.parent}: cannot be written: {error.strerror}") from error
    previous = None
    if (target / MANIFEST).is_file():
        with contextlib.suppress(InputError):  # an unreadable older bundle is replaced, not reused
            previous = read_manifest(target)
    try:
        umask = os.umask(0)
        os.umask(umask)
        path.chmod(0o777 & ~umask)
        with temporary(path):
            yield Staging(path, target, previous)
    finally:
        # After an exchange this path holds the older bundle, after a plain publish nothing.
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for path in parent.glob(f"{prefix}*"):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # a build that still runs holds it
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _restore(target: Path) -> None:
    """Put the older bundle back where a build was killed between the two renames of `_exchange`."""
    aside = _aside(target)
    if not aside.exists():
        return
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.rename(target)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step; where the file system cannot, move the old one away first."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(code, os.strerror(code), str(old))
    aside = _aside(old)
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException:
        aside.rename(old)
        raise
    aside.rename(new)
