"""Polygraphy reports by exception here, never by printing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

__all__ = ["quiet_polygraphy"]


def quiet_polygraphy() -> AbstractContextManager[Any]:
    """Within it Polygraphy prints nothing; what it finds wrong it still raises as PolygraphyException."""
    from polygraphy.logger import G_LOGGER

    manager: AbstractContextManager[Any] = G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1)
    return manager
