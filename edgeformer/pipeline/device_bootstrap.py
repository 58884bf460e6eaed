"""What ``device.pyz`` in a bundle begins with, as its ``__main__``: unpacks the packages in it and runs edgeformer.

Python can import no compiled package out of an archive. So they are unpacked once, into a folder of the user's cache
that is named by the archive's hash. Until then there is the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

__all__ = ["COMMON", "main", "python_folder", "unpacked"]

COMMON = "common"
"""The archive's folder of what serves every Python."""

_NEEDED = ("click", "numpy", "PIL", "pydantic", "rich")
_LACKING = 4


def python_folder(major: int, minor: int) -> str:
    """The archive's folder of the packages for one Python."""
    return f"cp{major}{minor}"


def unpacked(archive: Path, cache: Path) -> Path:
    """The folder in which the archive is unpacked, whole; done at the first call.

    Args:
        archive: the archive.
        cache: the user's folder for such things.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:24]
    folder = cache / f"device-{digest}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=cache))
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = (COMMON + "/", python_folder(*sys.version_info[:2]) + "/")
            opened.extractall(fresh, [name for name in opened.namelist() if name.startswith(wanted)])
        for path in sorted(fresh.glob("cp*/*.whl")):
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(path.parent)
            path.unlink()
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _cache() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "edgeformer"


def main() -> None:
    """Run edgeformer with the words of the command line."""
    archive = Path(sys.argv[0]).resolve()
    python = python_folder(*sys.version_info[:2])
    folder = unpacked(archive, _cache())
    # The archive itself is not looked through.
    sys.path[:1] = [str(folder / python), str(folder / COMMON)]
    from edgeformer.ops.library_files import PLUGINS, RUNTIME

    for library in (PLUGINS, RUNTIME):
        if (archive.parent / library.name).is_file():
            os.environ.setdefault(library.variable, str(archive.parent / library.name))
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        with zipfile.ZipFile(archive) as opened:
            pythons = sorted({name.split("/")[0] for name in opened.namelist() if name.startswith("cp")})
        served = ", ".join(f"3.{name[3:]}" for name in pythons) or "no Python"
        sys.stderr.write(
            f"{archive.name} brings packages for {served}, and this is Python {sys.version.split()[0]} without "
            f"{', '.join(missing)}: name another one (PYTHON=python3.10 {archive.parent / 'finish'}), or "
            f"{sys.executable} -m pip install {' '.join(missing).replace('PIL', 'pillow')}\n"
        )
        raise SystemExit(_LACKING)
    # As `python -m edgeformer` does.
    runpy.run_module("edgeformer", run_name="__main__")


def _is_there(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


if __name__ == "__main__":
    main()
