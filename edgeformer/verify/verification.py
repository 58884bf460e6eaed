"""`verify_forms`: run the forms of a model on the same data and judge each: PyTorch, exported, fused, typed, engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from edgeformer.errors import GateMissed, InputError
from edgeformer.progress import Progress
from edgeformer.records.verification import FormReport, FormStatus, GateVerdict, Score, VerifyReport
from edgeformer.verify.forms import Form
from edgeformer.verify.gates import DEFAULT_MAX_DROP, check_accepted, judge, judged_against
from edgeformer.verify.recording import MEMORY_LIMIT, Store
from edgeformer.verify.run import BatchSource, FirstRun, Run

__all__ = ["require", "verify_forms"]


def verify_forms(
    forms: Iterable[Form],
    batches: BatchSource,
    *,
    max_drop: float = DEFAULT_MAX_DROP,
    accepted: Collection[str] = (),
    progress: Progress | None = None,
    memory_limit: int = MEMORY_LIMIT,
    first_run: FirstRun | None = None,
) -> VerifyReport:
    """Run all forms on the same batches, one form at a time, and judge each by its gate.

    Args:
        forms: in the order in which a build makes them; the first is the reference and has to run. Names are unique.
            Each is opened when its turn comes and let go of after it.
        batches: images, float32 [samples, channels, height, width], bare or as batches; with labels in all of them a
            task metric is taken, too. They are read once for each form: a list or another iterable that starts anew, or
            a function that gives one, such as ``samples.batches`` without its call. What can be read only once (a
            generator) is kept for the next form.
        max_drop: points of the task metric that INT8 may cost.
        accepted: outputs that are compared and reported, and not judged.
        progress: called before a form's first batch and after each with the form's name and its number of samples so
            far; the total is known from the second form on.
        memory_limit: bytes of outputs that are kept in memory between forms; more go to temporary files.
        first_run: called with each form's name, and the inputs and outputs of its first batch, by name.

    Returns:
        The report. It raises nothing for a missed gate: see `require`.

    Raises:
        InputError: no form or no sample; names that are not unique; a form that cannot run, or does not fit the others
            or the batches; batches that differ from form to form; labels that fit no output.
        EnvironmentFault: the temporary folder has no room.
    """
    wanted = list(forms)
    names = [form.name for form in wanted]
    if not wanted or len(set(names)) != len(names) or not wanted[0].runs:
        raise InputError("EF815", f"expected forms with different names and a first one that runs, got {names}")
    runnable = [form for form in wanted if form.runs]
    with Store(memory_limit) as store:
        run = Run(batches, store, progress, first_run)
        for form in runnable:
            run.add(form, last=form is runnable[-1])
            check_accepted(accepted, run.results[0].outputs)
            if run.results[0].samples == 0:
                raise InputError("EF813", "there is no sample to verify with")
    positions = {result.form.name: index for index, result in enumerate(run.results)}
    reports = tuple(
        _report(run, positions[form.name], max_drop, frozenset(accepted))
        if form.runs
        else FormReport(name=form.name, status="not run", text=form.reason)
        for form in wanted
    )
    return VerifyReport(forms=reports, samples=run.results[0].samples, labelled=run.labelled)


def _report(run: Run, index: int, max_drop: float, accepted: frozenset[str]) -> FormReport:
    result = run.results[index]
    score = result.metric.result() if run.labelled and result.metric is not None else None
    if index == 0:
        return FormReport(name=result.form.name, status="reference", accuracy=score, seconds=result.seconds)
    status: FormStatus = "not judged"
    text, verdict, against = "", None, None
    if result.form.gate is not None:
        reference = 0 if judged_against(result.form.gate) == "first" else index - 1
        against = run.results[reference].form.name
        if accepted.issuperset(result.outputs):
            text = f"{_accepted_text(accepted)}, and there is no other"
        else:
            verdict, text = _judge(run, index, reference, max_drop, accepted)
            status = "passed" if verdict.passed else "missed"
    routing_first = routing_previous = None
    earlier = [other for other in run.routed if other < index]
    if result.routing and earlier:
        routing_first, routing_previous = (result.pairs[other].routing() for other in (earlier[0], earlier[-1]))
    return FormReport(
        name=result.form.name,
        status=status,
        text=text,
        verdict=verdict,
        against=against,
        previous=result.pairs[index - 1].figures(),
        first=result.pairs[0].figures(),
        routing_previous=routing_previous,
        routing_first=routing_first,
        accuracy=score,
        seconds=result.seconds,
    )


def _judge(run: Run, index: int, reference: int, max_drop: float, accepted: frozenset[str]) -> tuple[GateVerdict, str]:
    """The verdict of a form's gate, and the line that tells it."""
    result, pair = run.results[index], run.results[index].pairs[reference]
    assert result.form.gate is not None
    rounds_alike = judged_against(result.form.gate) == "previous"
    comparisons = pair.alike() if rounds_alike else pair.figures()
    outputs: dict[str, dict[str, float | None]] = {
        name: dict(vars(item)) for name, item in comparisons.items() if name not in accepted
    }
    not_judged = {}
    metric, best = result.metric, run.results[0].metric
    if run.labelled and metric is not None and best is not None:
        score = best.result()
        if score.at_chance:
            not_judged["accuracy_drop"] = _no_better_than_chance(score)
        else:
            for name in outputs.keys() & metric.outputs:
                outputs[name]["accuracy_drop"] = metric.drop(best)
    routing = pair.routing() if rounds_alike else None
    shared = {"routing_agreement": None if routing is None else routing.agreement}
    verdict = judge(result.form.gate, outputs, shared=shared, not_judged=not_judged, max_drop=max_drop)
    text = verdict.text
    if accepted:
        text += f"; {_accepted_text(accepted)}"
    if rounds_alike and 0 < pair.alike_samples < result.samples:
        text += f", judged on the {pair.alike_samples} of {result.samples} samples that both route alike"
    return verdict, text


def _accepted_text(accepted: frozenset[str]) -> str:
    return f"{', '.join(map(repr, sorted(accepted)))} not judged, as --accept-output asks for"


def _no_better_than_chance(score: Score) -> str:
    return (
        f"the reference's {score.metric} of {score.value:.2f} {score.unit} on {score.samples} samples is no better "
        f"than chance ({score.chance:.2f} {score.unit}), so that it has nothing to lose"
    )


def require(report: VerifyReport) -> None:
    """Raise where a form missed its gate.

    Raises:
        GateMissed: names each such form, its figures and their limits.
    """
    missed = [form for form in report.forms if form.status == "missed"]
    if missed:
        raise GateMissed(
            "EF801", "; ".join(f"form {form.name!r} against {form.against!r}: {form.text}" for form in missed)
        )
