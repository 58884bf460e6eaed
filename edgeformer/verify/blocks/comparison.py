"""Two forms block by block: each block of the one on what the other makes, and each result within it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeformer.progress import Progress
from edgeformer.records.blocks import BlockCheck
from edgeformer.records.terms import Precision
from edgeformer.runtime import Array
from edgeformer.verify.blocks.block_run import BlockRun, Pair
from edgeformer.verify.blocks.cuts import Block, joined, merged
from edgeformer.verify.blocks.graphs import FormGraph
from edgeformer.verify.blocks.references import Reference, States
from edgeformer.verify.blocks.steps import Steps
from edgeformer.verify.recording import Store

__all__ = ["compare_blocks"]


def compare_blocks(
    reference: Reference,
    candidate: FormGraph,
    blocks: Sequence[Block],
    batches: Sequence[Array],
    *,
    precision: Precision,
    store: Store,
    ranges: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> tuple[BlockCheck, ...]:
    """Compare a form with another, block by block.

    One block of both is open at a time. Of the others there are the tensors that cross from one to the next.

    Args:
        reference: the form to agree with.
        candidate: the form that is judged, settled for batches of this size.
        blocks: by the reference's names; those between which a tensor crosses that the candidate lacks become one.
        batches: images, all of one shape.
        precision: of the candidate.
        store: for what crosses.
        ranges: what calibration found, activation -> amax; None where there was none.
        progress: told after each block.
    """
    pair = Pair(reference, candidate, precision, Steps(candidate, ranges or {}))
    states = States(store)
    fitting = _fitting(pair, blocks)
    checks = []
    broken = False
    for number, block in enumerate(fitting):
        with BlockRun(pair, block, states, broken) as run:
            for batch, images in enumerate(batches):
                run.add(batch, images)
        broken = run.broken
        checks.append(run.result())
        if progress is not None:
            progress("blocks", number + 1, len(fitting))
    return tuple(checks)


def _fitting(pair: Pair, blocks: Sequence[Block]) -> list[Block]:
    """The blocks without the boundaries that one of the two does not have, or that do not cut it in two."""
    fitting = list(merged(blocks, pair.there.__contains__))
    number = 1
    while number < len(fitting):
        block, candidate = fitting[number], pair.candidate
        given = pair.names(block.inputs)
        ends = [name for name in pair.names(block.outputs) if name not in given]
        if candidate.input in candidate.reached(ends, given)[1] and not pair.reference.reads_input(block):
            fitting[number - 1 : number + 1] = [joined(fitting[number - 1], block)]
            number = max(number - 1, 1)
        else:
            number += 1
    return fitting
