"""What verification found about every form of the model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeformer.records.base import Figure, Record

__all__ = [
    "FLOAT_ATTENTION",
    "BlockAgreement",
    "Comparison",
    "FormReport",
    "FormStatus",
    "GateVerdict",
    "RoutingAgreement",
    "Score",
    "VerifyReport",
]

FLOAT_ATTENTION = "float-attention"
"""The form of an INT8 model that runs beside it where its attention is INT8, too: what INT8 costs without that."""

FormStatus = Literal["reference", "passed", "missed", "not judged", "not run"]

# The form of an INT8 model whose attention is INT8 that has its attention in float: what the rest costs.
FLOAT_ATTENTION = "float-attention"


class Comparison(Record):
    """One output of a candidate against the same output of the reference, over all samples.

    Integers and booleans are names of things (classes, indices, masks), and their difference means nothing: such an
    output has ``integer_agreement`` and no other figure. An output of floats has all the others. If any value of either
    side is NaN or infinite, every float figure is NaN, which no gate lets pass.

    Attributes:
        max_abs: largest |candidate - reference|.
        max_abs_relative: ``max_abs`` over the largest |reference| (0 where both are 0, inf where only that is 0).
        cosine: cosine between the two, all samples taken as one vector (1 where both are all zeros, 0 where one is).
        cosine_min: cosine of the sample where it is smallest.
        snr_db: 10 log10(sum reference^2 / sum (candidate - reference)^2), in dB; inf where they are identical.
        top1_agreement: fraction of samples whose largest class is the same; None where the output is not
            [samples, classes >= 2]. A sample with a NaN agrees with nothing.
        samples: number of samples compared.
        nonfinite: number of NaN and infinite values in the two.
        integer_agreement: fraction of elements that are equal (1 where the output has none).
    """

    max_abs: Figure | None = None
    max_abs_relative: Figure | None = None
    cosine: Figure | None = None
    cosine_min: Figure | None = None
    snr_db: Figure | None = None
    top1_agreement: Figure | None = None
    samples: int
    nonfinite: int
    integer_agreement: Figure | None = None


class GateVerdict(Record):
    """The verdict of a gate.

    Attributes:
        passed: whether every condition of the stage is met.
        metric: the deciding figure's name: that of the first condition missed, or of the stage's first condition.
        value: that figure.
        limit: its limit.
        output: the output that the figure belongs to, the worst of all that have it; None for a figure of the whole
            model.
        text: one line for people, with all conditions of the stage.
    """

    passed: bool
    metric: str
    value: Figure
    limit: Figure
    output: str | None
    text: str


class BlockAgreement(Record):
    """How far the routing of one block agrees.

    Attributes:
        stage: as in `RoutingOutput`.
        block: as in `RoutingOutput`.
        topk: regions picked per region.
        rows: number of sets compared: samples times regions.
        agreement: fraction of the sets that are equal.
        overlap: mean fraction of a set's regions that the other set has too.
    """

    stage: int | None
    block: int
    topk: int
    rows: int
    agreement: Figure
    overlap: Figure


class RoutingAgreement(Record):
    """How far the routing of all blocks agrees.

    Attributes:
        agreement: mean agreement over the blocks.
        overlap: mean overlap over the blocks.
        stages: mean agreement of the blocks of each stage, by its number, for those blocks whose stage is known.
        blocks: block by block.
    """

    agreement: float
    overlap: float
    stages: dict[int, float]
    blocks: tuple[BlockAgreement, ...]


class Score(Record):
    """The result of a metric.

    Attributes:
        metric: the metric's name.
        value: the figure, in ``unit``.
        unit: its unit.
        outputs: the outputs that were judged.
        samples: number of labelled samples.
        chance: the figure of a model that guesses, in ``unit``.
        at_chance: whether ``value`` is no better than that, within sampling error: such a model has nothing to lose,
            so a small loss proves nothing.
        counts: what the figure was computed from, and further figures, by name.
    """

    metric: str
    value: Figure
    unit: str
    outputs: tuple[str, ...]
    samples: int
    chance: Figure
    at_chance: bool
    counts: dict[str, int | Figure] = Field(default_factory=dict)


class FormReport(Record):
    """The report on one form.

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
        accuracy: the result of the task metric on labelled data.
        seconds: time spent in the form's runs.
    """

    name: str
    status: FormStatus
    text: str = ""
    verdict: GateVerdict | None = None
    against: str | None = None
    previous: dict[str, Comparison] | None = None
    first: dict[str, Comparison] | None = None
    routing_previous: RoutingAgreement | None = None
    routing_first: RoutingAgreement | None = None
    accuracy: Score | None = None
    seconds: Figure | None = None


class VerifyReport(Record):
    """The report on all forms.

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
