"""Which weights and biases of a block make which channels of its queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeformer.graph.fusion.geometry import RejectedError
from edgeformer.graph.fusion.projection import Route
from edgeformer.graph.fusion.stacking import Columns

__all__ = ["Wiring"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Wiring:
    """What the channels of qkv are made of.

    Weights are counted by columns, all of the block's side by side, and biases by entries; what two Linears share is
    there once.

    Attributes:
        columns: ``[channels]``, for each channel of qkv the column of a weight that makes it, or the channel of the
            image that it is.
        width: number of columns, or of the image's channels.
        biases: ``[terms, channels]``, the entries of biases that are added to each channel, -1 for none.
        entries: number of entries of all biases.
        linear: whether the block contains the projection.
        weights: where each weight has its columns, ``(start, stop)`` by name.
        offsets: where each bias has its entries, likewise.
    """

    columns: Indices
    width: int
    biases: Indices
    entries: int
    linear: bool
    weights: Mapping[str, tuple[int, int]]
    offsets: Mapping[str, tuple[int, int]]

    @classmethod
    def plain(cls, channels: int, *, linear: bool, bias: bool) -> Wiring:
        """All ``channels`` in the order in which one Linear makes them, or the image has them."""
        every = np.arange(channels)
        return cls(every, channels, np.tile(every, (1 if bias else 0, 1)), channels if bias else 0, linear, {}, {})

    @classmethod
    def of(
        cls,
        route: Route,
        widths: Sequence[int],
        columns: Columns | None,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Wiring:
        """That of a route.

        Args:
            route: the route.
            widths: output channels of each of its branches.
            columns: which of these channels are q, k and v; None for all in their order.
            shapes: shapes of its links' operands.

        Raises:
            RejectedError: a tensor that is added is no bias, or two Linears read one weight differently.
        """
        weights, offsets = _Places(), _Places()
        of_channel: list[Indices] = []
        terms: list[list[Indices]] = []
        for branch, width in zip(route.branches, widths, strict=True):
            terms.append([])
            made = np.arange(width)
            for link in branch:
                biases = link.operands
                if link.linear:
                    made = weights.of(link.operands[0], width, f"{link.kind}, transposed={link.transposed}")
                    biases = link.operands[1:]
                for name in biases:
                    if math.prod(shapes[name]) != width:
                        raise RejectedError(f"{name} with shape {shapes[name]} is not a bias of {width} channels", 4)
                    terms[-1].append(offsets.of(name, width, "bias"))
            of_channel.append(made)
        stacked = np.concatenate(of_channel)
        added = [
            np.concatenate(
                [one[step] if step < len(one) else np.full(width, -1) for one, width in zip(terms, widths, strict=True)]
            )
            for step in range(max(map(len, terms)))
        ]
        indices = np.arange(len(stacked)) if columns is None else np.array(columns.indices)
        return cls(
            stacked[indices],
            weights.total if route.linears else len(stacked),
            np.array([one[indices] for one in added], np.int64).reshape(len(added), len(indices)),
            offsets.total,
            bool(route.linears),
            weights.ranges,
            offsets.ranges,
        )


class _Places:
    """Gives every name a range of its own, the same one when it comes again."""

    def __init__(self) -> None:
        self.ranges: dict[str, tuple[int, int]] = {}
        self.total = 0
        self._kinds: dict[str, tuple[int, str]] = {}

    def of(self, name: str, size: int, kind: str) -> Indices:
        if self._kinds.setdefault(name, (size, kind)) != (size, kind):
            raise RejectedError(f"{name} is used in two ways: as the weight of different projections", 4)
        if name not in self.ranges:
            self.ranges[name] = (self.total, self.total + size)
            self.total += size
        return np.arange(*self.ranges[name])
