"""What the scripts that fetch files from Python wheels share: download, check, put in place. Standard library alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Written with the files; says which wheels they came from.
STAMP = "SOURCE"


class FetchError(Exception):
    """Something could not be fetched."""


@dataclass(frozen=True)
class Wheel:
    """A wheel in the package registry.

    Attributes:
        requirement: name and version, for pip.
        sha256: what it has to hash to, hexadecimal.
        platform: platform tag, for wheels that are not meant for this machine.
    """

    requirement: str
    sha256: str
    platform: str | None = None

    @property
    def stamp(self) -> str:
        """A line that names the very file."""
        return f"{self.requirement} sha256:{self.sha256}\n"


def fetch(wheel: Wheel, folder: Path) -> Path:
    """Download ``wheel`` into a new folder in ``folder`` and check its hash.

    Raises:
        FetchError: it cannot be downloaded, or is another file than the pinned one.
    """
    path = download(wheel, Path(tempfile.mkdtemp(dir=folder)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != wheel.sha256:
        raise FetchError(f"{path.name} has SHA-256 {digest}, not the pinned {wheel.sha256}: it is not used")
    return path


def download(wheel: Wheel, folder: Path) -> Path:
    """Download ``wheel`` into the empty ``folder`` with the first Python that has pip."""
    command = [
        *find_pip(folder),
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--quiet",
    ]
    if wheel.platform is not None:
        command += ["--platform", wheel.platform]
    process = subprocess.run(
        [*command, "--dest", str(folder), wheel.requirement],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise FetchError(f"pip could not download {wheel.requirement}:\n{process.stderr.strip()}")
    return wheels[0]


def find_pip(folder: Path) -> list[str]:
    """The command of a working pip.

    In pip's isolated builds this very Python hides its pip behind PYTHONPATH (`clean_environment` brings it back);
    other front ends make environments without one.
    """
    names = [sys.executable, str(Path(sys.base_prefix, "bin", "python3")), shutil.which("python3")]
    for python in dict.fromkeys(name for name in names if name):
        if has_pip(python):
            return [python, "-m", "pip"]
    environment = folder / "pip"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], capture_output=True, check=False)
    python = str(environment / "bin" / "python3")
    if has_pip(python):
        return [python, "-m", "pip"]
    raise FetchError(
        "no Python with pip was found (tried " + ", ".join(filter(None, names)) + " and a new environment)"
    )


def has_pip(python: str) -> bool:
    """Whether ``python -m pip`` works."""
    try:
        command = [python, "-m", "pip", "--version"]
        return subprocess.run(command, capture_output=True, check=False, env=clean_environment()).returncode == 0
    except OSError:
        return False


def clean_environment() -> dict[str, str]:
    """The environment without what pip's build isolation puts between Python and its packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONNOUSERSITE")}


def is_published(destination: Path, stamp: str) -> bool:
    """Whether ``destination`` holds the files that were published with this stamp."""
    file = destination / STAMP
    return file.is_file() and file.read_text() == stamp


def publish(
    destination: Path,
    stamp: str,
    files: Mapping[str, bytes],
    *,
    programs: Mapping[str, bytes] | None = None,
    links: Mapping[str, Path] | None = None,
) -> None:
    """Replace ``destination`` by these files in one rename, so that an interrupted run leaves nothing half-written.

    Args:
        destination: folder.
        stamp: what `is_published` asks for.
        files: contents by path in the folder.
        programs: the same, for executable files.
        links: targets of symbolic links by path in the folder.

    Raises:
        FetchError: the folder cannot be written.
    """
    programs = programs or {}
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
            fresh = Path(folder, destination.name)
            for name, content in {**files, **programs, STAMP: stamp.encode()}.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(content)
                if name in programs:
                    (fresh / name).chmod(0o755)
            for name, target in (links or {}).items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).symlink_to(target)
            if destination.exists():
                shutil.rmtree(destination)
            fresh.rename(destination)
    except OSError as error:
        raise FetchError(f"cannot write {destination}: {error}") from error
