"""The plugin library: which of those on this machine is used, and what it was built for."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from edgeformer.bundle.files import FileName
from edgeformer.errors import EnvironmentFault
from edgeformer.machine.backends import Flavour, version_tuple
from edgeformer.ops.library_files import (
    BUILD_COMMAND,
    ENVIRONMENT_VARIABLE,
    LIBRARY_NAME,
    candidate_paths,
    metadata_of,
    searched_places,
)

__all__ = [
    "PluginLibrary",
    "PluginMetadata",
    "find_device_library",
    "find_plugin_library",
    "missing_plugin_library",
    "read_plugin_library",
    "require_plugin_library",
    "take_plugin_errors",
]


class PluginMetadata(BaseModel):
    """What CMake wrote beside the library.

    Attributes:
        version: edgeformer's version.
        tensorrt_headers: version of the TensorRT headers it was compiled with.
        cuda: version of the CUDA toolkit.
        cpu: processor it runs on, as ``platform.machine()`` names it.
        architectures: compute capabilities times ten that it holds machine code for.
        ptx: compute capabilities times ten that it holds PTX for; the driver of any newer GPU compiles it.
        aux: file name of the library that gives TensorRT-RTX its unversioned name, beside this one; empty if none.
        registering: file names of the libraries that register the plugins as they are opened, beside this one, for
            hosts that only open a plugin library; for each flavour of TensorRT one per major version.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    tensorrt_headers: str
    cuda: str
    cpu: str
    architectures: tuple[int, ...]
    ptx: tuple[int, ...]
    aux: str | None = None
    registering: dict[Flavour, tuple[FileName, ...]] = {}

    @field_validator("architectures", mode="before")
    @classmethod
    def _sm_of_cmake_name(cls, value: Any) -> Any:
        """CMake writes ``"87"``, or ``"120a"`` for code that uses what SM 12.0 alone has."""
        if not isinstance(value, (list, tuple)):
            return value
        return tuple(int(re.sub(r"\D+$", "", str(name))) for name in value)

    @field_validator("ptx", mode="before")
    @classmethod
    def _portable_ptx(cls, value: Any) -> Any:
        """PTX with a letter, such as ``"120a"``, runs on no other GPU than its own."""
        if not isinstance(value, (list, tuple)):
            return value
        return tuple(int(name) for name in map(str, value) if name.isdigit())

    def kernels_for(self, sm: int) -> Literal["machine code", "PTX"] | None:
        """What a GPU of compute capability ``sm`` (times ten) gets; its driver compiles PTX at the first use."""
        if sm in self.architectures:
            return "machine code"
        return "PTX" if any(held <= sm for held in self.ptx) else None

    @property
    def kernels(self) -> str:
        """The kernels in words: ``SM 80, 87; PTX of 8.0 for later GPUs``."""
        machine_code = f"SM {', '.join(map(str, self.architectures))}" if self.architectures else "no SM"
        ptx = ", ".join(f"{sm // 10}.{sm % 10}" for sm in self.ptx)
        return f"{machine_code}; PTX of {ptx} for later GPUs" if ptx else machine_code


@dataclass(frozen=True)
class PluginLibrary:
    """A plugin library on disk.

    Attributes:
        path: the shared library.
        metadata: what it was built for.
    """

    path: Path
    metadata: PluginMetadata

    @property
    def aux_path(self) -> Path | None:
        """The library to load before TensorRT-RTX parses a plugin node, where there is one."""
        return self.path.with_name(self.metadata.aux) if self.metadata.aux else None

    def registering_paths(self, flavour: Flavour) -> tuple[Path, ...]:
        """The libraries for hosts that only open a plugin library: opening one registers the plugins with TensorRT.

        Args:
            flavour: the hosts' TensorRT.

        Returns:
            One for each major version of that TensorRT; none where the library was built without them.
        """
        return tuple(self.path.with_name(name) for name in self.metadata.registering.get(flavour, ()))

    def files(self, flavour: Flavour) -> tuple[Path, ...]:
        """The files that belong together in one folder, for one flavour of TensorRT.

        Returns:
            The library, its metadata, TensorRT-RTX's helper library, and the libraries for hosts.

        Raises:
            EnvironmentFault: one of them is missing.
        """
        aux = self.aux_path
        files = (
            self.path,
            metadata_of(self.path),
            *(() if aux is None else (aux,)),
            *self.registering_paths(flavour),
        )
        if missing := [file for file in files if not file.is_file()]:
            raise EnvironmentFault(
                "EF612",
                f"{', '.join(map(str, missing))}: named in {metadata_of(self.path)}, and not there: build it again: "
                f"{BUILD_COMMAND}",
            )
        return files

    def require_sm(self, sm: int) -> None:
        """Check that the library holds kernels for compute capability ``sm`` (times ten).

        Raises:
            EnvironmentFault: it does not; the message says which kernels it holds and how to build others.
        """
        if self.metadata.kernels_for(sm) is None:
            raise EnvironmentFault(
                "EF613",
                f"{self.path} has kernels for {self.metadata.kernels}, and the target needs SM {sm}: rebuild it with "
                f"{BUILD_COMMAND} and a CUDA toolkit that knows SM {sm} (or choose the architectures with "
                f"-DEDGEFORMER_CUDA_ARCHITECTURES={sm}); or build with --no-plugin",
            )


