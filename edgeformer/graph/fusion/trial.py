"""Running a block and its replacement on the same inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.draws import Draw, draw_block_input
from edgeformer.graph.fusion.execution import Array, Observation, Session, extract
from edgeformer.graph.fusion.geometry import PERM, Geometry, Guess, RejectedError
from edgeformer.graph.fusion.projection import orient
from edgeformer.graph.fusion.replacement import Plan
from edgeformer.graph.fusion.wiring import Wiring
from edgeformer.ops.bi_level_routing_attention import Attributes, with_function

__all__ = ["Trial"]


class Trial:
    """A block, and what may replace it, at one set of input shapes, ready to run."""

    def __init__(
        self,
        flow: Dataflow,
        opset: Sequence[onnx.OperatorSetIdProto],
        guess: Guess,
        nodes: Sequence[int],
        outputs: Sequence[str],
        geometry: Geometry,
        observation: Observation,
    ) -> None:
        """Take the block out of the graph.

        Args:
            flow: the graph, widened.
            opset: its opset imports.
            guess: where the block starts and ends.
            nodes: the block's nodes and those that make other ``outputs``.
            outputs: tensors that may be asked for.
            geometry: what the shapes say.
            observation: shapes and static values at these input shapes.
        """
        self._flow, self._guess, self._geometry = flow, guess, geometry
        self._links = guess.route.links
        self._shapes = {name: observation.shapes[name] for link in self._links for name in link.operands}
        inputs = {guess.route.tensor: 4, **{name: len(shape) for name, shape in self._shapes.items()}}
        self._model = extract(flow, opset, nodes, inputs, list(dict.fromkeys(outputs)), observation.values)
        self._wiring = Wiring.of(guess.route, geometry.widths, guess.columns, self._shapes)
        self._block: Session | None = None
        self._replacement: Session | None = None

    def draw(self, rng: np.random.Generator, attributes: Attributes) -> Draw:
        """A random input.

        Raises:
            RejectedError: no input with decisive routing was found.
        """
        draw = draw_block_input(rng, attributes, self._geometry.image, self._wiring)
        if draw is None:
            raise RejectedError("no random input was found that makes the routing decisive", 5)
        return draw

    def _feeds(self, draw: Draw) -> dict[str, Array]:
        """What the block and its replacement get: the image in its layout, the weight and the bias in theirs."""
        feeds = {self._guess.route.tensor: draw.image.transpose(np.argsort(PERM[self._guess.layout])).copy()}
        for link in self._links:
            if link.linear:
                assert draw.weight is not None
                start, stop = self._wiring.weights[link.operands[0]]
                feeds[link.operands[0]] = orient(link, draw.weight[:, start:stop])
        for name, (start, stop) in self._wiring.offsets.items():
            assert draw.bias is not None
            feeds[name] = draw.bias[start:stop].reshape(self._shapes[name])
        return feeds

    def block(self, draw: Draw, outputs: Sequence[str]) -> dict[str, Array]:
        """Some of the block's outputs."""
        if self._block is None:
            self._block = Session(self._model)
        return self._block.run(self._feeds(draw), outputs)

    def replacement(self, plan: Plan, draw: Draw) -> dict[str, Array]:
        """What the plan makes, by the same names."""
        if self._replacement is None:
            nodes = plan.block_nodes(self._flow.nodes)
            model = onnx.ModelProto()
            model.CopyFrom(self._model)
            del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
            model.graph.node.extend(nodes)
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in plan.made)
            self._replacement = Session(with_function(model))
        return self._replacement.run(self._feeds(draw))
