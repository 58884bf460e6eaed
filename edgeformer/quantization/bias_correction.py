"""Bias correction: the mean error that INT8 makes in each output channel, measured, and taken back in the biases.

Rounding is not pure noise: a background of one value is always rounded the same way, and a weight's rounding error
times a mean activation is a constant. Both move a layer's output by an amount that its bias can take back (Nagel et
al., arXiv 1906.04721, section 4.2).

A Linear's mean error follows from two means of what it reads: with ``x'`` and ``W'`` for what INT8 makes of ``x`` and
``W``, ``mean(x' @ W' - x @ W) = mean(x' - x) @ W' + mean(x) @ (W' - W)``. A convolution, which pads, is run twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeformer.graph.bias import add_to_bias
from edgeformer.graph.editing import unique_names
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.protos import attribute
from edgeformer.graph.qdq import LayerSite, dequantize, min_max_weight
from edgeformer.progress import Progress
from edgeformer.quantization.fake_quantization import with_error_means
from edgeformer.quantization.observation import short
from edgeformer.quantization.streaming import SamplesLike, TensorStream

__all__ = ["correct_biases", "mean_errors"]

# ReduceMean takes its axes as an input from here on.
_MINIMUM_OPSET = 18


def mean_errors(
    model: onnx.ModelProto,
    samples: SamplesLike,
    sites: Sequence[LayerSite],
    ranges: Mapping[str, float],
    *,
    batch_size: int,
    progress: Progress | None = None,
    index: GraphIndex | None = None,
) -> dict[str, tuple[float, ...]]:
    """Mean error that INT8 makes in each output channel of each layer, the layer's input being exact.

    Args:
        model: the float model.
        samples: calibration images.
        sites: the layers.
        ranges: their activations' ranges.
        batch_size: images a run.
        progress: told how many images are done.
        index: of ``model``, where there is one.

    Returns:
        Layer output -> ``[channels]`` errors, to be subtracted from its bias.

    Raises:
        InputError: no samples, or they do not fit the model.
    """
    raised = raise_opset(model, _MINIMUM_OPSET)
    if index is None or raised is not model:
        index = GraphIndex(raised)
    watched, means = with_error_means(raised, sites, ranges, index)
    stream = TensorStream(watched, [value.name for value in watched.graph.output])
    totals: dict[str, npt.NDArray[np.float64]] = {}
    images = 0
    for count, values in stream.over(samples, batch_size, "measuring bias errors", progress):
        images += count
        for name, value in values.items():
            totals[name] = totals.get(name, np.zeros(1)) + value.astype(np.float64) * count
    found = {name: total / images for name, total in totals.items()}
    return {
        site.output: short(
            found[means.outputs[site.output]]
            if site.output in means.outputs
            else _linear_error(index, site, *(found[name] for name in means.inputs[site.activation]))
        )
        for site in sites
    }


def _linear_error(
    index: GraphIndex, site: LayerSite, mean: npt.NDArray[np.float64], change: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """A Linear's mean error, by the mean ``[in]`` of what it reads and the mean of what rounding changes in that."""
    weight: npt.NDArray[Any] | None = index.array(site.weight)
    assert weight is not None
    wide = weight.astype(np.float64)
    rounded = dequantize(min_max_weight(weight, site.axis), site.axis).astype(np.float64)
    if site.axis == 0:
        wide, rounded = wide.T, rounded.T
    alpha = attribute(index.producer[site.output], "alpha", 1.0)
    return np.asarray(alpha * (change @ rounded + mean @ (rounded - wide)))


def correct_biases(
    model: onnx.ModelProto, sites: Sequence[LayerSite], errors: Mapping[str, Sequence[float]]
) -> onnx.ModelProto:
    """Take the mean error of each layer back in its bias. ``model`` is edited and given back."""
    index = GraphIndex(model)
    name = unique_names(model)
    for site in sites:
        if site.output in errors:
            error = np.asarray(errors[site.output], dtype=np.float64)
            add_to_bias(model, index, index.producer[site.output], -error, name)
    return model
