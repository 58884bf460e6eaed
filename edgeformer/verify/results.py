"""What verification found, form by form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeformer.errors import GateMissed
from edgeformer.verify.figures import Comparison
from edgeformer.verify.gates import Verdict
from edgeformer.verify.metrics import Score
from edgeformer.verify.routing import RoutingAgreement

__all__ = ["FormReport", "VerifyReport", "require"]


@dataclass(frozen=True)
class FormReport:
    """What was found of one form.

    Attributes:
        name: the form's name.
        status: ``reference`` (the first), ``passed``, ``missed``, ``not judged`` (it has no gate) or ``not run``.
        text: the verdict's line, or why it did not run. It names the output that decided where there are several.
        verdict: the gate's verdict.
        against: the form that the gate's figures compare with.
        previous: figures per output against the form before.
        first: figures per output against the first form.
        routing_previous: routing agreement with the nearest form before that shows its routing.
        routing_first: routing agreement with the first form that shows its routing.
        accuracy: what the task metric came to on labelled data.
        seconds: time spent in the form's runs.
    """

    name: str
    status: str
    text: str = ""
    verdict: Verdict | None = None
    against: str | None = None
    previous: dict[str, Comparison] | None = None
    first: dict[str, Comparison] | None = None
    routing_previous: RoutingAgreement | None = None
    routing_first: RoutingAgreement | None = None
    accuracy: Score | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""

        def figures(comparisons: dict[str, Comparison] | None) -> dict[str, Any] | None:
            return None if comparisons is None else {name: value.to_dict() for name, value in comparisons.items()}

        return {
            "name": self.name,
            "status": self.status,
            "text": self.text,
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
            "against": self.against,
            "previous": figures(self.previous),
            "first": figures(self.first),
            "routing_previous": None if self.routing_previous is None else self.routing_previous.to_dict(),
            "routing_first": None if self.routing_first is None else self.routing_first.to_dict(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class VerifyReport:
    """What was found of all forms.

    Attributes:
        forms: one report per form, in the order given.
        samples: number of samples that were run.
        labelled: whether all of them had labels.
    """

    forms: tuple[FormReport, ...]
    samples: int
    labelled: bool

    @property
    def passed(self) -> bool:
        """No form missed its gate. A form that did not run is not counted: see ``not_run``."""
        return all(form.status != "missed" for form in self.forms)

    @property
    def not_run(self) -> tuple[str, ...]:
        """The names of the forms that did not run."""
        return tuple(form.name for form in self.forms if form.status == "not run")

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "passed": self.passed,
            "not_run": list(self.not_run),
            "samples": self.samples,
            "labelled": self.labelled,
            "forms": [form.to_dict() for form in self.forms],
        }


def require(report: VerifyReport) -> None:
    """Raise where a form missed its gate.

    Raises:
        GateMissed: names each such form, its figures and their limits.
    """
    missed = [form for form in report.forms if form.status == "missed"]
    if missed:
        raise GateMissed("; ".join(f"form {form.name!r} against {form.against!r}: {form.text}" for form in missed))
