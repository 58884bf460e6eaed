"""A block of the float graph with every value rounded: what the precision of the next form explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeformer.graph.protos import is_standard
from edgeformer.records.terms import Precision
from edgeformer.runtime import Array
from edgeformer.verify.blocks.cuts import Block
from edgeformer.verify.blocks.expectation import Quantized, Read, expected
from edgeformer.verify.blocks.graphs import MADE, FormGraph, Part, PartSession
from edgeformer.verify.blocks.references import Seen

__all__ = ["Rounded", "RoundedSeen"]


@dataclass(frozen=True)
class RoundedSeen:
    """What the rounded block gave.

    Attributes:
        values: its results by the names of the float graph.
        logits: for each routing decision what the regions are picked by.
    """

    values: dict[str, Array]
    logits: tuple[Array, ...] = field(default=())


class Rounded:
    """The rounded results of a block, each made of what the float graph itself has before it.

    Use it as a context manager.
    """

    def __init__(
        self,
        graph: FormGraph,
        block: Block,
        inner: Sequence[str],
        seen: Seen,
        precision: Precision,
        quantized: Mapping[str, Mapping[str, Read]],
    ) -> None:
        """Make it.

        Args:
            graph: the float graph.
            block: the block.
            inner: the results wanted.
            seen: what a run of the block showed.
            precision: ``fp16``, ``bf16`` or ``int8``.
            quantized: for each result what is quantized on the way to it in the next form, where something is.
        """
        self._graph = graph
        self._routing = graph.routing_in(block.outputs, block.inputs)
        picks = seen.picks or ()
        given = {name: seen.values[name].ndim for name in (*block.inputs, *inner)}
        self._ends = tuple(inner)
        self._logits = tuple(graph.logits[name] for name in self._routing)
        ranks = {name: pick.regions.ndim for name, pick in zip(self._routing, picks, strict=False)}
        part = graph.part([*inner, *self._logits], given, routing=ranks)
        floats = {
            name
            for node in part.model.graph.node
            for name in node.output
            if graph.is_float(name.removesuffix(MADE)) and name.removesuffix(MADE) not in graph.flow.static
        }
        model = expected(part.model, floats, precision, self._quantized(part, given, quantized))
        self._session = PartSession(Part(model, part.outputs, part.nodes, part.routing))

    def __enter__(self) -> Rounded:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.__exit__()

    def _quantized(
        self, part: Part, given: Mapping[str, int], quantized: Mapping[str, Mapping[str, Read]]
    ) -> Quantized:
        flow = self._graph.flow
        readers: set[str] = set()
        layers: set[str] = set()
        reads: dict[str, Read] = {}
        handed = set(given) | {name for name, made in part.outputs.items() if made != name}
        for result, found in quantized.items():
            nodes, _ = self._graph.reached([result], handed)
            reads.update(found)
            for index in nodes:
                node = flow.nodes[index]
                if not any(name in found for name in node.input):
                    continue
                output = node.output[0] + MADE if node.output[0] in handed else node.output[0]
                readers.add(output)
                if is_standard(node, "MatMul", "Gemm", "Conv") and node.input[1] in flow.static:
                    layers.add(output)
        return Quantized(frozenset(readers), frozenset(layers), reads)

    def run(self, seen: Seen, images: Array) -> RoundedSeen:
        """The results for what a run of the block showed."""
        picks = seen.picks or ()
        given = dict(seen.values)
        given |= {name: pick.regions for name, pick in zip(self._routing, picks, strict=False)}
        made = self._session.run(given, images)
        return RoundedSeen({name: made[name] for name in self._ends}, tuple(made[name] for name in self._logits))
