"""What a bundle brings for the machine that finishes it: the plugin library, the runtime library, edgeformer's part."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeformer.bundle.files import DEVICE_PART, FINISH
from edgeformer.engine.targets import Target
from edgeformer.machine.plugin_library import PluginLibrary, find_device_library
from edgeformer.ops.library_files import RUNTIME, library_for
from edgeformer.pipeline.cross_build import can_cross_compile, cross_command, cross_compile
from edgeformer.pipeline.device_part import FETCH_COMMAND, device_packages, write_device_part, write_finish_script
from edgeformer.pipeline.runner import Runner
from edgeformer.pipeline.stages._library import add_library

__all__ = ["add_device_files"]


def add_device_files(
    runner: Runner, target: Target, stage: str, *, use_plugin: bool, cross_compiling: bool
) -> tuple[PluginLibrary | None, tuple[str, ...]]:
    """Put all that there is for the device into the bundle.

    Args:
        runner: of the bundle.
        target: the device.
        stage: the stage that this is part of, for progress.
        use_plugin: whether the engine needs the plugin library.
        cross_compiling: compile the libraries that are not there, where all that it takes is.

    Returns:
        The plugin library, where there is one and it is needed; and what is missing, each with the command that makes
        or gets it.
    """
    library, runtime = _libraries(target, use_plugin)
    failed = ""
    lacking = runtime is None or (use_plugin and library is None)
    if lacking and cross_compiling and can_cross_compile(target):
        runner.progress(stage)(f"compiling the libraries for {target.cpu}, which takes minutes", 0, None)
        failed = cross_compile(target)
        library, runtime = _libraries(target, use_plugin)
    missing = []
    how = f"{cross_command(target)}, then build the bundle again" + (f" (it failed here: {failed})" if failed else "")
    add_library(runner, library, target.flavour)
    if library is None and use_plugin:
        missing.append(f"the plugin library for SM {target.sm}: {how}")
    if runtime is None:
        missing.append(f"the runtime library for {target.cpu}: {how}")
    else:
        shutil.copyfile(runtime, runner.path(RUNTIME.name))
    packages = device_packages(target.cpu)
    if not packages:
        missing.append(f"the Python packages for {target.cpu}: {FETCH_COMMAND} --cpu {target.cpu}")
    write_device_part(runner.path(DEVICE_PART), packages)
    write_finish_script(runner.path(FINISH))
    return library, tuple(missing)


def _libraries(target: Target, use_plugin: bool) -> tuple[PluginLibrary | None, Path | None]:
    library = find_device_library(target.cpu, target.sm) if use_plugin else None
    return library, library_for(target.cpu, RUNTIME)
