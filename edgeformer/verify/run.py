"""Run the forms of a model one after the other, and compare each with those that ran before it.

One form is open at a time, so that the memory taken is that of one. What the first form and the one before gave is kept
in between (see `recording`), so that every form is compared with both, batch by batch.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from edgeformer.errors import InputError
from edgeformer.progress import Progress
from edgeformer.records.verification import Comparison, RoutingAgreement
from edgeformer.runtime import Session, check_feeds, run_in_chunks, static_batch
from edgeformer.runtime.session import Array, as_input
from edgeformer.verify.batches import BatchLike, Labels, as_batch, input_name
from edgeformer.verify.compare import OutputComparer, check_types, match_names
from edgeformer.verify.decisions import RoutingOutput
from edgeformer.verify.forms import Form, OpenForm
from edgeformer.verify.metrics import TaskMetric, choose_metric
from edgeformer.verify.recording import Recording, Store
from edgeformer.verify.routing import RoutingAccumulator

__all__ = ["BatchSource", "FirstRun", "FormResult", "Pair", "Run"]

BatchSource: TypeAlias = "Iterable[BatchLike] | Callable[[], Iterable[BatchLike]]"
FirstRun: TypeAlias = Callable[[str, Mapping[str, Array], Mapping[str, Array]], None]
"""Called with a form's name, and the inputs and outputs of a run."""


class _Batches:
    """The same batches again for each form; those that can be read only once are kept as they are read."""

    def __init__(self, source: BatchSource, store: Store) -> None:
        self._source = source
        self._store = store
        self._once = not callable(source) and iter(source) is source
        self._kept: list[tuple[int, Labels | None]] = []
        self._sums: list[int] | None = None

    def __iter__(self) -> Iterator[tuple[Array, Labels | None]]:
        """The batches that hold samples, images [samples, ...] with their labels."""
        sums = []
        for images, labels in self._read():
            if not len(images):
                continue
            sums.append(zlib.crc32(np.ascontiguousarray(images).data))
            if self._sums is not None and self._sums[: len(sums)] != sums:
                raise InputError("EF816", _changed(len(sums)))
            if self._once and self._sums is None:
                self._kept.append((self._store.put(images), labels))
            yield images, labels
        if self._sums is not None and len(self._sums) != len(sums):
            raise InputError("EF816", _changed(len(sums) + 1))
        self._sums = sums

    def _read(self) -> Iterator[tuple[Array, Labels | None]]:
        if self._once and self._sums is not None:
            yield from ((self._store.get(number), labels) for number, labels in self._kept)
            return
        for item in self._source() if callable(self._source) else self._source:
            yield as_batch(item)


def _changed(batch: int) -> str:
    return (
        f"batch {batch} is not what it was for the form before: every form has to run on the same samples in the same "
        "order (no shuffling, no random augmentation)"
    )


class Pair:
    """Compares a form with one that ran before it, batch by batch.

    Attributes:
        alike_samples: number of samples that both route to the same regions, where both show their routing.
    """

    def __init__(self, reference: FormResult, candidate: FormResult, *, outputs: bool = True) -> None:
        """Start with nothing seen.

        Args:
            reference: the form that ran before.
            candidate: the form that runs.
            outputs: whether to compare the outputs; else the routing alone.
        """
        names = reference.outputs if outputs else ()
        self._comparer = OutputComparer(names)
        self._alike = OutputComparer(names)
        self.alike_samples = 0
        both = reference.routing and candidate.routing
        self._routing = RoutingAccumulator(reference.routing, candidate.routing) if both else None

    def update(self, reference: dict[str, Array], candidate: dict[str, Array]) -> None:
        """Add a batch of outputs by name, those that show routing among them.

        Raises:
            InputError: the two do not fit each other.
        """
        self._comparer.update(reference, candidate)
        if self._routing is not None:
            same = self._routing.update(reference, candidate)
            if same.any():
                self._alike.update(
                    *({name: array[same] for name, array in outputs.items()} for outputs in (reference, candidate))
                )
                self.alike_samples += int(same.sum())

    def figures(self) -> dict[str, Comparison]:
        """The figures per output, over all samples."""
        return self._comparer.result()

    def alike(self) -> dict[str, Comparison]:
        """The figures over samples that both route alike; over all where routing is not shown, or none is alike."""
        return self._alike.result() if self.alike_samples else self.figures()

    def routing(self) -> RoutingAgreement | None:
        """How far the routing agrees; None where not both show it."""
        return None if self._routing is None else self._routing.result()


@dataclass
class FormResult:
    """What the run of one form gave.

    Attributes:
        form: the form.
        outputs: names of the model's outputs.
        routing: the outputs that show its routing.
        metric: the task metric over its outputs; None without labels.
        pairs: its comparisons with forms that ran before, by their position.
        samples: number of samples.
        seconds: time that its runs took.
    """

    form: Form
    outputs: tuple[str, ...]
    routing: tuple[RoutingOutput, ...]
    metric: TaskMetric | None = None
    pairs: dict[int, Pair] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0


