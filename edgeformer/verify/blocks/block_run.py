"""One block of two forms: run on the same things, and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from edgeformer.errors import InputError
from edgeformer.records.blocks import BlockCheck, BlockFault
from edgeformer.records.terms import Precision
from edgeformer.records.verification import GateVerdict
from edgeformer.runtime import Array
from edgeformer.verify.blocks.cuts import Block, Counterpart
from edgeformer.verify.blocks.expectation import Read
from edgeformer.verify.blocks.faults import Naming
from edgeformer.verify.blocks.graphs import FormGraph, PartSession
from edgeformer.verify.blocks.noise import Noise, gap_of_picks
from edgeformer.verify.blocks.references import GraphReference, Reference, Seen, States
from edgeformer.verify.blocks.rounding import Rounded, RoundedSeen
from edgeformer.verify.blocks.steps import Steps
from edgeformer.verify.figures import Accumulator
from edgeformer.verify.gates import block_stage, check, largest_tie

__all__ = ["BlockRun", "Pair"]


class Pair:
    """Two forms, and what the one calls the other's tensors."""

    def __init__(self, reference: Reference, candidate: FormGraph, precision: Precision, steps: Steps) -> None:
        """Match them.

        Args:
            reference: the form to agree with.
            candidate: the form that is judged.
            precision: of the candidate.
            steps: its quantizers.
        """
        self.reference = reference
        self.candidate = candidate
        self.precision = precision
        self.steps = steps
        self.there: Mapping[str, Sequence[Counterpart]] = reference.counterparts(candidate)
        self.naming = Naming(candidate)

    def names(self, tensors: Sequence[str]) -> list[str]:
        """What the candidate calls tensors, all the names that it has for them."""
        return list(dict.fromkeys(one.name for name in tensors for one in self.there.get(name, ())))

    def laid(self, values: Mapping[str, Array], tensors: Sequence[str]) -> dict[str, Array]:
        """The reference's values by the candidate's names, as they lie there.

        Where several of its tensors are one there, a tensor and its transpose, the first counts: that is computed.
        """
        found: dict[str, Array] = {}
        for name in tensors:
            for one in self.there.get(name, ()) if name in values else ():
                found.setdefault(one.name, values[name].transpose(one.perm) if one.perm else values[name])
        return found


