"""The two TensorRT flavours behind one interface: what is installed, and whether its version fits.

``tensorrt`` (10.3 to 11.x; Jetson and data centre) and ``tensorrt_rtx`` (RTX GPUs; builds without a GPU) share one
Python API. Finding them reads files only; importing one happens in `import_backend`, never before.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgeformer.errors import EnvironmentFault
from edgeformer.records.terms import FLAVOURS, Flavour

__all__ = [
    "BACKEND_RANGES",
    "FLAVOURS",
    "Backend",
    "Flavour",
    "find_backend",
    "import_backend",
    "install_command",
    "installed_flavours",
    "missing_backend",
    "require_backend",
    "version_tuple",
]

# Lowest version that works and the first that is not known to. 10.3 is JetPack 6.1's.
BACKEND_RANGES: dict[Flavour, tuple[str, str]] = {"tensorrt": ("10.3", "12"), "tensorrt_rtx": ("1.2", "2")}
# Where only the two inner wheels are installed, the module has another name.
_MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_VERSION = re.compile(r"""^__version__\s*=\s*["']([0-9.]+)""", re.MULTILINE)
_TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_JETSON_MARK = Path("/etc/nv_tegra_release")


def version_tuple(version: str) -> tuple[int, ...]:
    """``"10.3"`` as ``(10, 3)``; what follows the dotted numbers is ignored."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0].split("-")[0]))


@dataclass(frozen=True)
class Backend:
    """An installed TensorRT.

    Attributes:
        flavour: which of the two it is.
        module: name to import it by.
        version: the package's own version; empty if it has none.
        path: the module's folder.
    """

    flavour: Flavour
    module: str
    version: str
    path: Path

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"{_TITLES[self.flavour]} {self.version}".rstrip()

    def within(self, minimum: str, below: str) -> bool:
        """Whether the version is at least ``minimum`` and less than ``below``."""
        return version_tuple(minimum) <= version_tuple(self.version) < version_tuple(below)


def find_backend(flavour: Flavour) -> Backend | None:
    """The installed TensorRT of this flavour, or ``None``. Nothing is imported."""
    for name in _MODULES[flavour]:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        # A folder with nothing but type stubs (the package tensorrt-stubs) is a spec without an origin.
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        return Backend(flavour, name, _version_of(folder, name), folder)
    return None


def installed_flavours() -> tuple[Flavour, ...]:
    """The flavours that are installed. Nothing is imported."""
    return tuple(flavour for flavour in FLAVOURS if find_backend(flavour) is not None)


def _version_of(folder: Path, name: str) -> str:
    """The version written in the package or in its inner ``_bindings`` package."""
    for candidate in (folder / "__init__.py", folder.parent / f"{name}_bindings" / "__init__.py"):
        try:
            found = _VERSION.search(candidate.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found.group(1)
    return ""


def install_command(flavour: Flavour) -> str:
    """The command that installs the flavour on this machine."""
    if flavour == "tensorrt_rtx":
        return "pip install 'edgeformer[rtx]'"
    if _JETSON_MARK.exists():
        return "sudo apt-get install python3-libnvinfer"
    return "pip install 'edgeformer[tensorrt]'"


def missing_backend(flavour: Flavour, minimum: str, below: str) -> str:
    """What to say of a flavour that is not installed, or whose version is out of the range that is needed."""
    backend = find_backend(flavour)
    state = f"{backend.title} is installed in {backend.path}" if backend else f"{_TITLES[flavour]} is not installed"
    return f"{state}; {minimum} or newer, below {below}, is needed: {install_command(flavour)}"


def require_backend(flavour: Flavour, minimum: str | None = None, below: str | None = None) -> Backend:
    """The installed TensorRT of this flavour, in the range of versions; the range defaults to `BACKEND_RANGES`.

    Raises:
        EnvironmentFault: it is missing, or its version is out of the range; the message has the command to install it.
    """
    default = BACKEND_RANGES[flavour]
    minimum, below = minimum or default[0], below or default[1]
    backend = find_backend(flavour)
    if backend is None or not backend.within(minimum, below):
        raise EnvironmentFault("EF605", missing_backend(flavour, minimum, below))
    return backend


def import_backend(backend: Backend) -> ModuleType:
    """Import TensorRT, which loads its libraries (some hundred MB) into this process.

    Raises:
        EnvironmentFault: the package is installed and cannot be imported; the message holds the reason.
    """
    try:
        return importlib.import_module(backend.module)
    except (ImportError, OSError, FileNotFoundError) as error:
        raise EnvironmentFault(
            "EF606",
            f"{backend.title} is installed in {backend.path} and cannot be imported by {sys.executable}: {error}. "
            f"Reinstall it: {install_command(backend.flavour)}",
        ) from error