class Run:
    """Forms run on the same batches, one after the other.

    Attributes:
        results: one for each form that ran, in order.
    """

    def __init__(
        self, source: BatchSource, store: Store, progress: Progress | None = None, first_run: FirstRun | None = None
    ) -> None:
        """Run nothing yet.

        Args:
            source: images, bare or as batches: read anew for each form, or called for each form, or, where it can be
                read only once, kept for the next form.
            store: where outputs are kept.
            progress: called before the first batch of a form and after each, with the form's name and its number of
                samples so far; the total is known from the second form on.
            first_run: called with each form's name, and the inputs and outputs of its first batch, by name.
        """
        self.results: list[FormResult] = []
        self._batches = _Batches(source, store)
        self._store = store
        self._progress = progress
        self._first_run = first_run
        self._kept: dict[int, Recording] = {}
        self._metric: TaskMetric | None = None
        self._labelled = True

    @property
    def labelled(self) -> bool:
        """Whether all samples had labels."""
        return self._labelled and self._metric is not None

    @property
    def routed(self) -> list[int]:
        """Positions of the forms that show their routing."""
        return [index for index, result in enumerate(self.results) if result.routing]

    def add(self, form: Form, *, last: bool = False) -> None:
        """Run a form.

        Args:
            form: the form; the first one added is the reference of all others.
            last: whether no other will be compared with it, so that nothing of it need be kept.

        Raises:
            InputError: the form cannot run, or does not fit the batches or the forms before.
        """
        index = len(self.results)
        recording = Recording(self._store)
        with ExitStack() as stack:
            with _naming(form):
                opened = stack.enter_context(form.opened())
                result = self._begin(form, opened)
                name = input_name(opened.session)
            self.results.append(result)
            self._report(result)
            for batch, (images, labels) in enumerate(self._batches):
                with _naming(form):
                    outputs = _run_batch(opened.session, name, images, result)
                    if batch == 0 and self._first_run is not None:
                        given = as_input(opened.session.inputs[name], images)
                        self._first_run(form.name, {name: given}, {key: outputs[key] for key in result.outputs})
                    for other, pair in result.pairs.items():
                        pair.update(self._kept[other][batch], outputs)
                    self._measure(result, outputs, labels)
                result.samples += len(images)
                if not last:
                    recording.append(outputs)
                self._report(result)
        if not last:
            self._keep(index, recording)

    def _begin(self, form: Form, opened: OpenForm) -> FormResult:
        """Check the form against the first, and say which of the others it is compared with."""
        infos = opened.session.outputs
        check_types({name: infos[name] for name in opened.outputs})
        result = FormResult(form, opened.outputs, opened.routing)
        if self.results:
            match_names(self.results[0].outputs, opened.outputs)
            # With the first and the one before, and where routing is shown with the first and the last that show it.
            wanted = dict.fromkeys(_ends(self.routed) if opened.routing else (), False)
            wanted.update(dict.fromkeys((0, len(self.results) - 1), True))
            for other, compared in sorted(wanted.items()):
                result.pairs[other] = Pair(self.results[other], result, outputs=compared)
        return result

    def _measure(self, result: FormResult, outputs: dict[str, Array], labels: Labels | None) -> None:
        """Add to the form's task metric; without labels in one batch there is none for any form."""
        if labels is None:
            self._labelled = False
        if not self._labelled or labels is None:
            result.metric = None
            return
        own = {name: outputs[name] for name in result.outputs}
        if self._metric is None:
            self._metric = choose_metric(own, labels)
        if result.metric is None:
            result.metric = type(self._metric)(self._metric.outputs)
        result.metric.update(own, labels)

    def _keep(self, index: int, recording: Recording) -> None:
        """Keep what later forms are compared with, and drop the rest."""
        self._kept[index] = recording
        for other in set(self._kept) - {0, index}:
            shown = self.results[other].routing if other in _ends(self.routed) else ()
            self._kept[other].keep(output.name for output in shown)

    def _report(self, result: FormResult) -> None:
        if self._progress is not None:
            total = None if result is self.results[0] else self.results[0].samples
            self._progress(result.form.name, result.samples, total)


def _ends(positions: list[int]) -> set[int]:
    """The first and the last."""
    return {*positions[:1], *positions[-1:]}


def _run_batch(session: Session, name: str, images: Array, result: FormResult) -> dict[str, Array]:
    """A batch through a form: in runs of the batch size that it fixes, filled up where samples are missing."""
    images = as_input(session.inputs[name], images)
    fixed = static_batch(session)
    given = images if fixed is None else np.broadcast_to(images[:1], (fixed, *images.shape[1:]))
    check_feeds(session.inputs, {name: given})
    if fixed is not None:
        # Such outputs cannot be put together of several runs.
        _check_samples({key: info.shape for key, info in session.outputs.items() if key in result.outputs}, None)
    begun = time.perf_counter()
    outputs = session.run({name: images}) if fixed is None else run_in_chunks(session, {name: images}, fixed)
    result.seconds += time.perf_counter() - begun
    _check_samples({key: array.shape for key, array in outputs.items()}, len(images))
    return outputs


def _check_samples(shapes: Mapping[str, tuple[int | str, ...]], samples: int | None) -> None:
    """Check that every output has its samples along its first dimension (any number of them, where it is None)."""
    wrong = {key: list(shape) for key, shape in shapes.items() if not shape or samples not in (None, shape[0])}
    if wrong:
        listed = ", ".join(f"{key!r} is {shape}" for key, shape in wrong.items())
        count = f" with {samples} samples" if samples else ""
        raise InputError("EF817", f"output {listed}: expected [samples, ...]{count}")


@contextmanager
def _naming(form: Form) -> Iterator[None]:
    """Say in a message which form it was."""
    try:
        yield
    except InputError as error:
        raise InputError(error.code, f"form {form.name!r}: {error}") from error
