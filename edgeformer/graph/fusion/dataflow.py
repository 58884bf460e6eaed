"""Which tensors of a graph carry data, which only shapes and constants, and who dominates whom.

A tensor is *static* when its value is settled by the shapes of the graph's inputs alone: constants, ``Shape`` of
anything, and all that is computed from those. All other tensors carry data. Reshapes and gathers of exporters take
their sizes from static tensors, however long the chains of Shape, Gather, Div and Concat that make them; the fuser
looks through all of it by looking at data only.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from edgeformer.graph.protos import attribute, captured_names, is_float_cast, is_standard

__all__ = ["VIEW_OPS", "Dataflow"]

# Ops that move the elements of their first input and change no value. The other inputs are static.
VIEW_OPS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_SHAPE_OPS = frozenset({"Shape", "Size"})
# Not settled by their inputs.
_RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_ROOT = ""


class Dataflow:
    """A read-only index over ``model.graph``. Nodes are known by their position, tensors by their name.

    Attributes:
        nodes: the graph's nodes, in their (topological) order.
        producer: tensor -> the node that makes it.
        static: the tensors whose value the shapes of the graph's inputs settle.
        initializers: constant tensors stored in the graph.
        outputs: the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.initializers: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs: set[str] = {value.name for value in graph.output}
        self.producer: dict[str, int] = {}
        self.static: set[str] = set(self.initializers)
        self._reads: list[list[str]] = []
        self._readers: dict[str, list[int]] = {}
        self._depth: dict[str, int] = {_ROOT: 0}
        self._dominator: dict[str, str] = {}
        for value in graph.input:
            if value.name not in self.static:
                self._place(value.name, _ROOT)
        for index, node in enumerate(self.nodes):
            reads = list(dict.fromkeys([*(name for name in node.input if name), *captured_names(node)]))
            self._reads.append(reads)
            for name in reads:
                self._readers.setdefault(name, []).append(index)
            data = [name for name in reads if name not in self.static]
            settled = node.op_type not in _RANDOM_OPS and (not data or is_standard(node, *_SHAPE_OPS))
            dominator = self._common(data)
            for name in node.output:
                if not name:
                    continue
                self.producer[name] = index
                if settled:
                    self.static.add(name)
                else:
                    self._place(name, dominator)
        # Nodes whose data no output needs: dead ones, and those that are only asked for their shape.
        needed = set(self.outputs)
        self._idle: set[int] = set()
        for index in reversed(range(len(self.nodes))):
            if needed.isdisjoint(self.nodes[index].output):
                self._idle.add(index)
            else:
                needed.update(self.data_inputs(index))

    def reads(self, index: int) -> list[str]:
        """The tensors that a node reads, those of its sub-graphs included."""
        return self._reads[index]

    def data_inputs(self, index: int) -> list[str]:
        """The tensors carrying data that a node reads; none for Shape and Size, which read no data."""
        if is_standard(self.nodes[index], *_SHAPE_OPS):
            return []
        return [name for name in self._reads[index] if name not in self.static]

    def readers(self, name: str) -> list[int]:
        """The nodes, in order, that read a tensor's data and on whose data an output of the graph depends.

        Those that only ask for its shape are not among them.
        """
        return [i for i in self._readers.get(name, []) if i not in self._idle and name in self.data_inputs(i)]

    def dominator(self, name: str) -> str | None:
        """The nearest tensor through which all data that reaches ``name`` flows; None where there is no such tensor."""
        return self._dominator[name] or None

    def view_source(self, index: int) -> str | None:
        """What a node moves the elements of, where it does nothing else (`VIEW_OPS`); None otherwise.

        An Einsum that only permutes axes counts as well, and a Cast to FLOAT: the fuser looks at graphs whose
        floating-point tensors are all FLOAT.
        """
        node = self.nodes[index]
        moves = is_standard(node, *VIEW_OPS) or is_float_cast(node) or _permutes(node)
        return str(node.input[0]) if moves and self.data_inputs(index) == [node.input[0]] else None

    def between(self, source: str, targets: Iterable[str]) -> list[int]:
        """The nodes on data paths from ``source`` to any of ``targets``, in graph order."""
        targets = [name for name in targets if name != source and name in self.producer]
        if not targets:
            return []
        first = self.producer.get(source, -1) + 1
        last = max(self.producer[name] for name in targets)
        reached = {source}
        below: list[int] = []
        for index in range(first, last + 1):
            if not reached.isdisjoint(self.data_inputs(index)):
                below.append(index)
                reached.update(self.nodes[index].output)
        wanted = set(targets)
        region: list[int] = []
        for index in reversed(below):
            if not wanted.isdisjoint(self.nodes[index].output):
                region.append(index)
                wanted.update(self.data_inputs(index))
        return region[::-1]

    def _place(self, name: str, dominator: str) -> None:
        self._dominator[name] = dominator
        self._depth[name] = self._depth[dominator] + 1

    def _common(self, names: list[str]) -> str:
        """The lowest common ancestor of ``names`` in the dominator tree (Cooper, Harvey and Kennedy 2001)."""
        if not names:
            return _ROOT
        common = names[0]
        for name in names[1:]:
            other = name
            while common != other:
                if self._depth[common] >= self._depth[other]:
                    common = self._dominator[common]
                else:
                    other = self._dominator[other]
        return common


def _permutes(node: onnx.NodeProto) -> bool:
    """Whether ``node`` is an Einsum such as ``bmdhpwq->bmhwpqd``, which is a Transpose."""
    if not is_standard(node, "Einsum") or len(node.input) != 1:
        return False
    before, arrow, after = attribute(node, "equation").decode().replace(" ", "").partition("->")
    return bool(arrow) and "." not in before and len(set(before)) == len(before) and sorted(before) == sorted(after)
