"""The plugin library in a bundle."""

from __future__ import annotations

import shutil

from edgeformer.machine.plugin_library import PluginLibrary
from edgeformer.pipeline.runner import Runner
from edgeformer.records.terms import Flavour

__all__ = ["add_library"]


def add_library(runner: Runner, library: PluginLibrary | None, flavour: Flavour) -> None:
    """Put the plugin library that the engine needs into the bundle, with what hosts of that TensorRT open."""
    if library is None:
        return
    for file in library.files(flavour):
        shutil.copyfile(file, runner.path(file.name))
