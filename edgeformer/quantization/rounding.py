"""Rounding weights by what it does to a layer's output, not to the weights: GPTQ, and scales with the least error.

A layer's output error is ``e = x @ (W' - W)`` and its mean square ``tr((W' - W)^T H (W' - W))`` with ``H`` the second
moments of what the layer reads. GPTQ (Frantar et al., arXiv 2210.17323) rounds one input's weights after the other and
moves what rounding did to the output onto the weights that are still to be rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.graph.protos import attribute
from edgeformer.graph.qdq import QMAX, LayerSite, QuantizedWeight, quantize_array, representable_scale
from edgeformer.quantization.observation import fitting
from edgeformer.quantization.settings import IDENTITY, Settings, Sites
from edgeformer.quantization.streaming import TensorStream

__all__ = ["gptq", "least_error_scales", "moments", "rounded_weight"]

_Float64 = npt.NDArray[np.float64]
# Rows of what a layer reads that its second moments are taken from.
_ROWS = 8192
# Share of the mean of H's diagonal that is added to it.
_DAMPING = 0.01
# Inputs that are rounded before what they did is moved on to those behind.
_BLOCK = 64
# Shares of the largest weight of a channel that are tried for its scale.
_SHARES = np.linspace(0.7, 1.0, 31)


def moments(
    sites: Sites, settings: Settings, images: Iterable[npt.NDArray[np.float32]], count: int
) -> dict[str, _Float64]:
    """Second moments of what each INT8 layer reads, about the mean: what the mean makes of an error is for its bias.

    They are of rows that are evenly spread over images and positions; the float model makes them, and they are rounded
    as the settings round them.

    Args:
        sites: the layers; grouped convolutions are left out.
        settings: how the model is quantized.
        images: batches.
        count: images in all batches together.

    Returns:
        Layer output -> ``[inputs, inputs]``; a convolution's inputs are channel, row, column.
    """
    wanted = [
        site
        for site in sites.sites
        if site.output in settings.layers and attribute(sites.index.producer[site.output], "group", 1) == 1
    ]
    tensors = list(dict.fromkeys(site.activation for site in wanted))
    stream = TensorStream(sites.index.model, tensors)
    random = np.random.default_rng(0)
    found = {site.output: _Moments() for site in wanted}
    for batch in images:
        size = fitting(sites.index, tensors, len(batch))
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            values = stream.run(part)
            for site in wanted:
                rows = max(1, _ROWS * len(part) // max(count, 1))
                found[site.output].add(
                    _read(sites, site, settings, _rows(sites, site, values[site.activation][: len(part)], rows, random))
                )
    return {name: seen.about_mean() for name, seen in found.items() if seen.count}


class _Moments:
    """Sums up rows and their products."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Any = 0.0
        self._products: Any = 0.0

    def add(self, rows: _Float64) -> None:
        self.count += len(rows)
        self._sum = self._sum + rows.sum(axis=0)
        self._products = self._products + rows.T @ rows

    def about_mean(self) -> _Float64:
        mean = self._sum / self.count
        return np.asarray(self._products / self.count - np.outer(mean, mean))


def _read(sites: Sites, site: LayerSite, settings: Settings, rows: npt.NDArray[np.float32]) -> _Float64:
    """What the layer reads of such rows: behind the transform, rounded."""
    scale, offset = sites.by_row(site, settings.transforms.get(site.activation, IDENTITY))
    step = float(sites.step(settings.ranges[site.activation]))
    moved = rows.astype(np.float64) * scale + offset
    return np.asarray(np.clip(np.rint(moved / step), -QMAX - 1, QMAX) * step)