class BlockRun:
    """One block of both forms, open, and the figures of its batches. Use it as a context manager.

    Attributes:
        broken: whether the candidate does not run up to the end of the block on what it made itself.
    """

    def __init__(self, pair: Pair, block: Block, states: States, broken: bool) -> None:
        """Take a block; it is opened when the context is entered.

        Args:
            pair: the two forms.
            block: the block.
            states: of the candidate, run on what it made itself.
            broken: whether it does not run up to the beginning of the block.
        """
        self.broken = broken
        self._pair = pair
        self._block = block
        self._states = states
        self._stack = ExitStack()
        self._inner = [name for name in pair.reference.inner(block) if name in pair.there]
        self._inputs = pair.names(block.inputs)
        # What a tensor is the transpose of may be what enters the block, and is not made in it.
        self._outputs = [name for name in pair.names(block.outputs) if name not in self._inputs]
        self._ends = [name for name in pair.names(self._inner) if name not in self._inputs]
        self._stops = {*self._inputs, *self._ends}
        self._routing = pair.candidate.routing_in(self._outputs, self._inputs)
        self._cells: dict[str, list[int]] = {end: pair.candidate.reached([end], self._stops)[0] for end in self._ends}
        self._noise = {name: Noise() for name in self._ends}
        self._isolated = {name: Accumulator(name) for name in self._outputs}
        self._accumulated = {name: Accumulator(name) for name in self._outputs}
        self._gaps = {name: [0.0, 0.0] for name in self._routing}
        self._rows = [0, 0]
        self._faults: dict[str, list[BlockFault]] = {}
        self._sessions: list[PartSession] = []
        self._whole: PartSession | None = None
        self._own: PartSession | None = None
        self._rounded: Rounded | None = None

    def __enter__(self) -> BlockRun:
        self._run = self._stack.enter_context(self._pair.reference.opened(self._block, self._inner))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, batch: int, images: Array) -> None:
        """Run a batch of images through the block of both forms.

        Args:
            batch: its number, from 0.
            images: the images, for what reads the network's input.
        """
        seen = self._run(batch)
        given = self._pair.laid(seen.values, [*self._block.inputs, *self._inner])
        picks = {}
        if seen.picks is not None and len(seen.picks) == len(self._routing):
            picks = {name: pick.regions for name, pick in zip(self._routing, seen.picks, strict=True)}
        if batch == 0:
            self._open(given, picks, seen, images)
        rounded = None if self._rounded is None else self._rounded.run(seen, images)
        found: dict[str, Array] = {}
        for session in self._sessions:
            found |= session.run({**given, **picks}, images)
        self._add_noise(given, found, rounded)
        if picks:
            self._add_routing(seen, found, rounded)
        if self._whole is not None:
            made = self._whole.run({**given, **picks}, images)
            _add(self._isolated, given, made)
        self._go_on(batch, given, images)

    def _open(self, given: Mapping[str, Array], picks: Mapping[str, Array], seen: Seen, images: Array) -> None:
        ranks = {name: given[name].ndim for name in self._stops if name in given}
        forced = {name: regions.ndim for name, regions in picks.items()}
        values = {**given, **picks}
        whole = self._try(self._ends, ranks, forced, values, images)
        if isinstance(whole, PartSession):
            self._sessions = [whole]
        else:
            # One of the results cannot be made: which one shows when each is made by itself.
            for end in self._ends:
                alone = self._try([end], ranks, forced, values, images)
                if not isinstance(alone, PartSession) and forced:
                    alone = self._try([end], ranks, {}, values, images)
                if isinstance(alone, PartSession):
                    self._sessions.append(alone)
                else:
                    self._add_fault(end, self._pair.naming.fails(end, self._stops, alone))
        at_start = {name: ranks[name] for name in self._inputs if name in ranks}
        isolated = self._try(self._outputs, at_start, forced, values, images)
        self._whole = isolated if isinstance(isolated, PartSession) else None
        if self._outputs and not self.broken:
            own = self._session(self._outputs, at_start, {})
            self._own = own if isinstance(own, PartSession) else None
            self.broken = self._own is None
        if self._ends and self._pair.precision != "fp32" and isinstance(self._pair.reference, GraphReference):
            self._rounded = self._stack.enter_context(
                Rounded(
                    self._pair.reference.graph, self._block, self._inner, seen, self._pair.precision, self._quantized()
                )
            )

    def _session(
        self, ends: Sequence[str], ranks: Mapping[str, int], routing: Mapping[str, int]
    ) -> PartSession | InputError:
        try:
            return self._stack.enter_context(PartSession(self._pair.candidate.part(ends, ranks, routing=routing)))
        except InputError as error:
            return error

    def _try(
        self,
        ends: Sequence[str],
        ranks: Mapping[str, int],
        routing: Mapping[str, int],
        values: Mapping[str, Array],
        images: Array,
    ) -> PartSession | InputError:
        """A session that makes some tensors of others; or why it does not run."""
        session = self._session(ends, ranks, routing)
        if isinstance(session, PartSession):
            try:
                session.run(values, images)
            except InputError as error:
                return error
        return session

    def _quantized(self) -> dict[str, dict[str, Read]]:
        """For each result what is INT8 on the way to it in the candidate."""
        moved = {name for name in self._pair.reference.inner(self._block) if name not in self._pair.there}
        known = {*self._inner, *self._block.inputs, *moved, self._pair.candidate.input}
        found: dict[str, dict[str, Read]] = {}
        for name in self._inner:
            for one in self._pair.there[name]:
                for quantizer in self._pair.steps.among(self._cells.get(one.name, ())):
                    tensor = quantizer.source(known)
                    if tensor is not None:
                        offset, factor = quantizer.moves[tensor]
                        read = Read(
                            quantizer.recorded,
                            offset if offset.any() else None,
                            factor if (factor != 1).any() else None,
                        )
                        found.setdefault(name, {})[tensor] = self._evened(tensor, read) if tensor in moved else read
        return found

    def _evened(self, norm: str, read: Read) -> Read:
        """How a norm's result is made INT8 whose scale and offset SmoothQuant changed: by what they were and are."""
        assert isinstance(self._pair.reference, GraphReference)  # nothing else is rounded
        before, behind = (graph.norm(norm) for graph in (self._pair.reference.graph, self._pair.candidate))
        if before is None or behind is None or before[0].shape != behind[0].shape or not behind[0].all():
            return Read()
        factor = before[0] / behind[0]
        return Read(read.step, factor * behind[1] - before[1], factor)

    def _add_noise(self, given: Mapping[str, Array], found: Mapping[str, Array], rounded: RoundedSeen | None) -> None:
        explained = {} if rounded is None else self._pair.laid(rounded.values, self._inner)
        for end in self._ends:
            if end in found:
                self._noise[end].add(given[end], found[end], explained.get(end))

    def _add_routing(self, seen: Seen, found: Mapping[str, Array], rounded: RoundedSeen | None) -> None:
        assert seen.picks is not None  # the caller looked
        for number, (name, pick) in enumerate(zip(self._routing, seen.picks, strict=True)):
            if name not in found:
                continue
            end = self._end_of(name)
            picked = found[name]
            if picked.shape[-1] != pick.regions.shape[-1]:
                self._add_fault(
                    end,
                    self._pair.naming.topk(end, self._stops, pick.regions.shape[-1], picked.shape[-1]),
                )
                continue
            if picked.shape != pick.regions.shape:
                continue
            gap, equal, rows = gap_of_picks(pick.logits, pick.regions, picked)
            self._rows = [self._rows[0] + equal, self._rows[1] + rows]
            moved = 0.0 if rounded is None else float(abs(rounded.logits[number] - pick.logits).max())
            allowed = largest_tie(self._pair.precision, moved, float(abs(pick.logits).max()))
            if gap > allowed:
                self._add_fault(end, self._pair.naming.routing(end, self._stops, gap, allowed))

    def _end_of(self, picked: str) -> str:
        """The first result that depends on a routing decision."""
        position = self._pair.candidate.flow.producer[picked]
        return next((end for end, nodes in self._cells.items() if position in nodes), self._ends[-1])

    def _add_fault(self, end: str, fault: BlockFault) -> None:
        faults = self._faults.setdefault(end, [])
        if all(fault.kind != other.kind for other in faults):
            faults.append(fault)

    def _go_on(self, batch: int, given: Mapping[str, Array], images: Array) -> None:
        """Run the candidate's block on what its blocks before made."""
        if self._own is not None and not self.broken:
            try:
                made = self._own.run(self._states.get(batch, self._inputs), images)
            except InputError:
                self.broken = True
            else:
                _add(self._accumulated, given, made)
                crossing = self._pair.names(self._block.crossing)
                self._states.put(batch, {name: made[name] for name in crossing if name in made})
                self._states.keep(batch, crossing)

    def result(self) -> BlockCheck:
        """What was found, over all batches."""
        stage, naming = block_stage(self._pair.precision), self._pair.naming
        worst: GateVerdict | None = None
        for end in self._ends:
            noise = self._noise[end]
            if noise.shapes is not None:
                self._add_fault(end, naming.shape(end, self._stops, *noise.shapes))
            if not noise.any:
                continue
            verdict = check(stage, {noise.metric(self._pair.precision): noise.figure(self._pair.precision)})
            if not verdict.passed:
                self._add_fault(end, naming.values(end, self._stops, verdict))
            if worst is None or not verdict.value <= worst.value:
                worst = verdict.model_copy(update={"output": end})
        faults: list[BlockFault] = []
        seen: set[str] = set()
        for end in self._ends:
            for quantizer in self._pair.steps.among(self._cells[end]):
                if not quantizer.as_recorded and quantizer.output not in seen:
                    seen.add(quantizer.output)
                    faults.append(naming.scale(quantizer))
            faults += self._faults.get(end, [])
        return BlockCheck(
            name=self._block.name,
            inputs=self._block.inputs,
            outputs=self._block.outputs,
            isolated_snr_db=_lowest(self._isolated),
            accumulated_snr_db=None if self.broken else _lowest(self._accumulated),
            routing_agreement=self._rows[0] / self._rows[1] if self._rows[1] else None,
            verdict=worst,
            faults=tuple(faults),
        )


def _add(figures: Mapping[str, Accumulator], given: Mapping[str, Array], made: Mapping[str, Array]) -> None:
    for name, accumulator in figures.items():
        if name in given and name in made and made[name].shape == given[name].shape and given[name].dtype.kind == "f":
            accumulator.update(given[name], made[name])


def _lowest(figures: Mapping[str, Accumulator]) -> float | None:
    found = [accumulator.result().snr_db for accumulator in figures.values() if accumulator.samples]
    known = [value for value in found if value is not None]
    return min(known) if known else None
