"""PyTorch as what the exported graph is held against: what its modules give, by the tensors that these became."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.network_parts import module_scopes
from edgeformer.graph.protos import attribute, is_standard
from edgeformer.runtime import Array
from edgeformer.verify.blocks.cuts import Block, Counterpart
from edgeformer.verify.blocks.graphs import FormGraph
from edgeformer.verify.blocks.references import Pick, Seen, States
from edgeformer.verify.recording import Store

if TYPE_CHECKING:
    from edgeformer.runtime import TorchSession

__all__ = ["TorchReference", "module_tensors"]


def module_tensors(graph: FormGraph) -> dict[str, str]:
    """The tensor of an exported graph that a module's result became, for each module of which one tensor leaves.

    A module around another may give the same; it comes first.
    """
    flow = Dataflow(graph.model)
    inside: dict[str, set[int]] = {}
    scopes: list[list[str]] = []
    for index, node in enumerate(flow.nodes):
        # What the exporter's own passes made, without a note, belongs to what it reads.
        sources = [flow.producer[name] for name in flow.data_inputs(index) if name in flow.producer]
        scopes.append(module_scopes(node) or (scopes[sources[0]] if sources else []))
        for module in scopes[index]:
            if module:
                inside.setdefault(module, set()).add(index)
    found = {}
    for module, nodes in inside.items():
        made = [
            name for index in sorted(nodes) for name in flow.nodes[index].output if name and name not in flow.static
        ]
        leaving = [
            name for name in made if name in flow.outputs or any(reader not in nodes for reader in flow.readers(name))
        ]
        if len(leaving) == 1 and graph.is_float(leaving[0]):
            found[module] = leaving[0]
    return found


class TorchReference:
    """A PyTorch model, run once on each batch of images; what its modules give is kept until its block was looked at.

    Beyond the store's limit that is kept in files, so that memory is bounded.
    """

    def __init__(
        self,
        session: TorchSession,
        exported: FormGraph,
        batches: Sequence[Array],
        feed: Callable[[Array], Array],
        store: Store,
    ) -> None:
        """Run the model.

        Args:
            session: the model.
            exported: the graph that it was exported to.
            batches: images, all of one shape.
            feed: what the model takes for a batch of images.
            store: for what the modules give.
        """
        modules = {module: tensor for module, tensor in module_tensors(exported).items() if module in session.modules}
        self._states = States(store)
        self._picks: list[list[Pick]] = []
        self._decisions = {name: number for number, name in enumerate(exported.routing)}
        self._exported = exported
        shapes: dict[str, tuple[int, ...]] = {}
        repeated: set[str] = set()
        for number, images in enumerate(batches):
            seen: set[str] = set()

            def keep(module: str, value: Array, number: int = number, seen: set[str] = seen) -> None:
                if module in seen:
                    # Called twice, it gave two results, and the graph has a tensor for each.
                    repeated.add(module)
                seen.add(module)
                shapes[module] = value.shape
                self._states.put(number, {module: value})

            picks = session.watch(feed(images), modules, keep)
            self._picks.append([Pick(logits, regions) for logits, regions in picks])
        self._modules = {
            tensor: module for module, tensor in modules.items() if module in shapes and module not in repeated
        }
        found = exported.shapes(list(self._modules), batches[0])
        laid = {tensor: _layout(shapes[module], found[tensor]) for tensor, module in self._modules.items()}
        # Tensor -> the module whose result it is, and how its axes lie.
        self._tensors = {tensor: (self._modules[tensor], perm) for tensor, perm in laid.items() if perm is not None}
        for node in exported.flow.nodes:
            if is_standard(node, "Transpose") and node.input[0] in self._tensors:
                module, perm = self._tensors[node.input[0]]
                axes = attribute(node, "perm")
                if axes:
                    self._tensors.setdefault(
                        node.output[0], (module, tuple((perm or range(len(axes)))[a] for a in axes))
                    )

    def counterparts(self, candidate: FormGraph) -> dict[str, tuple[Counterpart, ...]]:
        """See `Reference`: the tensors go by the names that the exported graph has for them."""
        return {tensor: (Counterpart(tensor),) for tensor in self._tensors}

    def inner(self, block: Block) -> list[str]:
        """See `Reference`."""
        nodes, _ = self._exported.reached(block.outputs, block.inputs)
        made = [name for index in nodes for name in self._exported.flow.nodes[index].output]
        return [name for name in made if name in self._tensors]

    def reads_input(self, block: Block) -> bool:
        """See `Reference`."""
        return self._exported.input in self._exported.reached(block.outputs, block.inputs)[1]

    @contextmanager
    def opened(self, block: Block, wanted: Sequence[str]) -> Iterator[Callable[[int], Seen]]:
        """See `Reference`."""
        names = [name for name in dict.fromkeys([*block.inputs, *block.outputs, *wanted]) if name in self._tensors]
        own = self._exported.routing_in(block.outputs, block.inputs)
        decisions = [self._decisions[name] for name in own]
        kept = {self._tensors[name][0] for name in block.crossing}

        def run(batch: int) -> Seen:
            held = self._states.get(batch, {self._tensors[name][0] for name in names})
            values = {}
            for name in names:
                module, perm = self._tensors[name]
                values[name] = held[module].transpose(perm) if perm else held[module]
            self._states.drop(batch, held.keys() - kept)
            every = self._picks[batch]
            # As many as the graph shows, or nobody knows which is which.
            shown = len(every) == len(self._decisions)
            return Seen(values, tuple(every[number] for number in decisions) if shown else None)

        yield run


def _layout(given: tuple[int, ...], shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """How the axes of a tensor lie in the graph; None where it is not of that shape.

    An exporter drops moves that take each other back, so that a module's result may lie channels last there. Where
    sizes do not tell, it lies as PyTorch has it.
    """
    if shape is None or sorted(given) != sorted(shape):
        return None
    if given == shape:
        return ()
    moves: Mapping[int, list[tuple[int, ...]]] = {3: [(0, 2, 1)], 4: [(0, 3, 1, 2), (0, 2, 3, 1)]}
    fitting = [perm for perm in moves.get(len(given), []) if tuple(given[axis] for axis in perm) == shape]
    return fitting[0] if len(fitting) == 1 else None
