"""`verify_blocks`: the forms of a model block by block: PyTorch, exported, fused, typed, engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgeformer.errors import GateMissed, InputError
from edgeformer.graph.fusion.execution import widened
from edgeformer.graph.protos import float_precision
from edgeformer.progress import Progress
from edgeformer.records.blocks import BlockCheck, BlocksReport, FormBlocks
from edgeformer.records.terms import TYPED_PRECISIONS, Precision
from edgeformer.runtime import Array, OnnxSession, run_in_chunks
from edgeformer.runtime.session import as_input
from edgeformer.verify.blocks.comparison import compare_blocks
from edgeformer.verify.blocks.cuts import blocks_of
from edgeformer.verify.blocks.graphs import FormGraph
from edgeformer.verify.blocks.pytorch import TorchReference
from edgeformer.verify.blocks.references import GraphReference, Reference
from edgeformer.verify.figures import Accumulator
from edgeformer.verify.forms import Form
from edgeformer.verify.recording import MEMORY_LIMIT, Store

if TYPE_CHECKING:
    from edgeformer.runtime import TorchSession

__all__ = ["TorchForm", "require_blocks", "verify_blocks"]

# Images at a time, where the graph leaves it open.
_BATCH = 2
_ENGINE_SHOWS = (
    "engine: not judged block by block: an engine shows nothing but its outputs, which `edgeformer verify` judges"
)
_NO_EXPECTATION = (
    "typed: not compared block by block: nothing says yet how much noise {} explains in a block; `edgeformer verify` "
    "judges the outputs"
)
# Blocks that a message lists.
_LISTED = 5


@dataclass(frozen=True)
class TorchForm:
    """The PyTorch model that was exported.

    Attributes:
        session: the model.
        feed: what it takes for a batch of images.
    """

    session: TorchSession
    feed: Callable[[Array], Array]


def verify_blocks(
    exported: Callable[[], onnx.ModelProto],
    fused: Callable[[], onnx.ModelProto],
    typed: Callable[[], onnx.ModelProto],
    images: Array,
    *,
    precision: Precision,
    pytorch: TorchForm | str,
    engine: Form | None = None,
    ranges: Mapping[str, float] | None = None,
    progress: Progress | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> BlocksReport:
    """Compare the forms of a model block by block, each with the one before.

    Two forms are in memory at a time, of these one block that runs; what crosses from block to block is kept for a few
    images, in files beyond ``memory_limit``.

    Args:
        exported: gives the exported graph.
        fused: gives the fused one, by which blocks are told.
        typed: gives the typed one.
        images: float32 ``[samples, channels, height, width]``: a few, at least one, all of which are run.
        precision: of the typed graph.
        pytorch: the model that was exported, or why it does not run; it is closed when it was looked at.
        engine: the engine, which shows its outputs alone; None where there is none.
        ranges: what calibration found, activation -> amax.
        progress: told after each block, with the form's name.
        memory_limit: bytes of tensors kept in memory.

    Raises:
        InputError: there is no image, or one of the graphs does not take these.
        EnvironmentFault: the temporary folder has no room.
    """
    if not len(images):
        raise InputError("EF813", "there is no sample to verify with")
    before = exported()
    narrow = float_precision(before) != "fp32"
    # Rounding of a graph that is 16-bit itself would hide what fusing does to it.
    ready = FormGraph(widened(before) if narrow else before)
    given = fused()
    float_graph = FormGraph(widened(given) if narrow else given)
    blocks = blocks_of(float_graph.model)
    batches = _batches(images, ready.batch)
    for graph in (ready, float_graph):
        graph.settle(batches[0])
    forms: list[FormBlocks] = []

    def compare(name: str, against: str, reference: Reference, graph: FormGraph, kind: Precision, store: Store) -> None:
        checks = compare_blocks(
            reference,
            graph,
            blocks,
            batches,
            precision=kind,
            store=store,
            ranges=ranges if name == "typed" else None,
            progress=None if progress is None else lambda what, done, all_: progress(f"{what}, {name}", done, all_),
        )
        forms.append(_form(name, against, checks))

    if isinstance(pytorch, str):
        forms.append(FormBlocks(name="pytorch", status="not run", text=pytorch))
        forms.append(FormBlocks(name="exported", status="reference"))
    else:
        forms.append(FormBlocks(name="pytorch", status="reference"))
        with Store(memory_limit) as store:
            torch = TorchReference(pytorch.session, ready, batches, pytorch.feed, store)
            pytorch.session.close()
            compare("exported", "pytorch", torch, ready, "fp32", store)
    with Store(memory_limit) as store:
        compare("fused", "exported", GraphReference(ready, batches, store), float_graph, "fp32", store)
    del ready, before
    last = FormGraph(typed())
    last.settle(batches[0])
    if precision in TYPED_PRECISIONS:
        forms.append(FormBlocks(name="typed", status="not run", text=_NO_EXPECTATION.format(precision)))
    else:
        with Store(memory_limit) as store:
            compare("typed", "fused", GraphReference(float_graph, batches, store), last, precision, store)
    if engine is not None:
        forms.append(_engine(engine, last.model, images))
    return BlocksReport(forms=tuple(forms), samples=len(images))


def _batches(images: Array, fixed: int | None) -> list[Array]:
    """The images in batches of one size; the last one is filled up with images from the beginning."""
    size = fixed or min(_BATCH, len(images))
    count = math.ceil(len(images) / size)
    filled = np.resize(images, (count * size, *images.shape[1:])) if count * size != len(images) else images
    return [filled[start : start + size] for start in range(0, len(filled), size)]


def _form(name: str, against: str, checks: tuple[BlockCheck, ...]) -> FormBlocks:
    wrong = next((check for check in checks if not check.passed), None)
    text = "" if wrong is None else f"goes wrong first in {wrong.name}: {wrong.faults[0].text}"
    return FormBlocks(
        name=name, against=against, status="passed" if wrong is None else "wrong", text=text, blocks=checks
    )


def _engine(engine: Form, typed: onnx.ModelProto, images: Array) -> FormBlocks:
    """The engine's outputs against those of the typed graph."""
    if not engine.runs:
        return FormBlocks(name=engine.name, status="not run", text=engine.reason)
    figures: dict[str, Accumulator] = {}
    with engine.opened() as opened, OnnxSession(typed, optimization="basic") as session:
        (name,) = session.inputs
        for image in range(len(images)):
            one = images[image : image + 1]
            want = run_in_chunks(session, {name: as_input(session.inputs[name], one)}, 1)
            (theirs,) = opened.session.inputs
            have = run_in_chunks(opened.session, {theirs: as_input(opened.session.inputs[theirs], one)}, 1)
            for output in opened.outputs:
                figures.setdefault(output, Accumulator(output)).update(want[output], have[output])
    snrs = [found for item in figures.values() if (found := item.result().snr_db) is not None]
    whole = BlockCheck(
        name="whole network",
        inputs=(),
        outputs=tuple(figures),
        accumulated_snr_db=min(snrs) if snrs else None,
    )
    return FormBlocks(name=engine.name, against="typed", status="not judged", text=_ENGINE_SHOWS, blocks=(whole,))


def require_blocks(report: BlocksReport) -> None:
    """Raise where a form goes wrong.

    Raises:
        GateMissed: names the first block of each form that goes wrong, what is wrong in it, and how many others are.
    """
    faults = []
    for form in report.forms:
        wrong = [block for block in form.blocks if not block.passed]
        if form.status == "wrong" and wrong:
            others = ", ".join(block.name for block in wrong[1 : 1 + _LISTED])
            more = f" (also in {others}{', ...' if len(wrong) > 1 + _LISTED else ''})" if others else ""
            faults.append(f"form {form.name!r} against {form.against!r} {form.text}{more}")
    if faults:
        raise GateMissed("EF960", "; ".join(faults))
