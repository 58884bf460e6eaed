"""What per-block parity found: every form block by block, each block on what the form before gave it."""

from __future__ import annotations

from typing import Literal

from edgeformer.records.base import Figure, Record
from edgeformer.records.verification import GateVerdict

__all__ = ["BlockCheck", "BlockFault", "BlocksReport", "FaultKind", "FormBlocks"]

FaultKind = Literal["values", "scale", "topk", "routing", "shape", "does not run"]


class BlockFault(Record):
    """A place in a block that goes wrong on what the form before makes of the same images.

    Attributes:
        kind: ``values`` (they differ by more than the precision explains), ``scale`` (of a QuantizeLinear: not what
            calibration found), ``topk`` (another number of regions is picked), ``routing`` (regions are picked that are
            no near tie), ``shape``, or ``does not run``.
        node: the node whose result it is: operator and name.
        tensor: that result.
        module: path of the PyTorch module that it stems from; None where the graph does not tell.
        between: the nodes before it, back to the nearest results that both forms have: one of them may be at fault.
        value: the figure that is judged, for ``values`` and ``routing``; the scale, for ``scale``; regions picked, for
            ``topk``.
        limit: the most that it may be; for ``scale`` and ``topk`` what it has to be.
        text: one line for people.
    """

    kind: FaultKind
    node: str
    tensor: str
    module: str | None = None
    between: tuple[str, ...] = ()
    value: Figure | None = None
    limit: Figure | None = None
    text: str


class BlockCheck(Record):
    """One block of a form against the same block of the form before.

    Attributes:
        name: the module's path (``stages.0.0``), or what stands for it where the graph tells none; several with a plus
            sign where a form has no boundary between them.
        inputs: the tensors that enter it.
        outputs: the tensors that leave it.
        isolated_snr_db: of the outputs, both forms given the same inputs, and the same routing where that can be given.
        accumulated_snr_db: of the outputs, each form on what it made itself of the images.
        routing_agreement: fraction of the region rows in it that pick the same regions, on the same inputs; None where
            it does not route, or one of the forms does not show it.
        verdict: of the gate, by the result in the block that is worst at it; None where nothing could be compared.
        faults: what goes wrong in it, in the order of the graph.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    isolated_snr_db: Figure | None = None
    accumulated_snr_db: Figure | None = None
    routing_agreement: Figure | None = None
    verdict: GateVerdict | None = None
    faults: tuple[BlockFault, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing goes wrong in it."""
        return not self.faults


class FormBlocks(Record):
    """A form block by block.

    Attributes:
        name: the form's name.
        against: the form that it was compared with; None for the first, and where it did not run.
        status: ``reference`` (the first), ``passed``, ``wrong``, ``not judged`` or ``not run``.
        text: why it did not run or is not judged, or what goes wrong first.
        blocks: its blocks in the order of the graph.
    """

    name: str
    against: str | None = None
    status: Literal["reference", "passed", "wrong", "not judged", "not run"]
    text: str = ""
    blocks: tuple[BlockCheck, ...] = ()

    @property
    def first_wrong(self) -> BlockCheck | None:
        """The first block in which something goes wrong."""
        return next((block for block in self.blocks if not block.passed), None)


class BlocksReport(Record):
    """The report on all forms.

    Attributes:
        forms: in the order in which a build makes them.
        samples: number of images.
    """

    forms: tuple[FormBlocks, ...]
    samples: int

    @property
    def passed(self) -> bool:
        """Whether no form goes wrong; one that did not run is not counted."""
        return all(form.status != "wrong" for form in self.forms)

    @property
    def not_run(self) -> tuple[str, ...]:
        """The names of the forms that did not run."""
        return tuple(form.name for form in self.forms if form.status == "not run")
