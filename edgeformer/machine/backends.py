"""The two TensorRT flavours behind one interface: what is installed, and whether its version fits.

``tensorrt`` (10.3 to 11.x; Jetson and data centre) and ``tensorrt_rtx`` (RTX GPUs; builds without a GPU) share one
Python API. Finding them reads files only; importing one happens in `import_backend`, never before, and in the child
process of `probe_backend`.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from edgeformer.errors import EnvironmentFault
from edgeformer.machine.jetpack import find_release, lowest_tensorrt
from edgeformer.records.terms import FLAVOURS, Flavour

__all__ = [
    "BACKEND_RANGES",
    "FLAVOURS",
    "Backend",
    "Flavour",
    "ImportedBackend",
    "find_backend",
    "import_backend",
    "install_command",
    "installed_flavours",
    "missing_backend",
    "probe_backend",
    "require_backend",
    "version_tuple",
]

# Lowest version that works and the first that is not known to. TensorRT begins with the oldest JetPack. TensorRT-RTX
# takes plugins from the parser from 1.7 on: 1.4 and 1.6 build the same graph without, and have the same parser flags.
BACKEND_RANGES: dict[Flavour, tuple[str, str]] = {"tensorrt": (lowest_tensorrt(), "12"), "tensorrt_rtx": ("1.7", "2")}
# Where only the two inner wheels are installed, the module has another name.
_MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_VERSION = re.compile(r"""^__version__\s*=\s*["']([0-9.]+)""", re.MULTILINE)
_TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
# The names that pip knows the packages by, the one that users install first.
_PACKAGES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings"),
}
_LIBRARIES: dict[Flavour, re.Pattern[str]] = {
    "tensorrt": re.compile(r" (/.*/libnvinfer\.so\.[\d.]+)$", re.MULTILINE),
    "tensorrt_rtx": re.compile(r" (/.*/libtensorrt_rtx\.so\.[\d.]+)$", re.MULTILINE),
}
_MAPPED_FILES = Path("/proc/self/maps")
# Importing reads some hundred MB, which takes a cold SD card a while.
_PROBE_SECONDS = 180
_PROBE = "import sys; from edgeformer.machine.backends import _report_import; _report_import(*sys.argv[1:])"


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
        path: the folder that the version was read in: the module's, or that of the bindings it takes its names from.
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
        folder = _folder_of(name)
        if folder is not None:
            return Backend(flavour, name, *_version_of(folder, name))
    return None


def _folder_of(module: str) -> Path | None:
    """The folder that Python would import a package from."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    # A folder with nothing but type stubs (the package tensorrt-stubs) is a spec without an origin.
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def installed_flavours() -> tuple[Flavour, ...]:
    """The flavours that are installed. Nothing is imported."""
    return tuple(flavour for flavour in FLAVOURS if find_backend(flavour) is not None)


def _version_of(folder: Path, name: str) -> tuple[str, Path]:
    """The version written in the package, or in the package ``_bindings`` that it takes its names from, and where.

    The two need not lie side by side: each comes from where it stands first on Python's path.
    """
    for candidate in (folder, _folder_of(f"{name}_bindings")):
        if candidate is None:
            continue
        try:
            found = _VERSION.search((candidate / "__init__.py").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found.group(1), candidate
    return "", folder


def install_command(flavour: Flavour) -> str:
    """The command that installs the flavour on this machine."""
    if flavour == "tensorrt_rtx":
        return "pip install 'edgeformer[rtx]'"
    if find_release() is not None:
        return "sudo apt-get install python3-libnvinfer"
    return "pip install 'edgeformer[tensorrt]'"


def missing_backend(flavour: Flavour, minimum: str, below: str) -> str:
    """What to say of a flavour that is not installed, or whose version is out of the range that is needed."""
    backend = find_backend(flavour)
    state = f"{_TITLES[flavour]} is not installed"
    if backend is not None:
        state = f"{backend.title} is installed in {backend.path}"
        package = _package_version(flavour)
        if package and version_tuple(package)[:3] != version_tuple(backend.version)[:3]:
            state += f", which Python finds before the installed package {package}: take that folder off its path"
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


@dataclass(frozen=True)
class ImportedBackend:
    """A TensorRT as Python imports it, which need not be the one that its files or the package's metadata name.

    Attributes:
        flavour: which of the two it is.
        module: version that the module has.
        library: version that the loaded library has; empty if it does not say.
        package: version that the installed package has; empty if it was not installed as one.
        path: the module's folder.
    """

    flavour: Flavour
    module: str
    library: str
    package: str
    path: str

    @classmethod
    def of(cls, flavour: Flavour, module: ModuleType) -> ImportedBackend:
        """What a module is that was imported in this process."""
        file = getattr(module, "__file__", None)
        path = str(Path(file).parent) if file else ""
        version = str(getattr(module, "__version__", ""))
        return cls(flavour, version, _library_version(flavour), _package_version(flavour), path)

    @property
    def version(self) -> str:
        """The version that works when an engine is built or run: the library's."""
        return self.library or self.module

    @property
    def difference(self) -> str:
        """Which of the versions differ, in words; empty if all say the same."""
        known = {"the library that it loads": self.library, "the installed package": self.package}
        others = [
            f"{name} is {version}"
            for name, version in known.items()
            if version and version_tuple(version)[:3] != version_tuple(self.module)[:3]
        ]
        return f"the module imported from {self.path} is {self.module}, {' and '.join(others)}" if others else ""

    def require(self, minimum: str, below: str) -> None:
        """Check that what is imported is at least ``minimum`` and less than ``below``.

        Raises:
            EnvironmentFault: it is not; the message has both versions where they differ, and the way out.
        """
        lowest, end = version_tuple(minimum), version_tuple(below)
        if all(lowest <= version_tuple(version) < end for version in (self.module, self.library) if version):
            return
        difference = f" ({self.difference})" if self.difference else ""
        raise EnvironmentFault(
            "EF830",
            f"{_TITLES[self.flavour]} {self.version} is what {sys.executable} imports from {self.path}{difference}; "
            f"{minimum} or newer, below {below}, is needed: take that folder off PYTHONPATH, or "
            f"{install_command(self.flavour)}",
        )


