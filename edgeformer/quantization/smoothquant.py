"""SmoothQuant: making activations easier to quantize without changing what the network computes.

A layer that reads ``x * scale + offset``, channel by channel, with its weights divided by ``scale`` and the offset
taken back in its bias, gives the same result in exact arithmetic. One INT8 scale serves all channels of an activation,
so the offset centres each channel's range, and the scale evens out the ranges as far as the weights can bear it: with
``r`` the half range of a channel and ``w`` the largest weight that it meets, ``scale = w^(1 - alpha) / r^alpha``
(SmoothQuant, arXiv 2211.10438; the offset as in Outlier Suppression+, arXiv 2304.09145).

Where a LayerNormalization makes the activation and Linears alone read it, both move into the norm, for nothing.
Elsewhere they are a multiply and an add in front of the Q/DQ pair. Convolutions, which pad with zeros, take no offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.bias import add_to_bias, bias_of, replace_constant
from edgeformer.graph.editing import UniqueNames, complete, draft, unique_names
from edgeformer.graph.protos import attribute
from edgeformer.quantization.calibration import ChannelRange
from edgeformer.quantization.settings import IDENTITY, Sites, Transform

__all__ = ["amax_behind", "apply_transforms", "candidates", "is_free"]

_Float64 = npt.NDArray[np.float64]
_ALPHAS = (0.5, 0.75, 1.0)
# A scalar offset halves the range of a purely one-sided activation. Where it gains less, it is not tried.
_WORTHWHILE = 0.75
_DIGITS = 7


def is_free(sites: Sites, tensor: str) -> bool:
    """Whether a LayerNormalization makes the tensor, and Linears alone read it: a transform of it costs nothing."""
    norm = sites.index.producer.get(tensor)
    if norm is None or norm.op_type != "LayerNormalization" or tensor in sites.index.outputs:
        return False
    affine = [sites.index.array(name) if name else None for name in [*norm.input[1:3], ""][:2]]
    if any(array is None or array.ndim != 1 for array in affine):
        return False
    readers = {site.output for site in sites.readers[tensor]}
    nodes = sites.index.consumers.get(tensor, [])
    return all(node.output[0] in readers and node.op_type in ("MatMul", "Gemm") for node in nodes)


def candidates(sites: Sites, tensor: str, seen: ChannelRange) -> Iterator[Transform]:
    """Transforms to be tried, the ones that cost least at run time first; without the one that changes nothing.

    Args:
        sites: the layers.
        tensor: an activation of theirs.
        seen: the ends of its channels.
    """
    readers = sites.readers[tensor]
    groups = [attribute(sites.index.producer[site.output], "group", 1) for site in readers]
    if set(groups) != {1} or any(sites.alpha(site) != 1.0 for site in readers):
        return
    low, high = np.asarray(seen.minimum, dtype=np.float64), np.asarray(seen.maximum, dtype=np.float64)
    convolution = any(sites.convolution(site) for site in readers)
    # A bias that would have to be made costs an add of its own.
    offsets = not convolution and all(_has_bias(sites, site.output) for site in readers)
    whole = (float(low.min()) + float(high.max())) / 2
    one_sided = float(high.max() - low.min()) / 2 <= _WORTHWHILE * max(abs(float(low.min())), abs(float(high.max())))
    if offsets and one_sided and not is_free(sites, tensor):
        yield Transform(offset=(_short(-whole),))
    weights = np.max([_largest_weights(sites, site.output, len(low)) for site in readers], axis=0)
    centre = (low + high) / 2 if offsets else np.zeros_like(low)
    reach = np.maximum(high - centre, centre - low)
    usable = (reach > 0) & (weights > 0)
    if not usable.any():
        return
    for alpha in _ALPHAS:
        scale = np.ones_like(reach)
        scale[usable] = weights[usable] ** (1 - alpha) / reach[usable] ** alpha
        scale[usable] /= np.exp(np.log(scale[usable]).mean())
        yield Transform(tuple(map(_short, scale)), tuple(map(_short, -centre * scale)) if offsets else (0.0,))


def amax_behind(transform: Transform, seen: ChannelRange) -> float:
    """The largest magnitude behind a transform, by the ends of the channels in front of it."""
    low, high = np.asarray(seen.minimum, dtype=np.float64), np.asarray(seen.maximum, dtype=np.float64)
    ends = np.stack([low, high]) * transform.scales + transform.offsets
    return float(np.abs(ends).max(initial=0.0))


def _has_bias(sites: Sites, output: str) -> bool:
    site = sites.of_output[output]
    channels = (sites.index.shape(site.weight) or ())[site.axis] or 0
    return bias_of(sites.index, sites.index.producer[output], channels) is not None


def _largest_weights(sites: Sites, output: str, channels: int) -> _Float64:
    """For each input channel of a layer the largest weight that it meets."""
    largest = np.abs(sites.rows(sites.of_output[output])).max(axis=1)
    return np.asarray(largest.reshape(channels, -1).max(axis=1))


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def apply_transforms(
    sites: Sites, transforms: Mapping[str, Transform], layers: frozenset[str]
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy of the model that computes the same, with transformed activations in front of the layers that are INT8.

    Args:
        sites: the model's layers.
        transforms: activation -> its transform.
        layers: outputs of the layers that are INT8. Others go on reading what they read, unless a norm makes it.

    Returns:
        The model, and activation -> the tensor that the INT8 layers read in its place, where that is another one.
    """
    model = sites.index.model
    result = draft(model)
    writer = _Writer(sites, result, unique_names(model))
    for tensor, sites_there in sites.readers.items():
        transform = transforms.get(tensor, IDENTITY)
        readers = [site for site in sites_there if site.output in layers]
        if not transform.moves or not readers:
            continue
        if is_free(sites, tensor):
            writer.fold(tensor, transform)
        else:
            writer.insert(tensor, transform, {site.output for site in readers})
    complete(result, model)
    return result, writer.moved


