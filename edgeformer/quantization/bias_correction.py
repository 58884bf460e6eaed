"""Biases that take back what INT8 adds to a layer's outputs on average.

Rounding is not pure noise: a background of one value is always rounded the same way, and a weight's rounding error
times a mean activation is a constant. Both move a layer's output by an amount that its bias can take back (Nagel et
al., arXiv 1906.04721, section 4.2). The amount is measured in the quantized network itself, one layer after the other
(`edgeformer.quantization.trial.Trial.corrected`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from edgeformer.graph.bias import add_to_bias
from edgeformer.graph.editing import unique_names
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite

__all__ = ["add_to_biases"]


def add_to_biases(
    model: onnx.ModelProto, sites: Sequence[LayerSite], added: Mapping[str, npt.NDArray[np.float32]]
) -> onnx.ModelProto:
    """Add to each layer's bias what is given for its output channels. ``model`` is edited and given back."""
    index = GraphIndex(model)
    name = unique_names(model)
    for site in sites:
        if site.output in added:
            bias = added[site.output].astype(np.float64)
            add_to_bias(model, index, index.producer[site.output], bias, name)
    return model