def probe_backend(backend: Backend) -> ImportedBackend:
    """Import TensorRT in a child process, so that this one stays as it is, and say what was imported.

    Raises:
        EnvironmentFault: it cannot be imported; the message holds the reason.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE, backend.flavour, backend.module],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_importable(backend, f"it takes longer than {_PROBE_SECONDS} s") from error
    if child.returncode != 0:
        lines = [line for line in child.stderr.splitlines() if line.strip()]
        raise _not_importable(backend, lines[-1].strip() if lines else f"its process ended with {child.returncode}")
    # Libraries may print while they load; the report is the last line.
    return ImportedBackend(**json.loads(child.stdout.splitlines()[-1]))


def _report_import(flavour: Flavour, module: str) -> None:
    """What the child of `probe_backend` does."""
    print("\n" + json.dumps(asdict(ImportedBackend.of(flavour, importlib.import_module(module)))))


def _library_version(flavour: Flavour) -> str:
    """The version that the TensorRT library in this process reports; empty if there is none, or it does not say."""
    try:
        found = _LIBRARIES[flavour].search(_MAPPED_FILES.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    if found is None:
        return ""
    library = ctypes.CDLL(found.group(1))
    parts = [getattr(library, f"getInferLib{part}Version", None) for part in ("Major", "Minor", "Patch", "Build")]
    numbers = [part() for part in parts if part is not None]
    if len(numbers) == len(parts):
        return ".".join(map(str, numbers))
    whole = getattr(library, "getInferLibVersion", None)
    if whole is None:
        return ""
    # 10.3.0 is 100300; up to 9.x the minor version had one digit less: 8.6.1 is 8601.
    number, step = whole(), 100
    major = number // 10000
    if number < 10000:
        major, step = number // 1000, 10
    return f"{major}.{number // 100 % step}.{number % 100}"


def _package_version(flavour: Flavour) -> str:
    for name in _PACKAGES[flavour]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def import_backend(backend: Backend) -> ModuleType:
    """Import TensorRT, which loads its libraries (some hundred MB) into this process.

    Raises:
        EnvironmentFault: the package is installed and cannot be imported, or what is imported is a version that does
            not work; the message holds the reason.
    """
    try:
        module = importlib.import_module(backend.module)
    except (ImportError, OSError) as error:
        raise _not_importable(backend, str(error)) from error
    ImportedBackend.of(backend.flavour, module).require(*BACKEND_RANGES[backend.flavour])
    return module


def _not_importable(backend: Backend, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        "EF606",
        f"{backend.title} is installed in {backend.path} and cannot be imported by {sys.executable}: {reason}. "
        f"Reinstall it: {install_command(backend.flavour)}",
    )
