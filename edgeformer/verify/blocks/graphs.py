"""A form's graph, and parts of it that run on tensors which are handed to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import element_types
from edgeformer.graph.protos import attribute, fed_inputs, is_standard
from edgeformer.runtime import Array, OnnxSession
from edgeformer.runtime.session import as_input
from edgeformer.verify.decisions import expose_routing

__all__ = ["MADE", "FormGraph", "Part", "PartSession"]

# Behind the name of a tensor that is given to a part, where the part makes it, too.
MADE = "/made"


@dataclass(frozen=True)
class Part:
    """A part of a graph as a model of its own.

    Attributes:
        model: the part. A tensor that is given and made in it goes by its name where it is read, and by another one
            where it is made.
        outputs: tensor that the part makes -> its name in ``model``.
        nodes: positions of its nodes in the graph.
        routing: the tensors in it that hold picked regions, in the order of the graph.
    """

    model: onnx.ModelProto
    outputs: dict[str, str]
    nodes: tuple[int, ...]
    routing: tuple[str, ...]


class PartSession:
    """A part in ONNX Runtime.

    Use it as a context manager. Raises InputError where ONNX Runtime cannot load the part.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        # What is written is what runs: fused nodes would change the arithmetic around Q/DQ.
        self._session = OnnxSession(part.model, outputs=list(part.outputs.values()), optimization="basic")

    def __enter__(self) -> PartSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def run(self, values: Mapping[str, Array], images: Array) -> dict[str, Array]:
        """The part's outputs by the names that the graph has for them.

        Args:
            values: the tensors that the part is given, of any float type where it takes floats; others are left aside.
            images: for the network's own input.

        Raises:
            InputError: the part does not run on them.
        """
        feeds = {
            name: values[name].astype(info.dtype) if name in values else as_input(info, images)
            for name, info in self._session.inputs.items()
        }
        found = self._session.run(feeds)
        return {name: found[inner] for name, inner in self._part.outputs.items()}


