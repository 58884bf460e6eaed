"""How a bundle is published: filled in a hidden folder beside its final place, and put there in one rename.

So the final place holds a whole bundle or the older one, whatever happens in between. Files of an older bundle are
reused (hard-linked where the file system can) when the stage that made them had the same inputs. What somebody else put
into an older bundle is taken over into the new one. A bundle of an older schema version is replaced, too, and none of
its stages are reused.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from edgeformer.artifacts import (
    MARKER,
    hidden_prefix,
    is_marked,
    locked,
    mark,
    naming_folder,
    remove_marked,
    sha256_of_file,
    sync_directory,
    try_lock,
    write_text,
)
from edgeformer.bundle.files import MANIFEST, REPORT, SIGNATURE
from edgeformer.bundle.manifest import (
    SCHEMA_VERSION,
    FileRecord,
    Manifest,
    StageRecord,
    files_of_older,
    read_manifest,
)
from edgeformer.bundle.report_file import is_report
from edgeformer.errors import InputError
from edgeformer.outputs import check_output, making_folders
from edgeformer.supervision import final_step, temporary

__all__ = ["Staging", "staging"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_BUNDLE = "bundle"
# Behind a staging folder's name: where the older bundle stands between the two renames of `_exchange`.
_ASIDE = ".older"


class _Older(NamedTuple):
    """The bundle that is replaced.

    Attributes:
        files: the names of its own.
        manifest: its manifest; None where it is of an older schema version.
    """

    files: Collection[str]
    manifest: Manifest | None


class Staging:
    """A bundle in the making. Made by `staging`; files go into ``path``, `publish` makes it the bundle."""

    def __init__(self, path: Path, target: Path, older: _Older | None) -> None:
        self.path = path
        self.target = target
        self._older = older

    def reusable(self, name: str, key: str) -> StageRecord | None:
        """Bring the files of the older bundle's stage ``name`` here if it had the same ``key``.

        Returns:
            The older stage's record marked as reused, or ``None``: no older bundle, another key, or a damaged file.
        """
        previous = self._older.manifest if self._older else None
        record = previous.stage(name) if previous else None
        if previous is None or record is None or record.key != key:
            return None
        for file in record.files:
            known = previous.files.get(file)
            source = self.target / file
            if known is None or source.is_symlink() or not source.is_file() or sha256_of_file(source) != known.sha256:
                return None
        for file in record.files:
            (self.path / file).unlink(missing_ok=True)
            _link_or_copy(self.target / file, self.path / file)
        return record.model_copy(update={"reused": True})

    def keep(self, names: Iterable[str]) -> None:
        """Bring files of the older bundle here; whoever opened it has checked them against its manifest.

        Raises:
            OSError: one of them is not there.
        """
        for name in names:
            _link_or_copy(self.target / name, self.path / name)

    def file_records(self) -> dict[str, FileRecord]:
        """Size and SHA-256 of every file put here so far, by name."""
        return {
            file.name: FileRecord(sha256=sha256_of_file(file), size=file.stat().st_size)
            for file in sorted(self.path.iterdir())
            if file.name not in (MANIFEST, MARKER)
        }

    def unchanged(self, manifest: Manifest) -> bool:
        """Whether the bundle that is there is the one that would be published, but for the time of the build."""
        older = self._older.manifest if self._older else None
        return older is not None and _timeless(older) == _timeless(manifest)

    def publish(self, manifest: Manifest, *, complete: Callable[[Path], None] | None = None) -> None:
        """Write the manifest, make all files durable, and put the folder at its final place in one rename.

        Args:
            manifest: of the bundle.
            complete: called with the folder when the manifest is written, for files that are made from it.

        Raises:
            InputError: a file that somebody put into the older bundle has the name of a file of the new one.
            OSError: the file system refused; the older bundle, if any, is still in place.
        """
        with naming_folder(self.target.parent):
            write_text(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
            if complete is not None:
                complete(self.path)
            for file in self.path.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            if self._older is not None:
                for entry in _foreign(self.target, self._older.files):
                    if os.path.lexists(self.path / entry.name):
                        raise InputError(
                            "EF708",
                            f"{entry} is not the older bundle's, and the new one makes a file of that name: move it "
                            "elsewhere, or choose another output",
                        )
                    _take_over(entry, self.path / entry.name)
            sync_directory(self.path)
            # Locked: nobody else takes the older bundle for left behind while it stands aside.
            with locked(self.target.parent), final_step():
                if self.target.exists():
                    self._check_target()
                    _exchange(self.path, self.target)
                else:
                    self.path.rename(self.target)
            sync_directory(self.target.parent)

    def _check_target(self) -> None:
        """Refuse to replace what somebody put there while the bundle was made."""
        if self._older is None and (not self.target.is_dir() or any(self.target.iterdir())):
            raise InputError(
                "EF705", f"{self.target}: was made while the bundle was, and is not replaced; choose another output"
            )


@contextmanager
def staging(target: Path) -> Iterator[Staging]:
    """Yield a `Staging` for the bundle at ``target``; whatever was not published is removed on the way out, with
    folders above it that were missing.

    Staging folders that a killed build left behind are removed first; those of a build that still runs, and what only
    has such a name, are not touched.

    Raises:
        InputError: ``target`` exists and is no bundle, or its folder cannot be written.
    """
    given = target
    try:
        check_output(target, folder=True)
    except OSError as error:
        raise InputError("EF102", f"{error.filename or target}: {error.strerror}") from error
    target = target.resolve()
    prefix = hidden_prefix(target.name, "staging-")
    with ExitStack() as folders:
        try:
            folders.enter_context(making_folders(target.parent))
            # The parent is locked while a folder is made, so that no other build takes it for an abandoned one.
            with locked(target.parent), naming_folder(target.parent):
                _clear(target, prefix)
                older = _older(given, target)
                path, handle = _new_folder(target.parent, prefix)
        except OSError as error:
            raise InputError("EF102", f"{target.parent}: cannot be written: {error.strerror}") from error
        try:
            umask = os.umask(0)
            os.umask(umask)
            path.chmod(0o777 & ~umask)
            with naming_folder(target.parent), temporary(path):
                yield Staging(path, target, older)
        finally:
            # After an exchange this path holds the older bundle, after a plain publish nothing.
            remove_marked(path)
            os.close(handle)


def _new_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A folder that is marked as ours, and the lock on it."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        mark(path, _BUNDLE, schema_version=SCHEMA_VERSION)
    except BaseException:
        remove_marked(path)
        os.close(handle)
        raise
    return path, handle


def _older(given: Path, target: Path) -> _Older | None:
    """The bundle that is replaced; None where there is none.

    Raises:
        InputError: there is something that is no bundle, or has in it what cannot be taken over.
    """
    if not target.exists():
        return None
    if not target.is_dir():
        raise InputError("EF705", f"{given}: exists and is no bundle; choose another output or remove it")
    if not any(target.iterdir()):
        return None
    try:
        if (target / MANIFEST).is_symlink():
            raise InputError("EF705", f"{target / MANIFEST} is a link")
        manifest = read_manifest(target)
        older = _Older(manifest.files, manifest)
    except InputError as error:
        unchanged = _unchanged_of_older_version(target)
        if unchanged is None:
            raise InputError(
                "EF705",
                f"{given}: is no bundle of this edgeformer, and what is in it would be lost; choose another output, or "
                f"remove it yourself ({error})",
            ) from error
        older = _Older(unchanged, None)
    page = target / REPORT
    if os.path.lexists(page) and not is_report(page):
        raise InputError(
            "EF708", f"{page} is not the older bundle's, and a build makes a file of that name: move it elsewhere"
        )
    for entry in _foreign(target, older.files):
        for path in [entry, *(entry.rglob("*") if entry.is_dir() and not entry.is_symlink() else ())]:
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                raise InputError(
                    "EF708",
                    f"{path} is no file of the bundle, and a pipe, a device or a socket cannot be taken over into the "
                    "new one: move it elsewhere",
                )
    return older


def _timeless(manifest: Manifest) -> Manifest:
    """A manifest without the time of the build, and as if it had made every file itself."""
    stages = [stage.model_copy(update={"reused": False}) for stage in manifest.stages]
    return manifest.model_copy(update={"created": "", "stages": stages})


def _unchanged_of_older_version(target: Path) -> set[str] | None:
    """The files of a bundle of an older schema version that are as it lists them; None where it is no such bundle.

    Without the private mark it is not known for ours, whatever its manifest says.
    """
    files = files_of_older(target) if is_marked(target, _BUNDLE) and not (target / MANIFEST).is_symlink() else None
    if files is None:
        return None
    return {
        name
        for name, record in files.items()
        if not (target / name).is_symlink()
        and (target / name).is_file()
        and sha256_of_file(target / name) == record.sha256
    }


def _foreign(bundle: Path, files: Collection[str]) -> list[Path]:
    """What somebody else put into a bundle with these files."""
    # Signature and report are of the older manifest, and go with it.
    ours = {MANIFEST, MARKER, SIGNATURE, *files}
    if is_report(bundle / REPORT):
        ours.add(REPORT)
    return [entry for entry in sorted(bundle.iterdir()) if entry.name not in ours]


def _take_over(source: Path, target: Path) -> None:
    """The same file, link or folder at another place of this file system; what is there stays."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir()
        for entry in source.iterdir():
            _take_over(entry, target / entry.name)
        shutil.copystat(source, target)
    else:
        _link_or_copy(source, target)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _clear(target: Path, prefix: str) -> None:
    """Remove what killed builds left beside ``target``, and put back an older bundle that stands aside."""
    name = re.compile(re.escape(prefix) + rf"\w{{8}}({re.escape(_ASIDE)})?")
    for path in target.parent.iterdir():
        if not name.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        # A build that was killed at once left a folder without a mark, and without anything else.
        if not is_marked(path, _BUNDLE) and any(entry.name != MARKER for entry in path.iterdir()):
            continue
        handle = try_lock(path)
        if handle is None:
            continue  # a build that still runs holds it
        try:
            if path.name.endswith(_ASIDE) and not target.exists():
                path.rename(target)
            else:
                remove_marked(path)
        finally:
            os.close(handle)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step; where the file system cannot, move the old one away first."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(code, os.strerror(code), str(old))
    # Marked, it is known to be ours if this process dies before the next rename.
    if not is_marked(old, _BUNDLE):
        mark(old, _BUNDLE, schema_version=SCHEMA_VERSION)
    aside = new.with_name(new.name + _ASIDE)
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException:
        aside.rename(old)
        raise
    aside.rename(new)