def _rows(
    sites: Sites, site: LayerSite, values: npt.NDArray[Any], rows: int, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    if not sites.convolution(site):
        flat = values.reshape(-1, values.shape[-1])
        chosen = random.choice(len(flat), min(rows, len(flat)), replace=False)
        return np.asarray(flat[chosen], dtype=np.float32)
    node = sites.index.producer[site.output]
    kernel = sites.weight(site).shape[2:]
    pads = attribute(node, "pads", [0] * (2 * len(kernel)))
    strides = attribute(node, "strides", [1] * len(kernel))
    dilations = attribute(node, "dilations", [1] * len(kernel))
    edges = list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    padded = np.pad(values, [(0, 0), (0, 0), *edges])
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    places = [(size - span) // stride + 1 for size, span, stride in zip(padded.shape[2:], reach, strides, strict=True)]
    total = len(values) * int(np.prod(places))
    chosen = random.choice(total, min(rows, total), replace=False)
    image, *position = np.unravel_index(chosen, (len(values), *places))
    taps = np.stack(np.meshgrid(*(np.arange(size) for size in kernel), indexing="ij"), -1).reshape(-1, len(kernel))
    parts = []
    for tap in taps:
        at = (p * s + t * d for p, s, t, d in zip(position, strides, tap, dilations, strict=True))
        parts.append(padded[tuple(chain((image, slice(None)), at))])
    # [rows, channels, taps], as a weight's rows are ordered.
    return np.stack(parts, axis=-1).reshape(len(chosen), -1).astype(np.float32)


def rounded_weight(
    sites: Sites, site: LayerSite, settings: Settings, seen: _Float64, *, scales: str
) -> QuantizedWeight:
    """The layer's weight, rounded by GPTQ for its activation in INT8.

    Args:
        sites: the layers.
        site: the layer.
        settings: its activation's transform.
        seen: of what it reads (`moments`).
        scales: "min_max" or "mse".
    """
    weight, _ = sites.transformed(site, settings.transforms.get(site.activation, IDENTITY))
    matrix = sites.as_rows(site, weight)
    steps = (
        representable_scale(np.abs(matrix).max(axis=0) / QMAX, sites.scale_bits)
        if scales == "min_max"
        else least_error_scales(matrix, sites.scale_bits)
    )
    values = gptq(matrix, seen, steps.astype(np.float64))
    return QuantizedWeight(np.asarray(sites.from_rows(site, values), dtype=np.int8), steps)


def gptq(matrix: _Float64, moments: _Float64, scales: _Float64) -> npt.NDArray[np.int8]:
    """A weight ``[inputs, outputs]`` in INT8.

    Args:
        matrix: the weight.
        moments: ``[inputs, inputs]``, second moments of what it is multiplied with.
        scales: ``[outputs]``.
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    damping = _DAMPING * float(np.trace(moments)) / len(moments)
    if not damping > 0:
        return quantize_array(matrix, scales.astype(np.float32), axis=1)
    moments = moments[np.ix_(order, order)] + damping * np.eye(len(moments))
    # Upper triangular, H^-1 = U^T U.
    upper = np.linalg.cholesky(np.linalg.inv(moments)).T
    rest = matrix[order].copy()
    values = np.zeros(rest.shape, dtype=np.int8)
    for start in range(0, len(rest), _BLOCK):
        stop = min(start + _BLOCK, len(rest))
        errors = np.zeros((stop - start, rest.shape[1]))
        for row in range(start, stop):
            values[row] = np.clip(np.rint(rest[row] / scales), -QMAX, QMAX)
            errors[row - start] = (rest[row] - values[row] * scales) / upper[row, row]
            rest[row + 1 : stop] -= np.outer(upper[row, row + 1 : stop], errors[row - start])
        rest[stop:] -= upper[start:stop, stop:].T @ errors
    return values[np.argsort(order)]


def least_error_scales(matrix: _Float64, significant_bits: int) -> npt.NDArray[np.float32]:
    """For each column the scale with which rounding to INT8 changes it least, by mean square.

    Args:
        matrix: ``[inputs, outputs]``.
        significant_bits: of the scales.
    """
    largest = np.abs(matrix).max(axis=0)
    best = representable_scale(largest / QMAX, significant_bits)
    least = np.full(len(best), np.inf)
    for share in _SHARES[::-1]:
        scales = representable_scale(share * largest / QMAX, significant_bits)
        wide = scales.astype(np.float64)
        error = ((matrix - np.clip(np.rint(matrix / wide), -QMAX, QMAX) * wide) ** 2).sum(axis=0)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best.astype(np.float32)
