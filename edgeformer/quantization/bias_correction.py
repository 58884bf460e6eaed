"""Bias correction: the mean error that INT8 makes in each output channel, measured, and taken back in the biases."""

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
from edgeformer.graph.qdq import LayerSite
from edgeformer.progress import Progress
from edgeformer.quantization.fake_quantization import with_error_means
from edgeformer.quantization.observation import short
from edgeformer.quantization.streaming import SamplesLike, TensorStream

__all__ = ["correct_biases", "mean_errors"]

# ReduceMean takes its axes as an input from here on.
_IMITATION_OPSET = 18


def mean_errors(
    model: onnx.ModelProto,
    samples: SamplesLike,
    sites: Sequence[LayerSite],
    ranges: Mapping[str, float],
    *,
    batch_size: int,
    progress: Progress | None = None,
    what: str = "measuring bias errors",
) -> dict[str, tuple[float, ...]]:
    """Mean error that INT8 makes in each output channel of each layer, the layer's input being exact.

    Rounding is no pure noise: a background of one value is always rounded the same way, and a weight's rounding error
    times a mean activation is a constant. Both move a layer's output by an amount that its bias can take back (bias
    correction: Nagel et al., arXiv 1906.04721, section 4.2).

    Returns:
        Layer output -> ``[channels]`` errors, to be subtracted from its bias.
    """
    imitated, means = with_error_means(raise_opset(model, _IMITATION_OPSET), sites, ranges)
    stream = TensorStream(imitated, list(means.values()))
    totals: dict[str, npt.NDArray[Any]] = {}
    images = 0
    for count, values in stream.over(samples, batch_size, what, progress):
        images += count
        for output, tensor in means.items():
            totals[output] = totals.get(output, 0.0) + values[tensor].astype(np.float64) * count
    return {output: short(total / images) for output, total in totals.items()}


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