class FormGraph:
    """A form's graph, ready to be cut.

    Attributes:
        model: the graph as it is in its file.
        flow: of the graph with its functions inlined, so that the op's own routing shows.
        routing: the tensors of it that hold picked regions, in the order of the graph.
        logits: for each of those the tensor that the regions are picked by.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take a graph.

        Args:
            model: any graph with one input; it is kept, not copied.
        """
        self.model = model
        exposed, routing = expose_routing(model)
        self._exposed = exposed
        self.flow = Dataflow(exposed)
        self.routing = tuple(output.name for output in routing)
        self.logits = {name: self.flow.nodes[self.flow.producer[name]].input[0] for name in self.routing}
        self._types = element_types(exposed)
        self._inputs = {value.name: value for value in fed_inputs(exposed.graph)}
        if len(self._inputs) != 1:
            raise InputError(
                "EF818", f"expected a model with one input, this one has {len(self._inputs)}: {', '.join(self._inputs)}"
            )
        (self.input,) = self._inputs
        self._stored: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in exposed.graph.initializer}
        self._settled = self._shape_dependent()

    @property
    def batch(self) -> int | None:
        """The batch that the input fixes, or None."""
        axes = self._inputs[self.input].type.tensor_type.shape.dim
        return int(axes[0].dim_value) if axes and axes[0].HasField("dim_value") else None

    def constant(self, name: str) -> onnx.TensorProto | None:
        """A tensor that is stored in the graph, or made by a Constant; None where it is neither."""
        if name in self._stored:
            return self._stored[name]
        node = self.flow.nodes[self.flow.producer[name]] if name in self.flow.producer else None
        found: onnx.TensorProto | None = None
        if node is not None and is_standard(node, "Constant"):
            found = attribute(node, "value")
        return found

    def norm(self, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
        """Scale and offset of the LayerNormalization that makes a tensor, ``[channels]`` each; None without one."""
        node = self.flow.nodes[self.flow.producer[name]] if name in self.flow.producer else None
        if node is None or not is_standard(node, "LayerNormalization") or len(node.input) < 3:
            return None
        scale, offset = (self.constant(one) for one in node.input[1:3])
        if scale is None or offset is None:
            return None
        return numpy_helper.to_array(scale).astype(np.float32), numpy_helper.to_array(offset).astype(np.float32)

    def is_float(self, name: str) -> bool:
        """Whether a tensor is of a float type."""
        kind = self._types.get(name, TensorProto.UNDEFINED)
        return kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)

    def _shape_dependent(self) -> list[str]:
        """Static tensors that follow from the shapes of others, and that nodes with data read."""
        dependent: set[str] = set()
        for node in self.flow.nodes:
            if is_standard(node, "Shape", "Size") or any(name in dependent for name in node.input):
                dependent.update(name for name in node.output if name in self.flow.static)
        read = {
            name
            for index in range(len(self.flow.nodes))
            if self.flow.data_inputs(index)
            for name in self.flow.reads(index)
        }
        return [name for node in self.flow.nodes for name in node.output if name in dependent and name in read]

    def settle(self, images: Array) -> None:
        """Find out what follows from the shapes at a batch of this size, once: parts have it as constants.

        Args:
            images: as many as all runs of parts will have.
        """
        names = [name for name in self._settled if name not in self._stored]
        for wanted in (names, *([name] for name in names)):
            if all(name in self._stored for name in wanted):
                continue
            try:
                with OnnxSession(self._exposed, outputs=wanted, optimization="basic") as session:
                    info = session.inputs[self.input]
                    found = session.run({self.input: as_input(info, images)})
            except InputError:
                # Something in the graph does not run. What comes before it does, and that is found one by one.
                if wanted is not names:
                    return
                continue
            self._stored.update({name: numpy_helper.from_array(array, name) for name, array in found.items()})

    def reached(self, ends: Iterable[str], given: Collection[str]) -> tuple[list[int], set[str]]:
        """The nodes that make some tensors of others, in graph order, and what they read that is not made by them.

        Args:
            ends: the tensors to make, even if they are among those given.
            given: the tensors at which to stop.

        Returns:
            Positions of the nodes; the tensors given and the inputs of the network that are read.
        """
        producer = self.flow.producer
        queue = [producer[name] for name in ends if name in producer]
        seen = set(queue)
        read: set[str] = set()
        while queue:
            for name in self.flow.reads(queue.pop()):
                if name in given or name in self._inputs:
                    read.add(name)
                elif name not in self._stored and producer[name] not in seen:
                    seen.add(producer[name])
                    queue.append(producer[name])
        return sorted(seen), read

    def routing_in(self, ends: Iterable[str], given: Collection[str]) -> tuple[str, ...]:
        """The tensors with picked regions among the nodes that make some tensors of others."""
        nodes, _ = self.reached(ends, given)
        own = {name for index in nodes for name in self.flow.nodes[index].output}
        return tuple(name for name in self.routing if name in own)

    def shapes(self, names: Sequence[str], images: Array) -> dict[str, tuple[int, ...]]:
        """The shapes that tensors have on a batch of images.

        Raises:
            InputError: the graph does not run on them.
        """
        probe = onnx.ModelProto()
        probe.CopyFrom(self._exposed)
        ends = {name: f"{name}/shape" for name in names}
        probe.graph.node.extend(helper.make_node("Shape", [name], [end], name=end) for name, end in ends.items())
        probe.graph.output.extend(helper.make_empty_tensor_value_info(end) for end in ends.values())
        with OnnxSession(probe, outputs=list(ends.values()), optimization="basic") as session:
            found = session.run({self.input: as_input(session.inputs[self.input], images)})
        return {name: tuple(int(size) for size in found[end]) for name, end in ends.items()}

    def part(self, ends: Sequence[str], given: Mapping[str, int], *, routing: Mapping[str, int] | None = None) -> Part:
        """The part of the graph that makes some tensors of others, and the regions that it picks on the way.

        Args:
            ends: the tensors to make. One that is given as well is made of what comes before it, and whatever reads it
                reads what is given.
            given: the tensors that are given, and their ranks. Where several lie on a path, the nearest counts.
            routing: those of the tensors with picked regions that are given, too, and their ranks.
        """
        picked = self.routing_in(ends, given)
        handed = {**given, **{name: rank for name, rank in (routing or {}).items() if name in picked}}
        wanted = list(dict.fromkeys([*ends, *picked]))
        nodes, read = self.reached(wanted, handed)
        outputs = {name: name + MADE if name in handed else name for name in wanted}
        return Part(self._model(nodes, read, handed, outputs), outputs, tuple(nodes), picked)

    def _model(
        self, nodes: Sequence[int], read: Collection[str], given: Mapping[str, int], outputs: Mapping[str, str]
    ) -> onnx.ModelProto:
        model = onnx.ModelProto(ir_version=self._exposed.ir_version)
        model.opset_import.extend(self._exposed.opset_import)
        graph = model.graph
        graph.name = f"{self._exposed.graph.name}, a part"
        for index in nodes:
            node = graph.node.add()
            node.CopyFrom(self.flow.nodes[index])
            node.output[:] = [name + MADE if name in given else name for name in node.output]
        for name in sorted(read):
            if name in given:
                kind = self._types.get(name, TensorProto.FLOAT)
                graph.input.append(helper.make_tensor_value_info(name, kind, [None] * given[name]))
            else:
                graph.input.add().CopyFrom(self._inputs[name])
        constants = {name for index in nodes for name in self.flow.reads(index)} - set(given)
        graph.initializer.extend(self._stored[name] for name in sorted(constants) if name in self._stored)
        graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs.values())
        return model