class _Writer:
    def __init__(self, sites: Sites, model: onnx.ModelProto, name: UniqueNames) -> None:
        self._sites = sites
        self._model = model
        self._index = sites.index.of_draft(model)
        self._name = name
        self.moved: dict[str, str] = {}

    def fold(self, tensor: str, transform: Transform) -> None:
        """Move the transform into the norm that makes the tensor."""
        norm = self._index.producer[tensor]
        gamma, beta = self._index.array(norm.input[1]), self._index.array(norm.input[2])
        assert gamma is not None
        assert beta is not None
        replace_constant(self._model, norm, 1, gamma * transform.scales, self._name)
        replace_constant(self._model, norm, 2, beta * transform.scales + transform.offsets, self._name)
        for site in self._sites.readers[tensor]:
            self._undo(site.output, transform)

    def insert(self, tensor: str, transform: Transform, readers: set[str]) -> None:
        """Write the transform as nodes in front of the layers."""
        convolution = any(self._sites.convolution(self._sites.of_output[output]) for output in readers)
        shape = (-1, 1, 1) if convolution else (-1,)
        source, nodes = tensor, []
        for op_type, values, neutral in (("Mul", transform.scales, 1.0), ("Add", transform.offsets, 0.0)):
            if (values == neutral).all():
                continue
            made, constant = self._name(f"{tensor}_balanced"), self._name(f"{tensor}_{op_type.lower()}")
            array = np.asarray(values, dtype=np.float32)
            array = array.reshape(()) if array.size == 1 else array.reshape(shape)
            self._model.graph.initializer.append(numpy_helper.from_array(array, constant))
            nodes.append(helper.make_node(op_type, [source, constant], [made], name=self._name(f"{made}_{op_type}")))
            source = made
        graph = self._model.graph
        position = next(place for place, node in enumerate(graph.node) if node.output and node.output[0] in readers)
        for node in reversed(nodes):
            graph.node.insert(position, node)
        self.moved[tensor] = source
        for output in readers:
            self._index.producer[output].input[0] = source
            self._undo(output, transform)

    def _undo(self, output: str, transform: Transform) -> None:
        site = self._sites.of_output[output]
        node = self._index.producer[output]
        weight, bias = self._sites.transformed(site, transform)
        replace_constant(self._model, node, site.weight_input, weight, self._name)
        if bias.any():
            add_to_bias(self._model, self._index, node, bias, self._name)
