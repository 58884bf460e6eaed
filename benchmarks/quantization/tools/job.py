"""What a tool is given, and what its rows ask of the graph. NumPy and onnx alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["PRODUCTS", "Job", "Placement", "Reader", "Row", "products", "routing_products", "stem_convolutions"]

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operators that multiply matrices."""

Placement = Literal["own", "by hand", "every", "no stem", "default"]
_BATCH = 8


@dataclass(frozen=True)
class Row:
    """One way to quantize.

    Attributes:
        placement: which layers become INT8. "own": what the tool takes; "by hand": all products but those that decide
            the routing; "every": what edgeformer takes where nothing returns to float; "no stem": that without the two
            convolutions of the stem; "default": what edgeformer's default recipe left in INT8.
        options: what the tool is asked for.
        quick: whether `--quick` has the row.
    """

    placement: Placement = "own"
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False


@dataclass(frozen=True)
class Job:
    """One row to make.

    Attributes:
        row: which.
        exported: the FP32 graph in standard operators.
        fused: the same with the attention op; edgeformer takes this one.
        calibration: ``.npy``, ``[N, C, H, W]`` float32.
        output: where the quantized file goes.
        layers: names of the nodes of ``exported`` that become INT8, for rows that are told; else empty.
    """

    row: Row
    exported: Path
    fused: Path
    calibration: Path
    output: Path
    layers: Sequence[str] = ()

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """The calibration images, some at a time, read when they are asked for."""
        images = np.load(self.calibration, mmap_mode="r")
        for start in range(0, len(images), _BATCH):
            yield np.array(images[start : start + _BATCH])

    @property
    def input_name(self) -> str:
        """Of the exported graph."""
        return str(onnx.load(self.exported, load_external_data=False).graph.input[0].name)

    def others(self) -> list[str]:
        """Names of the products of the exported graph that stay in float."""
        named = [node.name for node in products(onnx.load(self.exported))]
        return [name for name in named if name not in set(self.layers)]


class Reader:
    """The calibration images as ONNX Runtime's quantizer and its relatives ask for them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._name = job.input_name
        self.rewind()

    def rewind(self) -> None:
        """Begin again."""
        self._batches = self._job.batches()

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch by the name of the input, or None behind the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}

    def __len__(self) -> int:
        return -(-len(np.load(self._job.calibration, mmap_mode="r")) // _BATCH)


def products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that multiply matrices, in graph order."""
    return [node for node in model.graph.node if node.op_type in PRODUCTS]


def routing_products(model: onnx.ModelProto) -> list[str]:
    """Names of the products whose results decide which regions are picked."""
    maker = {output: node for node in model.graph.node for output in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type == "TopK":
            before = maker[node.input[0]]
            while before.op_type not in PRODUCTS:
                before = maker[before.input[0]]
            found.append(before.name)
    return found


def stem_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the first two convolutions."""
    return [node.name for node in model.graph.node if node.op_type == "Conv"][:2]
