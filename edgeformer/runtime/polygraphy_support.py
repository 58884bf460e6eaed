"""Polygraphy as it is used here: silent, and with the TensorRT that an engine needs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

from edgeformer.machine.backends import Flavour

__all__ = ["quiet_polygraphy", "use_flavour"]


def quiet_polygraphy() -> AbstractContextManager[Any]:
    """Within it Polygraphy prints nothing; what it finds wrong it still raises as PolygraphyException."""
    from polygraphy.logger import G_LOGGER

    manager: AbstractContextManager[Any] = G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1)
    return manager


def use_flavour(flavour: Flavour) -> None:
    """Make Polygraphy use this TensorRT.

    Each of its modules chooses between ``tensorrt`` and ``tensorrt_rtx`` as it is imported, by a switch that comes too
    late for those that are imported already: these get their choice anew.
    """
    from polygraphy import config

    config.USE_TENSORRT_RTX = flavour == "tensorrt_rtx"
    from polygraphy.mod.trt_importer import lazy_import_trt

    for name, module in list(sys.modules.items()):
        # In polygraphy.backend the name stands for the sub-package.
        if name.startswith("polygraphy.") and name != "polygraphy.backend" and "trt" in vars(module):
            vars(module)["trt"] = lazy_import_trt()
