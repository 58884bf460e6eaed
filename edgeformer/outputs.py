"""Where results go: whether they can be written there, whether an input would be lost, and folders that are made."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeformer.errors import InputError
from edgeformer.supervision import removed_if_empty

__all__ = ["check_not_an_input", "check_output", "destination", "making_folders"]


def check_output(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Find out, before any work, whether ``path`` can be written; nothing is made.

    Args:
        path: a file to be, links followed; missing folders can be made.
        folder: whether it is to be a folder.

    Raises:
        OSError: it cannot; the message says why.
    """
    target = destination(path, folder=folder)
    above = target.parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(above))
    if os.statvfs(above).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(above))
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "you may not write into this folder", str(above))


def destination(path: str | os.PathLike[str], *, folder: bool = False) -> Path:
    """What writing ``path`` replaces: links are followed and stay.

    Args:
        path: a file to be.
        folder: whether it is to be a folder.

    Raises:
        OSError: there is something that cannot be replaced.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except ValueError as error:  # a NUL
        raise OSError(errno.EINVAL, str(error), repr(path)) from error
    if mode is not None and not folder and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", os.fspath(path))
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        # As root, a rename would put a regular file in the place of the device itself.
        reason = "is a pipe, a device or a socket: name a regular file, which can be written whole or not at all"
        raise OSError(errno.EINVAL, reason, os.fspath(path))
    return Path(os.path.realpath(path))


def check_not_an_input(
    output: str | os.PathLike[str], inputs: Iterable[tuple[str, object]], *, folder: bool = False
) -> None:
    """Refuse an output that would replace what it is made from, or become part of it.

    Args:
        output: the file or folder to be.
        inputs: each with its name for people; what is no path is passed over.
        folder: whether the output is a folder, which is replaced with all that is in it.

    Raises:
        InputError: it is one of the inputs under whatever name (a link, a second hard link); as a folder, too, where
            one lies in it, or where it lies in one.
    """
    target = Path(os.path.realpath(output))
    for name, given in inputs:
        if not isinstance(given, (str, os.PathLike)):
            continue
        try:
            source = Path(os.path.realpath(given))
            # The link itself, where the input is one.
            entry = Path(os.path.realpath(os.path.dirname(os.path.abspath(given)))) / os.path.basename(given)
        except ValueError:  # a NUL: whoever opens it says so
            continue
        if source == target or _is_same(source, target):
            fault = f"this output is also the {name} ({_text(given)}), which it would replace"
        elif folder and (source.is_relative_to(target) or entry.is_relative_to(target)):
            fault = f"the {name} ({_text(given)}) lies in this output, which is replaced as a whole"
        elif folder and target.is_relative_to(source):
            fault = f"this output lies in the {name} ({_text(given)}) and would become part of it"
        else:
            continue
        raise InputError("EF131", f"{_text(output)}: {fault}: name another output")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one is not there
        return False


def _text(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, (str, os.PathLike)) else str(path)


@contextmanager
def making_folders(folder: Path) -> Iterator[None]:
    """Make ``folder`` and what is missing above it; if what follows fails, those of them that are empty go again.

    Raises:
        OSError: one cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    made: list[Path] = []
    try:
        for one in reversed(missing):
            with suppress(FileExistsError):  # another process made it meanwhile
                one.mkdir()
                made.append(one)
                removed_if_empty(one)
        yield
    except BaseException:
        # Where this process ends early, what still fills them is removed later, and then they are.
        for one in reversed(made):
            with suppress(OSError):
                one.rmdir()
        raise
    for one in made:
        removed_if_empty(one, False)
