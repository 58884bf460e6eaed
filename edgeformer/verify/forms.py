"""Run the forms of a model side by side and judge each: PyTorch, exported, fused, typed, engine.

Polygraphy runs them (its streaming Comparator, so that one batch is in memory at a time) and calls for the comparison
of each form with the one before and with the first.
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from polygraphy.comparator import Comparator
from polygraphy.exception import PolygraphyException

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.graph.onnx_files import load_model
from edgeformer.machine.devices import find_gpus
from edgeformer.runtime import EngineSession, Flavour, OnnxSession, Session, can_run_engine, check_feeds, static_batch
from edgeformer.runtime.polygraphy_support import quiet_polygraphy
from edgeformer.runtime.session import Array
from edgeformer.verify.batches import BatchLike, as_batch, input_name
from edgeformer.verify.compare import OutputComparer
from edgeformer.verify.decisions import RoutingOutput, expose_routing
from edgeformer.verify.figures import Comparison, worst
from edgeformer.verify.gates import DEFAULT_MAX_DROP, check, judged_against
from edgeformer.verify.metrics.classification import Accuracy, correct_top1
from edgeformer.verify.results import FormReport, VerifyReport
from edgeformer.verify.routing import RoutingAccumulator, RoutingAgreement
from edgeformer.verify.runner import SessionRunner

__all__ = ["ENGINE_NOT_RUN", "Form", "verify_forms"]

ENGINE_NOT_RUN = "engine not run: no GPU"


@dataclass(frozen=True)
class Form:
    """One form of the model. Use the ``from_`` constructors, in a ``with`` statement, which closes the session.

    Attributes:
        name: its name in the report; every form has another.
        session: what runs it; None where it cannot be run here.
        gate: the name of its gate (see `gates`), or None where nothing is judged, as in the first form.
        routing: the outputs of ``session`` that show routing decisions; they are compared as sets, not as figures.
        reason: why it cannot be run, where ``session`` is None.
    """

    name: str
    session: Session | None
    gate: str | None = None
    routing: tuple[RoutingOutput, ...] = ()
    reason: str | None = None

    @classmethod
    def from_session(cls, name: str, session: Session, gate: str | None = None) -> Form:
        """A form that runs in any session, such as the PyTorch model's."""
        return cls(name, session, gate)

    @classmethod
    def from_onnx(
        cls,
        name: str,
        model: onnx.ModelProto | str | os.PathLike[str],
        gate: str | None = None,
        *,
        threads: int | None = None,
    ) -> Form:
        """An ONNX model or file in ONNX Runtime, made to show its routing decisions as well.

        Raises:
            InputError: the file cannot be read, or ONNX Runtime cannot run it.
        """
        exposed, routing = expose_routing(model if isinstance(model, onnx.ModelProto) else load_model(model))
        return cls(name, OnnxSession(exposed, threads=threads), gate, routing)

    @classmethod
    def from_engine(
        cls,
        name: str,
        engine: str | os.PathLike[str],
        gate: str,
        *,
        plugin_library: str | os.PathLike[str] | None = None,
        flavour: Flavour | None = None,
        sm: int | None = None,
    ) -> Form:
        """An engine file on this machine's GPU; where there is none that runs it, a stage that reports that.

        Args:
            name: the stage's name.
            engine: the engine file.
            gate: the name of its gate.
            plugin_library: as for `EngineSession`.
            flavour: as for `EngineSession`.
            sm: compute capability the engine was built for, times ten; on a GPU of another one it is not run, and that
                is no fault. None takes any.

        Raises:
            InputError: as for `EngineSession`.
        """
        gpus = find_gpus().gpus
        if not gpus:
            return cls(name, None, gate, reason=ENGINE_NOT_RUN)
        if sm not in (None, gpus[0].sm):
            reason = f"engine not run: it is for SM {sm}, and this machine's GPU is a {gpus[0].name} (SM {gpus[0].sm})"
            return cls(name, None, gate, reason=reason)
        try:
            can_run_engine(flavour, raise_error=True)
        except EnvironmentFault as fault:
            return cls(name, None, gate, reason=f"engine not run: {fault}")
        return cls(name, EngineSession(engine, plugin_library, flavour=flavour), gate)

    def close(self) -> None:
        """Close its session, where it has one."""
        if self.session is not None:
            self.session.close()

    def __enter__(self) -> Form:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Feeder:
    """Batches as Polygraphy takes them; remembers the labels and the number of real samples of the one given last."""

    batches: Iterable[BatchLike]
    name: str
    size: int | None
    labels: npt.NDArray[np.int64] | None = None
    valid: int = 0

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for item in self.batches:
            images, labels = as_batch(item)
            step = self.size or max(len(images), 1)
            for start in range(0, len(images), step):
                chunk = images[start : start + step]
                self.valid = len(chunk)
                self.labels = None if labels is None else labels[start : start + step]
                if self.size is not None and self.valid < self.size:
                    # A model of fixed batch needs a full one: the last sample again, dropped from what comes back.
                    chunk = np.concatenate([chunk, np.repeat(chunk[-1:], self.size - self.valid, axis=0)])
                yield {self.name: chunk}


