"""The steps of a quantized graph: what its QuantizeLinear nodes have, and what calibration found for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from edgeformer.graph.protos import is_standard
from edgeformer.graph.qdq import QMAX, representable_scale
from edgeformer.verify.blocks.graphs import FormGraph

__all__ = ["Quantizer", "Steps"]

# How calibration names the parts of a tensor that have a range each: ``qkv[..., 0:64]``.
_PART = re.compile(r"\[\.\.\., (\d+):(\d+)\]$")


@dataclass(frozen=True)
class Quantizer:
    """A QuantizeLinear.

    Attributes:
        output: what it makes.
        moves: what it reads, and what that is a cast of or a constant away from, the nearest first; with ``offset`` and
            ``factor``, float32: it reads ``(tensor + offset) / factor``.
        scale: float32, its steps: one, or one for each channel.
        recorded: float32, the steps that follow from calibration; None where that does not know the tensor.
    """

    output: str
    moves: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
    scale: npt.NDArray[np.float32]
    recorded: npt.NDArray[np.float32] | None

    @property
    def as_recorded(self) -> bool:
        """Whether the steps are those that calibration found, or it says nothing."""
        return self.recorded is None or bool(np.array_equal(self.scale, self.recorded))

    def source(self, tensors: Collection[str]) -> str | None:
        """The nearest of some tensors that it reads; None where it reads none of them."""
        return next((one for one in self.moves if one in tensors), None)


class Steps:
    """The QuantizeLinear nodes of a graph."""

    def __init__(self, graph: FormGraph, ranges: Mapping[str, float]) -> None:
        """Find them.

        Args:
            graph: the typed graph.
            ranges: activation -> amax, the magnitude that becomes 127.
        """
        self._graph = graph
        self._ranges = ranges
        self._found = {index: self._quantizer(index) for index in self._positions()}

    def _positions(self) -> Iterator[int]:
        for index, node in enumerate(self._graph.flow.nodes):
            if is_standard(node, "QuantizeLinear") and self._graph.constant(node.input[1]) is not None:
                yield index

    def among(self, nodes: Sequence[int]) -> list[Quantizer]:
        """Those at some positions of the graph with its functions inlined."""
        return [self._found[index] for index in nodes if index in self._found]

    def _quantizer(self, index: int) -> Quantizer:
        node = self._graph.flow.nodes[index]
        stored = self._graph.constant(node.input[1])
        assert stored is not None  # _positions saw it
        scale = numpy_helper.to_array(stored).astype(np.float32)
        moves = self._chain(node.input[0])
        recorded = next((found for name in moves if (found := self._recorded(name, scale)) is not None), None)
        return Quantizer(node.output[0], moves, scale, recorded)

    def _chain(self, name: str) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        flow = self._graph.flow
        offset, factor = np.zeros((), np.float32), np.ones((), np.float32)
        moves = {name: (offset, factor)}
        while name in flow.producer:
            node = flow.nodes[flow.producer[name]]
            data = flow.data_inputs(flow.producer[name])
            if is_standard(node, "Add", "Mul") and len(data) == 1:
                stored = self._graph.constant(next(one for one in node.input if one != data[0]))
                if stored is None:
                    break
                constant = numpy_helper.to_array(stored).astype(np.float32)
                if node.op_type == "Add":
                    offset = offset + constant
                elif constant.all():
                    offset, factor = offset / constant, factor / constant
                else:
                    break
            elif not is_standard(node, "Cast"):
                break
            name = data[0]
            moves[name] = (offset, factor)
        return moves

    def _recorded(self, name: str, scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        if name in self._ranges:
            return representable_scale(self._ranges[name] / QMAX).astype(np.float32)
        steps = np.full(scale.shape, np.nan, np.float32)
        for key, amax in self._ranges.items():
            part = _PART.search(key)
            if part and key[: part.start()] == name and scale.ndim == 1:
                steps[int(part[1]) : int(part[2])] = representable_scale(amax / QMAX)
        return None if np.isnan(steps).any() else steps
