"""Saying where in a form something goes wrong: node, module, and what else may be at fault."""

from __future__ import annotations

from collections.abc import Collection

from edgeformer.errors import InputError
from edgeformer.graph.network_parts import module_scopes
from edgeformer.graph.protos import describe
from edgeformer.records.blocks import BlockFault, FaultKind
from edgeformer.records.verification import GateVerdict
from edgeformer.verify.blocks.graphs import FormGraph
from edgeformer.verify.blocks.steps import Quantizer

__all__ = ["Naming"]

# Characters of ONNX Runtime's reason that a line has room for.
_LONGEST = 300


class Naming:
    """Names the places of a form's graph, as its file has them: an op node is one node."""

    def __init__(self, graph: FormGraph) -> None:
        """Take a graph."""
        self._graph = graph
        self._nodes = {name: node for node in graph.model.graph.node for name in node.output if name}

    def values(self, tensor: str, given: Collection[str], verdict: GateVerdict) -> BlockFault:
        """Values that differ by more than the precision explains."""
        text = f"{self._place(tensor)}: on the same inputs, {verdict.text}"
        return self._fault("values", tensor, given, text, verdict.value, verdict.limit)

    def shape(self, tensor: str, given: Collection[str], want: tuple[int, ...], have: tuple[int, ...]) -> BlockFault:
        """A result of another shape."""
        return self._fault(
            "shape", tensor, given, f"{self._place(tensor)}: its shape is {list(have)}, not {list(want)}"
        )

    def fails(self, tensor: str, given: Collection[str], error: InputError) -> BlockFault:
        """A part that does not run."""
        reason = str(error.__cause__ or error)
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
        return self._fault("does not run", tensor, given, f"{self._place(tensor)} does not run: {reason}")

    def topk(self, tensor: str, given: Collection[str], want: int, have: int) -> BlockFault:
        """Another number of regions picked, on the way to a tensor."""
        text = f"{self._place(tensor)}: picks {have} regions for each region, and the form before picks {want} (topk)"
        return self._fault("topk", tensor, given, text, float(have), float(want))

    def routing(self, tensor: str, given: Collection[str], gap: float, limit: float) -> BlockFault:
        """Regions picked that are no near tie, on the way to a tensor."""
        text = (
            f"{self._place(tensor)}: on the same inputs, picks regions whose logits are {gap:.3g} below those of the "
            f"regions that it leaves out; rounding explains {limit:.3g}"
        )
        return self._fault("routing", tensor, given, text, gap, limit)

    def scale(self, quantizer: Quantizer) -> BlockFault:
        """Steps that are not those that calibration found."""
        assert quantizer.recorded is not None
        change = abs(quantizer.scale - quantizer.recorded)
        worst = int(change.argmax())
        have, want = float(quantizer.scale.flat[worst]), float(quantizer.recorded.flat[worst])
        text = (
            f"{self._place(quantizer.output)}: its scale is {have:.6g}, and the range in calibration.json gives "
            f"{want:.6g}"
        )
        return self._fault("scale", quantizer.output, (), text, have, want)

    def _fault(
        self,
        kind: FaultKind,
        tensor: str,
        given: Collection[str],
        text: str,
        value: float | None = None,
        limit: float | None = None,
    ) -> BlockFault:
        node = self._nodes[tensor]
        return BlockFault(
            kind=kind,
            node=describe(node),
            tensor=tensor,
            module=self._module(tensor),
            between=() if kind == "scale" else self._between(tensor, given),
            value=value,
            limit=limit,
            text=text,
        )

    def _place(self, tensor: str) -> str:
        module = self._module(tensor)
        return describe(self._nodes[tensor]) + (f" of {module}" if module else "")

    def _module(self, tensor: str) -> str | None:
        """The module around a node; that of the nearest node with one before it, where a pass made it."""
        seen, queue = set(), [tensor]
        while queue:
            node = self._nodes.get(queue.pop(0))
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            scopes = [scope for scope in module_scopes(node) if scope]
            if scopes:
                return scopes[-1]
            queue += node.input
        return None

    def _between(self, tensor: str, given: Collection[str]) -> tuple[str, ...]:
        flow = self._graph.flow
        nodes, _ = self._graph.reached([tensor], given)
        names = [name for index in nodes for name in flow.nodes[index].output if name not in flow.static]
        before = {id(self._nodes[name]): self._nodes[name] for name in names if name in self._nodes and name != tensor}
        before.pop(id(self._nodes[tensor]), None)
        return tuple(map(describe, before.values()))