class _Pair:
    """Compares one form with another while they run."""

    def __init__(self, reference: Form, candidate: Form, names: tuple[str, ...]) -> None:
        self.comparer = OutputComparer(names)
        # Only the samples that both route to the same regions, where both show their routing.
        self.alike = OutputComparer(names)
        self.alike_samples = 0
        both = reference.routing and candidate.routing
        self.routing = RoutingAccumulator(reference.routing, candidate.routing) if both else None

    def update(self, reference: dict[str, Array], candidate: dict[str, Array]) -> None:
        self.comparer.update(reference, candidate)
        if self.routing is not None:
            same = self.routing.update(reference, candidate)
            if same.any():
                self.alike.update(
                    *({name: outputs[name][same] for name in outputs} for outputs in (reference, candidate))
                )
                self.alike_samples += int(same.sum())


def _fixed_batch(forms: list[Form]) -> int | None:
    sizes = {form.name: static_batch(form.session) for form in forms if form.session is not None}
    fixed = {size for size in sizes.values() if size is not None}
    if len(fixed) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items() if size is not None)
        raise InputError(f"the forms fix different batch sizes ({listed}) and cannot run side by side")
    return fixed.pop() if fixed else None


class _Run:
    """One pass of all runnable forms over the data."""

    def __init__(self, forms: list[Form], sessions: list[Session]) -> None:
        self.forms = forms
        self.sessions = sessions
        shown = {output.name for output in forms[0].routing}
        self.names = tuple(name for name in sessions[0].outputs if name not in shown)
        # Each with the first and with the one before; with the second of them these are one and the same.
        wanted = {(0, later) for later in range(1, len(forms))} | {(k - 1, k) for k in range(1, len(forms))}
        routed = [index for index, form in enumerate(forms) if form.routing]
        wanted |= {(routed[0], later) for later in routed[1:]} | set(itertools.pairwise(routed))
        self.pairs = {pair: _Pair(forms[pair[0]], forms[pair[1]], self.names) for pair in sorted(wanted)}
        self.routed = routed
        self.index = {form.name: index for index, form in enumerate(forms)}
        self.seconds = [0.0] * len(forms)
        self.correct = [0] * len(forms)
        self.samples = 0
        # Accuracy is that of a classifier: one output, [samples, classes].
        self.labelled = len(self.names) == 1 and len(sessions[0].outputs[self.names[0]].shape) == 2

    def run(self, batches: Iterable[BatchLike], progress: Callable[[int], None] | None) -> None:
        feeder = _Feeder(batches, input_name(self.sessions[0]), _fixed_batch(self.forms))
        runners = [SessionRunner(session, form.name) for form, session in zip(self.forms, self.sessions, strict=True)]

        def checked() -> Iterator[dict[str, Array]]:
            for feeds in feeder:
                images = next(iter(feeds.values()))
                for session in self.sessions:
                    check_feeds(session.inputs, {input_name(session): images})
                yield feeds

        def compare(reference: Any, candidate: Any) -> OrderedDict[str, bool]:
            pair = self.pairs[self.index[reference.runner_name], self.index[candidate.runner_name]]
            ours, theirs = (
                {name: result[name][: feeder.valid] for name in result} for result in (reference, candidate)
            )
            pair.update(ours, theirs)
            return OrderedDict((name, bool(np.isfinite(theirs[name]).all())) for name in self.names)

        with quiet_polygraphy():
            for results in Comparator.run(runners, data_loader=checked(), streaming=True):
                Comparator.compare_accuracy(results, comparisons=list(self.pairs), compare_func=compare)
                for index, (_, iterations) in enumerate(results):
                    self.seconds[index] += iterations[0].runtime
                    self._count(index, iterations[0], feeder)
                self.samples += feeder.valid
                if progress is not None:
                    progress(feeder.valid)

    def _count(self, index: int, outputs: Any, feeder: _Feeder) -> None:
        if feeder.labels is None or not self.labelled:
            self.labelled = False
            return
        logits = outputs[self.names[0]][: feeder.valid]
        self.correct[index] += correct_top1(logits, feeder.labels)

    def accuracy(self, index: int) -> Accuracy | None:
        return Accuracy(self.correct[index], self.samples) if self.labelled else None

    def figures(self, reference: int, candidate: int) -> dict[str, Comparison]:
        return self.pairs[reference, candidate].comparer.result()

    def alike(self, reference: int, candidate: int) -> dict[str, Comparison]:
        """The figures over samples that both route alike; over all samples where routing is not shown or none is."""
        pair = self.pairs[reference, candidate]
        return pair.alike.result() if pair.alike_samples else pair.comparer.result()

    def routing(self, reference: int, candidate: int) -> RoutingAgreement | None:
        routing = self.pairs[reference, candidate].routing
        return None if routing is None else routing.result()


