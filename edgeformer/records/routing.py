"""Where a few regions of one image look: what a report draws over the image."""

from __future__ import annotations

from pydantic import Field

from edgeformer.records.base import Record

__all__ = ["RoutedBlock", "RoutedQuery", "RoutingPicture"]


class RoutedQuery(Record):
    """The regions that one region attends to. Regions are counted row by row from the upper left, from 0.

    Attributes:
        region: the region that asks.
        reference: those that it attends to in the exported graph, ascending.
        typed: the same in the typed graph.
    """

    region: int = Field(ge=0)
    reference: tuple[int, ...]
    typed: tuple[int, ...]


class RoutedBlock(Record):
    """Some of the regions of one block.

    Attributes:
        stage: number of its stage, from 0; None where the graph does not tell.
        block: number of the block in its stage, or of the decision in the graph where ``stage`` is None.
        side: regions along each side of the image.
        changed: how many of all ``side * side`` regions attend to others in the typed graph.
        queries: the regions that are shown.
    """

    stage: int | None
    block: int
    side: int = Field(ge=1)
    changed: int = Field(ge=0)
    queries: tuple[RoutedQuery, ...]


class RoutingPicture(Record):
    """Where regions of one of the images that ``parity.npz`` records look.

    Attributes:
        sample: position of the image among the recorded inputs, from 0.
        blocks: of each stage the block whose routing changes most on it.
    """

    sample: int = Field(ge=0)
    blocks: tuple[RoutedBlock, ...]
