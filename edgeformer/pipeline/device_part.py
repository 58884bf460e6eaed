"""``device.pyz``: edgeformer and the packages that it needs on a device, in one file, and the script that runs it.

Nothing is fetched here. The packages are wheels that `scripts/fetch_device_packages.py` puts beside the sources;
without them the archive holds edgeformer alone, and the device has to have the packages.
"""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from edgeformer.pipeline.device_bootstrap import COMMON

__all__ = ["FETCH_COMMAND", "FINISH_SCRIPT", "device_packages", "write_device_part", "write_finish_script"]

FETCH_COMMAND = "scripts/fetch_device_packages.py"
FINISH_SCRIPT = """\
#!/bin/sh
# Finishes this bundle on the machine that it is for: builds the engine and compares it. docs/finish.md of edgeformer
# says what it does. Running this runs what the bundle brings; PYTHON names another Python than python3.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
exec "${PYTHON:-python3}" "$here/device.pyz" finish "$here" --trust-bundle "$@"
"""
_PACKAGE = Path(__file__).resolve().parents[1]
_WHEELS = _PACKAGE.parent / "third_party" / "device"
_SOURCES = (".css", ".html", ".json", ".py")
# The same bytes for the same content, whenever they are written.
_DATE = (1980, 1, 1, 0, 0, 0)


def device_packages(cpu: str, wheels: Path = _WHEELS) -> dict[str, tuple[Path, ...]]:
    """The wheels that were fetched for devices with a processor, by the archive's folder of their Python: ``cp310``.

    Args:
        cpu: as ``platform.machine()`` names it there.
        wheels: where they were put.
    """
    folders = sorted(path for path in (wheels / cpu).glob("cp3*") if path.is_dir())
    found = {folder.name: tuple(sorted(folder.glob("*.whl"))) for folder in folders}
    return {name: paths for name, paths in found.items() if paths}


def write_device_part(path: Path, packages: dict[str, tuple[Path, ...]]) -> None:
    """Write the archive.

    Args:
        path: its file.
        packages: as `device_packages` gives them.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        _add(archive, "__main__.py", (_PACKAGE / "pipeline" / "device_bootstrap.py").read_bytes())
        for source in sorted(_PACKAGE.rglob("*")):
            if source.suffix in _SOURCES and source.is_file():
                _add(archive, f"{COMMON}/{source.relative_to(_PACKAGE.parent).as_posix()}", source.read_bytes())
        for folder, wheels in sorted(packages.items()):
            for wheel in wheels:
                # It is compressed as it is.
                _add(archive, f"{folder}/{wheel.name}", wheel.read_bytes(), zipfile.ZIP_STORED)


def write_finish_script(path: Path) -> None:
    """Write the script that finishes the bundle in whose folder it lies; it can be executed."""
    path.write_text(FINISH_SCRIPT, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _add(archive: zipfile.ZipFile, name: str, content: bytes, how: int = zipfile.ZIP_DEFLATED) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = how
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)