def _report(run: _Run, index: int, max_drop: float) -> FormReport:
    form, accuracy = run.forms[index], run.accuracy(index)
    if index == 0:
        return FormReport(form.name, "reference", accuracy=accuracy, seconds=run.seconds[0])
    first, previous = run.figures(0, index), run.figures(index - 1, index)
    status, text, verdict, against = "not judged", "", None, None
    if form.gate is not None:
        reference = 0 if judged_against(form.gate) == "first" else index - 1
        against = run.forms[reference].name
        figures: dict[str, float | None]
        if form.gate == "fuse":
            alike = worst(run.alike(reference, index))
            routing = run.routing(reference, index)
            figures = {**vars(alike), "routing_agreement": None if routing is None else routing.agreement}
            if alike.samples < run.samples:
                text = f", judged on the {alike.samples} of {run.samples} samples that both route alike"
        else:
            figures = dict(vars(worst(first if reference == 0 else previous)))
        if run.labelled:
            figures["accuracy_drop"] = 100.0 * (run.correct[0] - run.correct[index]) / run.samples
        verdict = check(form.gate, figures, max_drop=max_drop)
        status, text = "passed" if verdict.passed else "missed", verdict.text + text
    routing_first = routing_previous = None
    earlier = [other for other in run.routed if other < index]
    if form.routing and earlier:
        routing_first, routing_previous = run.routing(earlier[0], index), run.routing(earlier[-1], index)
    return FormReport(
        form.name,
        status,
        text,
        verdict,
        against,
        previous,
        first,
        routing_previous,
        routing_first,
        accuracy,
        run.seconds[index],
    )


def verify_forms(
    forms: Iterable[Form],
    batches: Iterable[BatchLike],
    *,
    max_drop: float = DEFAULT_MAX_DROP,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Run all forms on the same batches, once, and judge each by its gate.

    Args:
        forms: in the order of the build; the first is the reference and has to run. Names are unique. Whoever opened
            them closes them.
        batches: images, bare or as batches; with labels in all of them, the accuracy of a classifier is taken too.
        max_drop: points of accuracy that INT8 may cost.
        progress: called after each batch with its number of samples.

    Returns:
        The report. It raises nothing for a missed gate: see `require`.

    Raises:
        InputError: no form or no sample; names that are not unique; forms that cannot run, or do not fit each other
            or the batches.
    """
    wanted = list(forms)
    names = [form.name for form in wanted]
    if not wanted or len(set(names)) != len(names) or wanted[0].session is None:
        raise InputError(f"expected forms with different names and a first one that runs, got {names}")
    runnable = [form for form in wanted if form.session is not None]
    run = _Run(runnable, [form.session for form in runnable if form.session is not None])
    try:
        run.run(batches, progress)
    except PolygraphyException as error:
        raise InputError(f"the forms {', '.join(run.index)} cannot run side by side: {error}") from error
    if run.samples == 0:
        raise InputError("there is no sample to verify with")
    reports = tuple(
        FormReport(form.name, "not run", form.reason or "")
        if form.session is None
        else _report(run, run.index[form.name], max_drop)
        for form in wanted
    )
    return VerifyReport(reports, run.samples, run.labelled)
