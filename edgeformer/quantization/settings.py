"""How one model is quantized, as values that can be tried and compared: what is moved, scaled, rounded, corrected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.protos import attribute
from edgeformer.graph.qdq import QMAX, LayerSite, QuantizedWeight, dequantize, min_max_weight, representable_scale

__all__ = ["IDENTITY", "Settings", "Sites", "Transform"]

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Transform:
    """What an activation goes through in front of its Q/DQ pair, undone in the layers that read it.

    Layers read ``x * scale + offset``, channel by channel; their weights are divided by ``scale`` and their biases
    take the offset back, so that nothing changes in exact arithmetic.

    Attributes:
        scale: positive, ``[channels]`` or ``[1]``.
        offset: the same.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    @property
    def moves(self) -> bool:
        """Whether it changes anything."""
        return self.scale != (1.0,) or self.offset != (0.0,)

    @cached_property
    def scales(self) -> _Float64:
        """``scale`` as an array."""
        return np.asarray(self.scale, dtype=np.float64)

    @cached_property
    def offsets(self) -> _Float64:
        """``offset`` as an array."""
        return np.asarray(self.offset, dtype=np.float64)


IDENTITY = Transform()


@dataclass(frozen=True)
class Settings:
    """How a model is quantized.

    Attributes:
        layers: outputs of the layers that are INT8.
        ranges: activation behind its transform -> amax, the magnitude that becomes 127.
        transforms: activation -> what it goes through; those that are not here stay as they are.
        weights: layer output -> its INT8 weight, of the transformed layer; others are rounded to the nearest.
        biases: layer output -> what is added to its output channels, ``[channels]``.
        attention: whether the attention op is INT8.
    """

    layers: frozenset[str]
    ranges: Mapping[str, float]
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    biases: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    attention: bool = False

    def without(self, outputs: Iterable[str]) -> Settings:
        """The same with some layers in float."""
        return replace(self, layers=self.layers.difference(outputs))

    def with_transform(self, tensor: str, transform: Transform, amax: float, readers: Iterable[str]) -> Settings:
        """The same with an activation that goes through something else; what was made for the older is dropped."""
        readers = set(readers)
        return replace(
            self,
            ranges={**self.ranges, tensor: amax},
            transforms={**self.transforms, tensor: transform},
            weights={name: weight for name, weight in self.weights.items() if name not in readers},
        )


class Sites:
    """The layers of a float model that can be INT8, their activations and their weights.

    Args:
        index: of the model.
        sites: the layers.
        scale_bits: significant bits that a scale has at most.
    """

    def __init__(self, index: GraphIndex, sites: Iterable[LayerSite], scale_bits: int) -> None:
        self.index = index
        self.sites = tuple(sites)
        self.scale_bits = scale_bits
        self.of_output = {site.output: site for site in self.sites}
        self.readers: dict[str, list[LayerSite]] = {}
        for site in self.sites:
            self.readers.setdefault(site.activation, []).append(site)

    def convolution(self, site: LayerSite) -> bool:
        """Whether the layer is a convolution: its channels are at axis 1, those of a Linear at the last."""
        return bool(self.index.producer[site.output].op_type == "Conv")

    def alpha(self, site: LayerSite) -> float:
        """The factor that a Gemm multiplies its product with; 1 for other layers."""
        return float(attribute(self.index.producer[site.output], "alpha", 1.0))

    def rows(self, site: LayerSite) -> _Float64:
        """The layer's weight as ``[inputs, outputs]``, float64: a convolution's inputs are channel, row, column."""
        return self.as_rows(site, self.weight(site))

    def as_rows(self, site: LayerSite, weight: npt.NDArray[Any]) -> _Float64:
        """A weight of the layer's shape as ``[inputs, outputs]``, float64."""
        wide = weight.astype(np.float64)
        if self.convolution(site):
            return np.asarray(wide.reshape(len(wide), -1).T)
        return np.asarray(wide if site.axis == 1 else wide.T)

    def from_rows(self, site: LayerSite, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inverse of `as_rows`, of the type of ``rows``."""
        if self.convolution(site):
            return np.ascontiguousarray(rows.T).reshape(self.weight(site).shape)
        return np.ascontiguousarray(rows if site.axis == 1 else rows.T)

    def weight(self, site: LayerSite) -> npt.NDArray[Any]:
        """The layer's weight."""
        weight = self.index.array(site.weight)
        assert weight is not None
        return weight

    def transformed(self, site: LayerSite, transform: Transform) -> tuple[npt.NDArray[np.float32], _Float64]:
        """The layer's weight behind a transform of its activation, and ``[channels]`` to be added to its bias."""
        rows = self.rows(site)
        if not transform.moves:
            return self.weight(site).astype(np.float32), np.zeros(rows.shape[1])
        scale, offset = self.by_row(site, transform)
        moved = rows / scale[:, None]
        return self.from_rows(site, moved.astype(np.float32)), -self.alpha(site) * (offset @ moved)

    def quantized(self, site: LayerSite, settings: Settings) -> QuantizedWeight:
        """The layer's INT8 weight."""
        given = settings.weights.get(site.output)
        if given is not None:
            return given
        weight, _ = self.transformed(site, settings.transforms.get(site.activation, IDENTITY))
        return min_max_weight(weight, site.axis, self.scale_bits)

    def restored(self, site: LayerSite, settings: Settings) -> npt.NDArray[np.float32]:
        """What the layer's INT8 weight stands for."""
        return dequantize(self.quantized(site, settings), site.axis)

    def step(self, amax: float) -> np.float32:
        """The scale of an activation of this range."""
        return np.float32(float(representable_scale(amax / QMAX, self.scale_bits)))  # type: ignore[no-any-return]

    def by_row(self, site: LayerSite, transform: Transform) -> tuple[_Float64, _Float64]:
        """A transform's scales and offsets for each row of the layer's weight (`rows`)."""
        shape = self.weight(site).shape
        taps = math.prod(shape[2:]) if self.convolution(site) else 1
        channels = shape[1] if self.convolution(site) else shape[1 - site.axis]
        scale, offset = (np.broadcast_to(values, (channels,)) for values in (transform.scales, transform.offsets))
        return scale.repeat(taps), offset.repeat(taps)