def read_plugin_library(path: Path) -> PluginLibrary:
    """The library at ``path`` with its metadata.

    Raises:
        EnvironmentFault: the library or its JSON file is missing or damaged.
    """
    metadata = metadata_of(path)
    rebuild = f"build it again: {BUILD_COMMAND}"
    if not path.is_file():
        raise EnvironmentFault("EF612", f"the plugin library {path} does not exist: {rebuild}")
    try:
        return PluginLibrary(path, PluginMetadata.model_validate_json(metadata.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(
            "EF612",
            f"{metadata}, which says what the plugin library was built for, cannot be read ({error}): {rebuild}",
        ) from error
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise EnvironmentFault("EF612", f"{metadata} is damaged ({lines}): {rebuild}") from error


def find_plugin_library() -> PluginLibrary | None:
    """The plugin library of this installation for this machine, or ``None`` where there is none.

    Raises:
        EnvironmentFault: one was found, or named in the environment, and cannot be used.
    """
    here = platform.machine()
    libraries = _libraries(here)
    if not libraries and os.environ.get(ENVIRONMENT_VARIABLE):
        library = read_plugin_library(candidate_paths()[0])
        raise EnvironmentFault(
            "EF613",
            f"{library.path}, named in ${ENVIRONMENT_VARIABLE}, is for {library.metadata.cpu}, and this machine is "
            f"{here}: name one for {here}, or unset the variable",
        )
    return libraries[0] if libraries else None


def find_device_library(cpu: str, sm: int) -> PluginLibrary | None:
    """The plugin library, perhaps a cross-compiled one, for a machine that is not this one.

    Args:
        cpu: its processor, as ``platform.machine()`` would name it there.
        sm: its compute capability times ten.

    Returns:
        Of several the one built with the oldest CUDA, because a driver supports no CUDA newer than itself; ``None``
        if there is none.

    Raises:
        EnvironmentFault: one was found, or named in the environment, and cannot be used.
    """
    serving = [library for library in _libraries(cpu) if library.metadata.kernels_for(sm)]
    return min(serving, key=lambda library: version_tuple(library.metadata.cuda), default=None)


def _libraries(cpu: str) -> list[PluginLibrary]:
    found = map(read_plugin_library, candidate_paths())
    return [library for library in found if library.metadata.cpu == cpu]


def missing_plugin_library() -> str:
    """What to say of an installation without the plugin library."""
    return (
        f"the plugin library {LIBRARY_NAME} is not installed ({searched_places()}). Build it where nvcc is: "
        f"{BUILD_COMMAND}; or name one in ${ENVIRONMENT_VARIABLE}; "
        "or build without it, from the op's ONNX body: --no-plugin"
    )


def require_plugin_library(sm: int) -> PluginLibrary:
    """The plugin library, with kernels for compute capability ``sm`` (times ten).

    Raises:
        EnvironmentFault: it is missing, damaged, or has no kernels for ``sm``.
    """
    library = find_plugin_library()
    if library is None:
        raise EnvironmentFault("EF610", missing_plugin_library())
    library.require_sm(sm)
    return library


def take_plugin_errors(path: Path) -> list[str]:
    """What the plugins of a loaded library reported since the last call; TensorRT only passes on that one failed."""
    take = getattr(ctypes.CDLL(str(path)), "edgeformerTakeErrors", None)
    if take is None:
        return []
    take.restype = ctypes.c_size_t
    take.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    buffer = ctypes.create_string_buffer(1 << 16)
    take(buffer, len(buffer))
    return buffer.value.decode(errors="replace").splitlines()
