"""What a form is held against, block by block: another graph, or PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from edgeformer.runtime import Array
from edgeformer.verify.blocks.cuts import Block, Counterpart, counterparts
from edgeformer.verify.blocks.graphs import FormGraph, PartSession
from edgeformer.verify.recording import Store

__all__ = ["GraphReference", "Pick", "Reference", "Seen", "States"]


@dataclass(frozen=True)
class Pick:
    """A routing decision.

    Attributes:
        logits: float ``[..., regions]``: what the regions are picked by.
        regions: int ``[..., topk]``: those picked.
    """

    logits: Array
    regions: Array


@dataclass(frozen=True)
class Seen:
    """What one run of a block showed.

    Attributes:
        values: tensors by the reference's names, those that enter the block among them.
        picks: its routing decisions, in order; None where the reference does not show them.
    """

    values: dict[str, Array]
    picks: tuple[Pick, ...] | None


class Reference(Protocol):
    """A form that others are compared with."""

    def counterparts(self, candidate: FormGraph) -> dict[str, tuple[Counterpart, ...]]:
        """For each of its tensors the candidate's."""

    def inner(self, block: Block) -> list[str]:
        """The float tensors that it makes in a block, in order."""

    def reads_input(self, block: Block) -> bool:
        """Whether a block reads the network's own input."""

    def opened(self, block: Block, wanted: Sequence[str]) -> AbstractContextManager[Callable[[int], Seen]]:
        """What runs a block on one batch of images after another, by their number."""


class States:
    """The tensors that cross from block to block, for each batch of images."""

    def __init__(self, store: Store) -> None:
        """Start with none.

        Args:
            store: where they are kept.
        """
        self._store = store
        self._held: dict[int, dict[str, int]] = {}

    def get(self, batch: int, names: Collection[str]) -> dict[str, Array]:
        """The tensors of a batch by name."""
        held = self._held.get(batch, {})
        return {name: self._store.get(held[name]) for name in names}

    def put(self, batch: int, values: Mapping[str, Array]) -> None:
        """Add tensors of a batch, in place of those of the same names."""
        self.drop(batch, values)
        held = self._held.setdefault(batch, {})
        held.update({name: self._store.put(value) for name, value in values.items()})

    def drop(self, batch: int, names: Iterable[str]) -> None:
        """Forget tensors of a batch; those that it does not have are passed over."""
        held = self._held.get(batch, {})
        for name in [name for name in names if name in held]:
            self._store.drop(held.pop(name))

    def keep(self, batch: int, names: Collection[str]) -> None:
        """Forget all tensors of a batch but these."""
        self.drop(batch, [name for name in self._held.get(batch, {}) if name not in names])


class GraphReference:
    """A graph in ONNX Runtime, run block by block on what its own blocks before made."""

    def __init__(self, graph: FormGraph, batches: Sequence[Array], store: Store) -> None:
        """Take a graph.

        Args:
            graph: the graph, settled for batches of this size.
            batches: images, all of one shape.
            store: for what crosses from block to block.
        """
        self.graph = graph
        self._batches = batches
        self._states = States(store)

    def counterparts(self, candidate: FormGraph) -> dict[str, tuple[Counterpart, ...]]:
        """See `Reference`."""
        return counterparts(self.graph.model, candidate.model)

    def inner(self, block: Block) -> list[str]:
        """See `Reference`."""
        nodes, _ = self.graph.reached(block.outputs, block.inputs)
        made = (name for index in nodes for name in self.graph.flow.nodes[index].output)
        return [name for name in made if name and name not in self.graph.flow.static and self.graph.is_float(name)]

    def reads_input(self, block: Block) -> bool:
        """See `Reference`."""
        return self.graph.input in self.graph.reached(block.outputs, block.inputs)[1]

    @contextmanager
    def opened(self, block: Block, wanted: Sequence[str]) -> Iterator[Callable[[int], Seen]]:
        """See `Reference`."""
        graph = self.graph
        ranks = {name: value.ndim for name, value in self._states.get(0, block.inputs).items()}
        ends = [*block.outputs, *wanted]
        picked = graph.routing_in(ends, ranks)
        part = graph.part([*ends, *(graph.logits[name] for name in picked)], ranks)
        with PartSession(part) as session:

            def run(batch: int) -> Seen:
                given = self._states.get(batch, block.inputs)
                made = session.run(given, self._batches[batch])
                self._states.put(batch, {name: made[name] for name in block.crossing if name in made})
                self._states.keep(batch, block.crossing)
                picks = tuple(Pick(made[graph.logits[name]], made[name]) for name in picked)
                return Seen({**given, **made}, picks)

            yield run
