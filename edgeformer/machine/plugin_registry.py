"""How TensorRT gets the plugin library, to build an engine or to run one."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from edgeformer.errors import EnvironmentFault
from edgeformer.machine.backends import Flavour
from edgeformer.ops.library_files import BUILD_COMMAND, RTX_ALIAS_NAME
from edgeformer.ops.op_name import OP_TYPE, OP_VERSION

__all__ = ["load_plugin_library"]


def load_plugin_library(registry: Any, library: Path, *, flavour: Flavour, rtx_alias: Path | None) -> None:
    """Make the plugin known to a plugin registry; afterwards TensorRT finds the op by its name.

    Args:
        registry: ``get_plugin_registry()`` of a builder, of a runtime or of the module. One that already knows the op's
            plugin is left as it is.
        library: the plugin library. It runs code as it is opened: which file that may be is settled before
            (`edgeformer.machine.engine_code`).
        flavour: the TensorRT that the registry belongs to.
        rtx_alias: TensorRT-RTX's helper library; None takes the one that the dynamic linker finds.

    Raises:
        EnvironmentFault: a library cannot be loaded, or has no plugin for the op; the message holds the loader's
            reason.
    """
    if flavour == "tensorrt_rtx":
        _load_rtx_alias(rtx_alias)
    if _knows_op(registry):
        return
    try:
        # Done first for the message: the registry only says that it failed.
        ctypes.CDLL(str(library), mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        raise EnvironmentFault("EF611", f"the plugin library {library} cannot be loaded: {error}") from error
    registry.load_library(str(library))
    if not _knows_op(registry):
        raise EnvironmentFault(
            "EF612",
            f"{library}: TensorRT finds no plugin {OP_TYPE} in it: build it again with {BUILD_COMMAND}",
        )


def _knows_op(registry: Any) -> bool:
    # A registry logs errors when asked for a creator that it does not have; so its list is read.
    names = ("name", "plugin_version", "plugin_namespace")
    known = (tuple(getattr(creator, name, None) for name in names) for creator in registry.all_creators_recursive)
    return (OP_TYPE, str(OP_VERSION), "") in known


def _load_rtx_alias(alias: Path | None) -> None:
    # On a plugin node the parser of TensorRT-RTX opens a library by a name that its wheel does not ship, and ends the
    # process when that fails. A library already loaded under that SONAME answers it.
    name = RTX_ALIAS_NAME if alias is None else str(alias)
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise EnvironmentFault(
            "EF611",
            f"TensorRT-RTX needs a library named {RTX_ALIAS_NAME} for plugins, and {name} cannot be loaded: {error}. "
            f"Building the plugin library again makes it: {BUILD_COMMAND}",
        ) from error
