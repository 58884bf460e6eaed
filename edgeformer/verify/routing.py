"""Do two graphs send their queries to the same regions?

Top-1 accuracy on easy data says nothing about routing: a model can be right for most images with random regions. So the
chosen region sets themselves are compared, block by block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from edgeformer.errors import InputError
from edgeformer.records.verification import BlockAgreement, RoutingAgreement
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.session import Array
from edgeformer.verify.decisions import RoutingOutput, expose_routing

__all__ = [
    "RoutingAccumulator",
    "compare_routing",
]


class RoutingAccumulator:
    """Compares the routing of two graphs batch by batch."""

    def __init__(self, reference: tuple[RoutingOutput, ...], candidate: tuple[RoutingOutput, ...]) -> None:
        """Start with nothing seen.

        Raises:
            InputError: the two have different numbers of routing decisions.
        """
        if len(reference) != len(candidate):
            raise InputError(
                "EF814",
                f"routing cannot be compared: the reference routes in {len(reference)} blocks, the candidate in "
                f"{len(candidate)}",
            )
        self._pairs = tuple(zip(reference, candidate, strict=True))
        self._rows = [0] * len(reference)
        self._equal = [0] * len(reference)
        self._shared = [0] * len(reference)
        self._topk = [0] * len(reference)

    def update(self, reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
        """Add a batch.

        Args:
            reference: the routing outputs by name, int [samples, regions, topk] each.
            candidate: the same of the other graph.

        Returns:
            bool [samples]: whether a sample is routed to the same regions in every block.

        Raises:
            InputError: a block's shapes differ.
        """
        samples = min((len(reference[first.name]) for first, _ in self._pairs), default=0)
        same = np.ones(samples, np.bool_)
        for index, (first, second) in enumerate(self._pairs):
            want, have = reference[first.name], candidate[second.name]
            if want.ndim < 1 or want.shape != have.shape:
                raise InputError(
                    "EF814",
                    f"routing of block {index}: the reference is {want.shape}, the candidate {have.shape}: both need "
                    "the same number of regions",
                )
            topk = want.shape[-1]
            ours, theirs = np.sort(want.reshape(-1, topk), axis=1), np.sort(have.reshape(-1, topk), axis=1)
            self._topk[index] = topk
            self._rows[index] += len(ours)
            equal = (ours == theirs).all(axis=1)
            self._equal[index] += int(equal.sum())
            same &= equal.reshape(samples, -1).all(axis=1)
            # Rows are moved apart, so that one intersection of sorted, distinct values counts all rows at once.
            apart = np.arange(len(ours), dtype=np.int64)[:, None] * (int(max(ours.max(), theirs.max(), 0)) + 1)
            self._shared[index] += int(np.isin(ours + apart, theirs + apart).sum())
        return same

    def result(self) -> RoutingAgreement:
        """The agreement over all batches so far.

        Raises:
            InputError: there is no block, or no sample.
        """
        if not self._pairs:
            raise InputError("EF814", "routing cannot be compared: no block routes")
        if not all(self._rows):
            raise InputError("EF813", "routing cannot be compared: there is no sample")
        blocks = tuple(
            BlockAgreement(
                stage=first.stage,
                block=first.block,
                topk=topk,
                rows=rows,
                agreement=equal / rows,
                overlap=shared / (rows * topk),
            )
            for (first, _), topk, rows, equal, shared in zip(
                self._pairs, self._topk, self._rows, self._equal, self._shared, strict=True
            )
        )
        stages = sorted({block.stage for block in blocks if block.stage is not None})
        return RoutingAgreement(
            agreement=_mean(block.agreement for block in blocks),
            overlap=_mean(block.overlap for block in blocks),
            stages={stage: _mean(block.agreement for block in blocks if block.stage == stage) for stage in stages},
            blocks=blocks,
        )


def _mean(figures: Iterable[float]) -> float:
    return float(np.mean(list(figures)))


def compare_routing(
    reference: ModelProto, candidate: ModelProto, batches: Iterable[Mapping[str, Array]], *, threads: int | None = None
) -> RoutingAgreement:
    """Run two graphs, fused or not, on the same inputs and compare the regions that their blocks pick.

    Args:
        reference: the graph to agree with.
        candidate: the graph that is judged; routes in as many blocks.
        batches: feeds by input name, one mapping per run.
        threads: as for `OnnxSession`.

    Raises:
        InputError: the graphs route in different numbers of blocks or regions, no block routes, or there is no batch.
    """
    first, first_outputs = expose_routing(reference)
    second, second_outputs = expose_routing(candidate)
    accumulator = RoutingAccumulator(first_outputs, second_outputs)
    with OnnxSession(first, threads=threads) as ours, OnnxSession(second, threads=threads) as theirs:
        for feeds in batches:
            accumulator.update(ours.run(feeds), theirs.run(feeds))
    return accumulator.result()
