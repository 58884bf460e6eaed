"""Is this candidate the op? Attributes from shapes and values, and the proof by running both.

The shapes of a few tensors give the regions, top-k, heads and channels; the size of the attention logits gives the
scale; the rest is not looked at. If the guess is right the op and the candidate agree on random inputs; if anything at
all is different (a mask, pooled keys, weighted values, other regions, heads that interleave) they do not, and the block
stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from edgeformer.graph.fusion.anchors import Anchors
from edgeformer.graph.fusion.dataflow import VIEW_OPS, Dataflow, is_standard, label
from edgeformer.graph.fusion.draws import Draw, draw_block_input
from edgeformer.graph.fusion.escapes import Chain, Escape, find_escapes
from edgeformer.graph.fusion.execution import Array, ExecutionError, Observation, Session, extract
from edgeformer.graph.fusion.projection import Layout, Route, find_routes, orient, output_channels
from edgeformer.graph.fusion.replacement import Part, Plan
from edgeformer.ops.bi_level_routing_attention import Attributes, reference_routing, with_function

__all__ = ["TOLERANCE", "Candidate", "Verdict", "prove"]

# Greatest difference that FP32 rounding explains, as a fraction of the greatest output.
TOLERANCE = 1e-5
# Everything that a block may consist of. An op with a threshold (Clip, Relu) could differ from the op only on inputs
# that no draw reaches, so it is not for the draws to decide.
_BLOCK_OPS = VIEW_OPS | {
    "Add",
    "AveragePool",
    "Cast",
    "Concat",
    "Conv",
    "Div",
    "Dropout",
    "Einsum",
    "Expand",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "Mul",
    "Pad",
    "ReduceMean",
    "ReduceSum",
    "Slice",
    "Softmax",
    "Split",
    "Sub",
    "Tile",
    "TopK",
    "Where",
}
_LAYOUTS: tuple[Layout, ...] = ("NHWC", "NCHW")
_PERM: dict[Layout, tuple[int, ...]] = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 2, 3, 1)}


@dataclass
class Candidate:
    """Everything about a candidate that can be read off the graph.

    Attributes:
        anchors: its fixed points.
        routes: where the op could start.
        scope: every node whose static inputs may be needed.
        data: every tensor whose shape may be needed.
    """

    anchors: Anchors
    routes: list[Route]
    scope: list[int] = field(default_factory=list)
    data: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, flow: Dataflow, anchors: Anchors) -> Candidate:
        """Collect it."""
        routes = find_routes(flow, anchors.tail[0])
        candidate = cls(anchors, routes)
        topk, softmax = flow.nodes[anchors.topk], flow.nodes[anchors.softmax]
        candidate.data = [topk.input[0], topk.output[1], softmax.input[0], *anchors.tail]
        if not routes:
            return candidate
        region = flow.between(routes[-1].tensor, [anchors.tail[-1]])
        escapes = find_escapes(flow, region, anchors.tail[-1], ())
        chains = [chain for escape in escapes for chain in escape.chains]
        outside = [index for escape in escapes for index in escape.nodes]
        outside += [index for chain in chains for index in chain.nodes]
        candidate.scope = sorted({*region, *outside})
        candidate.data += [route.tensor for route in routes]
        candidate.data += [name for link in routes[-1].links for name in link.operands]
        candidate.data += [name for chain in chains for name in (chain.source, chain.target)]
        return candidate

    def statics(self, flow: Dataflow) -> set[str]:
        """Static tensors, other than constants, that the scope reads."""
        names = {name for index in self.scope for name in flow.reads(index) if name in flow.static}
        operands = {name for route in self.routes for link in route.links for name in link.operands}
        made = {name for name in names - operands if name in flow.producer}
        return {name for name in made if not is_standard(flow.nodes[flow.producer[name]], "Constant")}


@dataclass
class Verdict:
    """What came out.

    Attributes:
        plan: how to rewrite the block; None where it was not proven.
        nodes: the block's nodes, as far as they are known.
        attributes: the attributes, as far as they were derived.
        error: greatest relative difference over the draws that were run.
        draws: draws run.
        reason: why there is no plan.
        progress: how far the guess got; the reason of the guess that got furthest is the one to tell.
    """

    plan: Plan | None = None
    nodes: tuple[int, ...] = ()
    attributes: Attributes | None = None
    error: float | None = None
    draws: int = 0
    reason: str | None = None
    progress: int = 0


class _RejectedError(Exception):
    """A guess does not hold. ``progress`` tells how far it got."""

    def __init__(self, reason: str, progress: int) -> None:
        super().__init__(reason)
        self.progress = progress


@dataclass(frozen=True)
class _Guess:
    route: Route
    layout: Layout
    output: str
    output_layout: Layout


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
    whole = flow.between(candidate.routes[-1].tensor, [candidate.anchors.tail[-1]]) if candidate.routes else []
    best = Verdict(nodes=tuple(whole), reason="no single tensor feeds the queries, keys and values", progress=-1)
    try:
        for index in whole:
            if not is_standard(flow.nodes[index], *_BLOCK_OPS):
                node = flow.nodes[index]
                raise _RejectedError(f"{node.op_type} ({label(node)}) is no part of bi-level routing attention", 9)
        _check_topk(flow, candidate.anchors, whole)
    except _RejectedError as rejected:
        return Verdict(nodes=tuple(whole), reason=str(rejected))
    for output in reversed(candidate.anchors.tail):
        for route in candidate.routes:
            for layout in _LAYOUTS:
                for output_layout in _LAYOUTS:
                    guess = _Guess(route, layout, output, output_layout)
                    verdict = Verdict(nodes=tuple(flow.between(route.tensor, [output])))
                    try:
                        _Attempt(flow, opset, candidate, observations, guess, verdict).run(name, draws, seed)
                    except _RejectedError as rejected:
                        verdict.reason, verdict.progress = str(rejected), rejected.progress
                        best = max(best, verdict, key=lambda one: one.progress)
                    else:
                        return verdict
    return best


def _check_topk(flow: Dataflow, anchors: Anchors, region: Sequence[int]) -> None:
    node = flow.nodes[anchors.topk]
    if any(index in set(region) for index in flow.readers(node.output[0])):
        raise _RejectedError(
            "the routing weights (TopK's values) go into the output: soft routing, which the op does not do", 9
        )
    if next((attribute.i for attribute in node.attribute if attribute.name == "largest"), 1) != 1:
        raise _RejectedError("TopK picks the smallest routing logits; the op picks the largest", 9)


class _Attempt:
    """One guess, on its way to a plan."""

    def __init__(
        self,
        flow: Dataflow,
        opset: Sequence[onnx.OperatorSetIdProto],
        candidate: Candidate,
        observations: Sequence[Observation],
        guess: _Guess,
        verdict: Verdict,
    ) -> None:
        self.flow, self.opset, self.guess, self.verdict = flow, opset, guess, verdict
        self.observations = observations
        self.anchors = candidate.anchors
        self.links = guess.route.links
        self.linear = next((link for link in self.links if link.linear), None)
        self.region = flow.between(guess.route.tensor, [guess.output])
        self.escapes = find_escapes(flow, self.region, guess.output, guess.route.above)

    def run(self, name: str, draws: int, seed: Sequence[int]) -> None:
        """Fill in the verdict.

        Raises:
            _RejectedError: the guess does not hold.
        """
        geometries = [self._geometry(observation.shapes) for observation in self.observations]
        attributes = {geometry.attributes for geometry in geometries}
        if len(attributes) > 1:
            raise _RejectedError("the number of regions, heads or channels changes with the input's size", 4)
        rng = np.random.default_rng(list(seed))
        try:
            cases = [
                _Case(self, geometry, observation)
                for geometry, observation in zip(geometries, self.observations, strict=True)
            ]
            (guessed,) = attributes
            draw = cases[0].draw(rng, guessed)
            results = cases[0].candidate(draw)
            scale = self._scale(results[self.flow.nodes[self.anchors.softmax].input[0]], draw, guessed)
            proven = Attributes(guessed.num_heads, guessed.regions, guessed.topk, guessed.qk_dim, scale)
            self.verdict.attributes = proven
            parts = [self._part(escape, results[escape.tensor], draw.qkv) for escape in self.escapes]
            chains = [self._moved(chain) for escape in self.escapes for chain in escape.chains]
            plan = Plan(
                name=name,
                attributes=proven,
                route=self.guess.route,
                layout=self.guess.layout,
                output=self.guess.output,
                output_layout=self.guess.output_layout,
                parts=tuple(parts),
                moves=tuple((chain, perm) for chain, perm in chains if perm is not None),
            )
            self._compare(cases, plan, rng, max(draws, len(cases)))
        except ExecutionError as error:
            raise _RejectedError(f"ONNX Runtime does not run the block on its own: {error}", 5) from error
        self.verdict.plan = plan

    def _geometry(self, shapes: Mapping[str, tuple[int, ...]]) -> _Geometry:
        topk, softmax = self.flow.nodes[self.anchors.topk], self.flow.nodes[self.anchors.softmax]
        picked_from, picked = shapes[topk.input[0]], shapes[topk.output[1]]
        axis = next((attribute.i for attribute in topk.attribute if attribute.name == "axis"), -1)
        count = picked_from[axis]
        side = math.isqrt(count)
        if side * side != count:
            raise _RejectedError(f"{count} regions are no square number; the op has regions x regions of them", 9)
        image = shapes[self.guess.route.tensor]
        if len(image) != 4:
            raise _RejectedError("q, k and v come from no tensor in image layout ([N, H, W, C] or [N, C, H, W])", 0)
        batch, height, width, inner = (image[axis] for axis in _PERM[self.guess.layout])
        if batch * count * count != math.prod(picked_from) or height % side or width % side:
            raise _RejectedError("q, k and v come from no tensor in image layout ([N, H, W, C] or [N, C, H, W])", 0)
        result = shapes[self.guess.output]
        dim, rest = divmod(math.prod(result), batch * height * width)
        expected = tuple((batch, height, width, dim)[i] for i in np.argsort(_PERM[self.guess.output_layout]))
        if rest or result != expected:
            raise _RejectedError("the attention output is not brought back to image layout before it is used", 1)
        made = output_channels(self.links, {name: shapes[name] for link in self.links for name in link.operands})
        channels = inner if made is None else made
        qk_dim, rest = divmod(channels - dim, 2)
        if rest or qk_dim < 1:
            raise _RejectedError(
                f"{channels} channels of queries, keys and values do not fit an output of {dim}: "
                "the op takes q, k and v from one Linear",
                2,
            )
        logits = shapes[softmax.input[0]]
        attended = logits[next((attribute.i for attribute in softmax.attribute if attribute.name == "axis"), -1)]
        tokens = height * width // count
        if attended != picked[axis] * tokens:
            raise _RejectedError(
                f"every query sees {attended} keys, not topk * tokens per region = {picked[axis]} * {tokens}: "
                "keys and values are pooled (kv_downsample_mode is not identity) or gathered in another way",
                3,
            )
        heads, rest = divmod(math.prod(logits), batch * height * width * attended)
        if rest or qk_dim % heads or dim % heads:
            raise _RejectedError(f"the attention logits {logits} fit no number of heads", 3)
        return _Geometry(
            (batch, height, width, inner), channels, Attributes(heads, side, picked[axis], qk_dim, qk_dim**-0.5)
        )

    def _scale(self, logits: Array, draw: Draw, guessed: Attributes) -> float:
        """The factor on the logits, from their size: however they are laid out, the sum of their squares is the same.

        ``sum((scale * Q K^T) ** 2) = scale ** 2 * sum(Q^T Q * K^T K)``, summed over heads, regions and picked regions.
        """
        batch, height, width, _ = draw.qkv.shape
        side, heads, qk = guessed.regions, guessed.num_heads, guessed.qk_dim
        tiles = draw.qkv[..., : 2 * qk].astype(np.float64)
        tiles = tiles.reshape(batch, side, height // side, side, width // side, 2, heads, qk // heads)
        tiles = tiles.transpose(5, 0, 1, 3, 6, 2, 4, 7).reshape(2, batch, side * side, heads, -1, qk // heads)
        query, key = (np.swapaxes(part, -1, -2) @ part for part in tiles)
        routing = reference_routing(draw.qkv, guessed)
        picked = np.stack([key[n][routing[n]].sum(axis=1) for n in range(batch)])
        power = float((query * picked).sum())
        scale = math.sqrt(float((logits.astype(np.float64) ** 2).sum()) / power)
        if not (math.isfinite(scale) and scale > 0):
            raise _RejectedError(f"the attention logits are {scale} times q @ k", 5)
        dim = draw.qkv.shape[3] - 2 * qk
        usual = [width**-0.5 for width in (qk, qk // heads, dim, dim // heads)]
        nearest = min(usual, key=lambda value: abs(value - scale))
        return float(np.float32(nearest if abs(nearest - scale) < 1e-6 * scale else scale))

    def _part(self, escape: Escape, value: Array, qkv: Array) -> Part:
        """Which channels of qkv, in which layout, an escaped tensor is."""
        size = np.abs(qkv).max()
        for layout in _LAYOUTS:
            if value.ndim != 4:
                break
            image = value.transpose(_PERM[layout])
            channels = image.shape[3]
            if image.shape[:3] != qkv.shape[:3]:
                continue
            for start in range(qkv.shape[3] - channels + 1):
                part = qkv[..., start : start + channels]
                here = np.abs(part[0, 0, 0] - image[0, 0, 0]).max() < TOLERANCE * size
                if here and np.abs(part - image).max() < TOLERANCE * size:
                    return Part(escape.tensor, layout, start, start + channels)
        readers = [label(self.flow.nodes[index]) for index in self.flow.readers(escape.tensor)]
        raise _RejectedError(
            f"{escape.tensor} comes from inside the block, is no part of qkv in image layout, and is used outside: "
            + (", ".join(readers) or "it is an output of the graph"),
            6,
        )

    def _moved(self, chain: Chain) -> tuple[Chain, tuple[int, ...] | None]:
        """The permutation that a chain of views between two image layouts amounts to; None if it is none."""
        perm: tuple[int, ...] | None = None
        for number, observation in enumerate(self.observations):
            shape, target = observation.shapes[chain.source], observation.shapes[chain.target]
            model = extract(
                self.flow, self.opset, chain.nodes, {chain.source: len(shape)}, [chain.target], observation.values
            )
            value = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
            result = Session(model).run({chain.source: value})[chain.target]
            if len(shape) != 4 or len(target) != 4:
                return chain, None
            tried = [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)] if number == 0 else [perm] if perm else []
            perm = next((p for p in tried if np.array_equal(value.transpose(p), result)), None)
        return chain, perm

    def _compare(self, cases: Sequence[_Case], plan: Plan, rng: np.random.Generator, draws: int) -> None:
        worst = 0.0
        for number in range(draws):
            case = cases[number % len(cases)]
            draw = case.draw(rng, plan.attributes)
            expected, got = case.candidate(draw), case.replacement(plan, draw)
            self.verdict.draws += 1
            for tensor in [plan.output, *(part.tensor for part in plan.parts)]:
                if expected[tensor].shape != got[tensor].shape:
                    raise _RejectedError(f"the op makes {got[tensor].shape}, the block {expected[tensor].shape}", 7)
                error = float(np.abs(expected[tensor] - got[tensor]).max() / np.abs(expected[tensor]).max())
                worst = max(worst, error if math.isfinite(error) else math.inf)
            self.verdict.error = worst
            if worst > TOLERANCE:
                raise _RejectedError(
                    f"the block and the op differ by {worst:.1e} of the greatest output (at most "
                    f"{TOLERANCE:.0e} is rounding): " + self._suspects(),
                    8,
                )

    def _suspects(self) -> str:
        """What in the block may be the cause, for the report."""
        logits = self.flow.between(self.guess.route.tensor, [self.flow.nodes[self.anchors.softmax].input[0]])
        found = []
        for index in logits:
            node = self.flow.nodes[index]
            operands = [name for name in node.input if name and name in self.flow.static]
            linked = any(index == link.node for link in self.links)
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
        return "not plain bi-level routing attention" + (f"; it has {', '.join(found)}" if found else "")


@dataclass(frozen=True)
class _Geometry:
    """What the shapes say: shape of the image ``(N, H, W, C)``, channels of qkv, attributes with a guessed scale."""

    image: tuple[int, int, int, int]
    channels: int
    attributes: Attributes


class _Case:
    """One guess at one set of input shapes, ready to run."""

    def __init__(self, attempt: _Attempt, geometry: _Geometry, observation: Observation) -> None:
        self._attempt, self._geometry = attempt, geometry
        operands = [name for link in attempt.links for name in link.operands]
        self._inputs = {attempt.guess.route.tensor: 4}
        self._inputs |= {name: len(observation.shapes[name]) for name in operands}
        self._shapes = {name: observation.shapes[name] for name in operands}
        softmax = attempt.flow.nodes[attempt.anchors.softmax]
        wanted = [attempt.guess.output, softmax.input[0], *(escape.tensor for escape in attempt.escapes)]
        outside = [index for escape in attempt.escapes for index in escape.nodes]
        nodes = sorted({*attempt.region, *outside})
        self._model = extract(
            attempt.flow, attempt.opset, nodes, self._inputs, list(dict.fromkeys(wanted)), observation.values
        )
        self._session: Session | None = None
        self._replacement: Session | None = None

    def draw(self, rng: np.random.Generator, attributes: Attributes) -> Draw:
        """A random input.

        Raises:
            _RejectedError: no input with decisive routing was found.
        """
        biases = [link for link in self._attempt.links if link.kind == "bias" or len(link.operands) == 2]
        draw = draw_block_input(
            rng,
            attributes,
            self._geometry.image,
            self._geometry.channels,
            linear=self._attempt.linear is not None,
            bias=bool(biases),
        )
        if draw is None:
            raise _RejectedError("no random input was found that makes the routing decisive", 5)
        return draw

    def feeds(self, draw: Draw) -> dict[str, Array]:
        """What the block and its replacement get: the image in its layout, the weight and the bias in theirs."""
        guess = self._attempt.guess
        feeds = {guess.route.tensor: draw.image.transpose(np.argsort(_PERM[guess.layout])).copy()}
        added = False
        for link in self._attempt.links:
            operands = list(link.operands)
            if link.linear:
                assert draw.weight is not None
                weight = operands.pop(0)
                feeds[weight] = orient(link, draw.weight)
            for name in operands:
                shape = self._shapes[name]
                if math.prod(shape) != self._geometry.channels:
                    raise _RejectedError(
                        f"{name} with shape {shape} is no bias of {self._geometry.channels} channels", 4
                    )
                # Where two biases are added the first carries the drawn values and the others are zero.
                values = np.zeros(self._geometry.channels, np.float32) if added else draw.bias
                assert values is not None
                feeds[name] = values.reshape(shape)
                added = True
        return feeds

    def candidate(self, draw: Draw) -> dict[str, Array]:
        """The block's outputs."""
        if self._session is None:
            self._session = Session(self._model)
        return self._session.run(self.feeds(draw))

    def replacement(self, plan: Plan, draw: Draw) -> dict[str, Array]:
        """The replacement's outputs, by the same names."""
        if self._replacement is None:
            nodes = plan.block_nodes(self._attempt.flow.nodes)
            model = onnx.ModelProto()
            model.CopyFrom(self._model)
            del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
            model.graph.node.extend(nodes)
            names = [plan.output, *(part.tensor for part in plan.parts)]
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
            self._replacement = Session(with_function(model))
        return self._replacement.run(self.feeds(draw))
