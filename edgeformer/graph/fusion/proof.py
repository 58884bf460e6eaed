"""Is this candidate the op? It is if both give the same on the same random inputs.

The attributes are guessed (`geometry`). If the guess is right the op and the candidate agree; if anything at all is
different (a mask, pooled keys, weighted values, other regions, heads that interleave) they do not, and the block stays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from edgeformer.graph.fusion.anchors import Anchors
from edgeformer.graph.fusion.candidate import Candidate
from edgeformer.graph.fusion.columns import find_columns
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.escapes import Chain, Escape, find_escapes
from edgeformer.graph.fusion.execution import Array, ExecutionError, Observation, Session, extract
from edgeformer.graph.fusion.geometry import LAYOUTS, PERM, Guess, RejectedError, geometry_of, measured_scale
from edgeformer.graph.fusion.obstacles import find_obstacle, quantized_projection
from edgeformer.graph.fusion.projection import Layout, Route
from edgeformer.graph.fusion.replacement import Part, Plan
from edgeformer.graph.fusion.stacking import Columns
from edgeformer.graph.fusion.trial import Trial
from edgeformer.graph.protos import is_standard, label

__all__ = ["TOLERANCE", "Verdict", "prove"]

# Greatest difference that FP32 rounding explains, as a fraction of the greatest output.
TOLERANCE = 1e-5
# Progress (`RejectedError`) of a guess whose start and end are in image layout.
_IN_IMAGE_LAYOUT = 2


@dataclass
class Verdict:
    """What came out.

    Attributes:
        plan: how to rewrite the block; None where it was not proven.
        nodes: the block's nodes, as far as they are known.
        error: greatest relative difference over the draws that were run.
        draws: draws run.
        reason: why there is no plan.
    """

    plan: Plan | None = None
    nodes: tuple[int, ...] = ()
    error: float | None = None
    draws: int = 0
    reason: str | None = None


def prove(
    flow: Dataflow,
    opset: Sequence[onnx.OperatorSetIdProto],
    candidate: Candidate,
    observations: Sequence[Observation],
    name: str,
    *,
    draws: int,
    seed: Sequence[int],
) -> Verdict:
    """Try to prove that a candidate is the op.

    Args:
        flow: the graph, widened.
        opset: its opset imports.
        candidate: the candidate.
        observations: what the graph showed at one or more sets of input shapes.
        name: name for the op node, and prefix of all new names.
        draws: random inputs to run at least; every set of shapes gets one at least.
        seed: seed of the random inputs.
    """
    whole = candidate.region(flow)
    if (reason := find_obstacle(flow, candidate.anchors, whole)) is not None:
        return Verdict(nodes=tuple(whole), reason=reason)
    search = _Search(flow, opset, candidate, observations)
    best, furthest = Verdict(nodes=tuple(whole), reason="no single tensor feeds the queries, keys and values"), -1
    for guess in search.guesses():
        attempt = _Attempt(flow, opset, candidate.anchors, observations, guess)
        try:
            attempt.run(name, draws, seed)
        except RejectedError as rejected:
            search.progress = max(search.progress, rejected.progress)
            if rejected.progress > furthest:
                best, furthest = attempt.verdict, rejected.progress
                best.reason = str(rejected)
        else:
            return attempt.verdict
    if quantized := quantized_projection(flow, candidate):
        best.reason = f"{best.reason}. {quantized}"
    return best


class _Search:
    """All guesses at a candidate, the usual ones first.

    Attributes:
        progress: how far any guess got, which whoever tries them has to say.
    """

    def __init__(
        self,
        flow: Dataflow,
        opset: Sequence[onnx.OperatorSetIdProto],
        candidate: Candidate,
        observations: Sequence[Observation],
    ) -> None:
        self._flow, self._opset = flow, opset
        self._candidate, self._observations = candidate, observations
        self.progress = -1

    def guesses(self) -> Iterator[Guess]:
        """First with q, k and v in the order of the op out of one tensor; then in any, and out of several Linears."""
        routes, tail = self._candidate.routes, self._candidate.anchors.tail
        one = [route for route in routes if len(route.branches) == 1]
        for output, route in itertools.product(reversed(tail), one):
            for layout, output_layout in itertools.product(LAYOUTS, LAYOUTS):
                yield Guess(route, layout, output, output_layout)
        several = [route for route in routes if len(route.branches) > 1]
        if not several and self.progress < _IN_IMAGE_LAYOUT:
            return
        # Picking columns of a weight costs nothing at run time; picking channels of an image does.
        for route in (*several, *sorted(one, key=lambda route: not route.linears)):
            for layout in LAYOUTS:
                for columns in self._columns(route, layout):
                    for output, output_layout in itertools.product(reversed(tail), LAYOUTS):
                        yield Guess(route, layout, output, output_layout, columns)

    def _columns(self, route: Route, layout: Layout) -> list[Columns]:
        found = [
            find_columns(self._flow, self._opset, self._candidate.anchors, route, layout, observation)
            for observation in self._observations
        ]
        alike = all(one == found[0] for one in found)
        usual = tuple(range(len(found[0][0].indices))) if found[0] else ()
        tried = len(route.branches) == 1
        return [one for one in found[0] if not (tried and one.indices == usual)] if alike else []


class _Attempt:
    """One guess, on its way to a plan."""

    def __init__(
        self,
        flow: Dataflow,
        opset: Sequence[onnx.OperatorSetIdProto],
        anchors: Anchors,
        observations: Sequence[Observation],
        guess: Guess,
    ) -> None:
        self.flow, self.opset, self.anchors, self.guess = flow, opset, anchors, guess
        self.observations = observations
        self.region = flow.between(guess.route.tensor, [guess.output])
        self.verdict = Verdict(nodes=tuple(self.region))

    def run(self, name: str, draws: int, seed: Sequence[int]) -> None:
        """Fill in the verdict.

        Raises:
            RejectedError: the guess does not hold.
        """
        geometries = [
            geometry_of(self.flow, self.anchors, self.guess, observation.shapes) for observation in self.observations
        ]
        attributes = geometries[0].attributes
        if any(geometry.attributes != attributes for geometry in geometries):
            raise RejectedError("the number of regions, heads or channels changes with the input's size", 4)
        escapes = find_escapes(self.flow, self.region, self.guess.output, self.guess.route.above)
        logits = self.flow.nodes[self.anchors.softmax].input[0]
        outputs = [self.guess.output, logits, *(escape.tensor for escape in escapes)]
        nodes = sorted({*self.region, *(index for escape in escapes for index in escape.nodes)})
        rng = np.random.default_rng(list(seed))
        try:
            trials = [
                Trial(self.flow, self.opset, self.guess, nodes, outputs, geometry, observation)
                for geometry, observation in zip(geometries, self.observations, strict=True)
            ]
            draw = trials[0].draw(rng, attributes)
            results = trials[0].block(draw, outputs)
            plan = Plan(
                name=name,
                attributes=replace(attributes, scale=measured_scale(results[logits], draw.qkv, attributes)),
                route=self.guess.route,
                layout=self.guess.layout,
                output=self.guess.output,
                output_layout=self.guess.output_layout,
                parts=tuple(self._part(escape, results[escape.tensor], draw.qkv) for escape in escapes),
                moves=tuple(
                    (chain, perm)
                    for escape in escapes
                    for chain in escape.chains
                    if (perm := self._permutation(chain)) is not None
                ),
                columns=self.guess.columns,
                widths=geometries[0].widths,
            )
            self._compare(trials, plan, rng, max(draws, len(trials)))
        except ExecutionError as error:
            raise RejectedError(f"ONNX Runtime does not run the block on its own: {error}", 5) from error
        self.verdict.plan = plan

    def _part(self, escape: Escape, value: Array, qkv: Array) -> Part:
        """Which channels of qkv, in which layout, an escaped tensor is."""
        size = np.abs(qkv).max()
        for layout in LAYOUTS:
            if value.ndim != 4:
                break
            image = value.transpose(PERM[layout])
            channels = image.shape[3]
            if image.shape[:3] != qkv.shape[:3]:
                continue
            for start in range(qkv.shape[3] - channels + 1):
                part = qkv[..., start : start + channels]
                here = np.abs(part[0, 0, 0] - image[0, 0, 0]).max() < TOLERANCE * size
                if here and np.abs(part - image).max() < TOLERANCE * size:
                    return Part(escape.tensor, layout, start, start + channels)
        outside = [index for index in self.flow.readers(escape.tensor) if index not in self.region]
        users = [label(self.flow.nodes[index]) for index in outside]
        if escape.tensor in self.flow.outputs:
            users.append("the graph's outputs")
        raise RejectedError(
            f"{escape.tensor} comes from inside the block, is not part of qkv in image layout, and is used outside by "
            + ", ".join(users),
            6,
        )

    def _permutation(self, chain: Chain) -> tuple[int, ...] | None:
        """The permutation of axes that a chain of views between two image layouts amounts to; None if there is none."""
        tried = [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)]
        for observation in self.observations:
            shape = observation.shapes[chain.source]
            if len(shape) != 4:
                return None
            model = extract(self.flow, self.opset, chain.nodes, {chain.source: 4}, [chain.target], observation.values)
            value = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
            moved = Session(model).run({chain.source: value})[chain.target]
            tried = [perm for perm in tried if np.array_equal(value.transpose(perm), moved)]
        return tried[0] if tried else None

    def _compare(self, trials: Sequence[Trial], plan: Plan, rng: np.random.Generator, draws: int) -> None:
        worst = 0.0
        for number in range(draws):
            trial = trials[number % len(trials)]
            draw = trial.draw(rng, plan.attributes)
            expected, got = trial.block(draw, plan.made), trial.replacement(plan, draw)
            for tensor in plan.made:
                if expected[tensor].shape != got[tensor].shape:
                    raise RejectedError(f"the op makes {got[tensor].shape}, the block {expected[tensor].shape}", 7)
                error = float(np.abs(expected[tensor] - got[tensor]).max() / np.abs(expected[tensor]).max())
                worst = max(worst, error if math.isfinite(error) else math.inf)
            self.verdict.draws, self.verdict.error = number + 1, worst
            if worst > TOLERANCE:
                raise RejectedError(
                    f"the block and the op differ by {worst:.1e} of the greatest output (at most {TOLERANCE:.0e} is "
                    f"rounding): not plain bi-level routing attention{self._suspects()}",
                    8,
                )

    def _suspects(self) -> str:
        """What in the block may be the cause, for the report."""
        logits = self.flow.between(self.guess.route.tensor, [self.flow.nodes[self.anchors.softmax].input[0]])
        found = []
        for index in logits:
            node = self.flow.nodes[index]
            operands = [name for name in node.input if name and name in self.flow.static]
            linked = any(index == link.node for link in self.guess.route.links)
            sizes = [
                math.prod(self.observations[0].values[name].shape)
                for name in operands
                if name in self.observations[0].values
            ]
            sizes += [
                math.prod(self.flow.initializers[name].dims) for name in operands if name in self.flow.initializers
            ]
            if is_standard(node, "Add", "Mul", "Div", "Sub") and not linked and any(size > 1 for size in sizes):
                found.append(f"{node.op_type} ({label(node)}) with a tensor of more than one value")
            if is_standard(node, "AveragePool", "Conv", "Pad") and not linked:
                found.append(f"{node.op_type} ({label(node)})")
        return f"; it has {', '.join(found)}" if found else ""
