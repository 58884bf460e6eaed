"""What verification found, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeformer.errors import GateMissed
from edgeformer.verify.figures import Comparison
from edgeformer.verify.gates import Verdict
from edgeformer.verify.metrics.classification import Accuracy
from edgeformer.verify.routing import RoutingAgreement

__all__ = ["StageReport", "VerifyReport", "require"]


@dataclass(frozen=True)
class StageReport:
    """What was found of one stage.

    Attributes:
        name: the stage's name.
        status: ``reference`` (the first), ``passed``, ``missed``, ``not judged`` (it has no gate) or ``not run``.
        text: the verdict's line, or why it did not run.
        verdict: the gate's verdict.
        against: the stage that the gate's figures compare with.
        previous: figures per output against the stage before.
        first: figures per output against the first stage.
        routing_previous: routing agreement with the nearest stage before that shows its routing.
        routing_first: routing agreement with the first stage that shows its routing.
        accuracy: task accuracy on labelled data.
        seconds: time spent in the stage's runs.
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
    accuracy: Accuracy | None = None
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
    """What was found of all stages.

    Attributes:
        stages: one report per stage, in the order given.
        samples: number of samples that were run.
        labelled: whether all of them had labels.
    """

    stages: tuple[StageReport, ...]
    samples: int
    labelled: bool

    @property
    def passed(self) -> bool:
        """No stage missed its gate. A stage that did not run is not counted: see ``not_run``."""
        return all(stage.status != "missed" for stage in self.stages)

    @property
    def not_run(self) -> tuple[str, ...]:
        """The names of the stages that did not run."""
        return tuple(stage.name for stage in self.stages if stage.status == "not run")

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "passed": self.passed,
            "not_run": list(self.not_run),
            "samples": self.samples,
            "labelled": self.labelled,
            "stages": [stage.to_dict() for stage in self.stages],
        }


def require(report: VerifyReport) -> None:
    """Raise where a stage missed its gate.

    Raises:
        GateMissed: names each such stage, its figures and their limits.
    """
    missed = [stage for stage in report.stages if stage.status == "missed"]
    if missed:
        raise GateMissed("; ".join(f"stage {stage.name!r} against {stage.against!r}: {stage.text}" for stage in missed))
