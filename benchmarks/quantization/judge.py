"""Figures of a quantized ONNX file against FP32, from ONNX Runtime with graph optimizations off.

NumPy, onnx and onnxruntime alone: it knows nothing of who made a file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from numpy.typing import NDArray

from benchmarks.quantization.multiply_adds import multiply_adds

__all__ = [
    "COLUMNS",
    "Column",
    "Outputs",
    "Reference",
    "agreement",
    "compare",
    "judge",
    "routing_agreement",
    "run",
    "snr_db",
]

COLUMNS = ("clean", "degraded")
_BATCH = 50
_LOUD = 3

Array = NDArray[Any]


@dataclass(frozen=True)
class Outputs:
    """What a model makes of some images.

    Attributes:
        logits: ``[N, classes]`` float64.
        regions: for each routing block in graph order, the regions picked, ascending: ``[N, regions, k]``.
    """

    logits: Array
    regions: tuple[Array, ...]


@dataclass(frozen=True)
class Column:
    """Figures over the images of one kind.

    Attributes:
        snr_db: signal to noise of the logits against FP32's.
        top1: share of images that are told right, percent.
        agreement: share of images of which it says what FP32 says, percent.
        routing: share of regions that attend to the same set of regions as in FP32, percent, block by block.
        routing_mean: their mean over the blocks, percent; None without routing blocks.
    """

    snr_db: float
    top1: float
    agreement: float
    routing: tuple[float, ...]
    routing_mean: float | None


@dataclass(frozen=True)
class Reference:
    """Images of one kind, their labels, and what FP32 makes of them."""

    images: Array
    labels: Array
    outputs: Outputs

    def save(self, path: Path) -> None:
        """Write an ``.npz``."""
        arrays = {"images": self.images, "labels": self.labels, "logits": self.outputs.logits}
        arrays |= {f"regions{number}": chosen for number, chosen in enumerate(self.outputs.regions)}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # NumPy's types take one of the names for an option

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `save` wrote."""
        with np.load(path) as file:
            count = sum(name.startswith("regions") for name in file.files)
            regions = tuple(file[f"regions{number}"] for number in range(count))
            return cls(file["images"], file["labels"], Outputs(file["logits"], regions))


def run(model: onnx.ModelProto, images: Array) -> Outputs:
    """Run a model that gives logits first.

    Args:
        model: of one input ``[N, C, H, W]``, float32 or float16, batch free or fixed.
        images: ``[N, C, H, W]`` float32.
    """
    shown, topk = _with_regions(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = _LOUD
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else None
    kind = np.float16 if entry.type == "tensor(float16)" else np.float32
    wanted = [session.get_outputs()[0].name, *topk]
    step, found = fixed or _BATCH, []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        # The last batch of a fixed size is filled up, and what that adds is dropped.
        fed = np.resize(batch, (step, *batch.shape[1:])) if fixed else batch
        outputs = session.run(wanted, {entry.name: fed.astype(kind)})
        found.append([output[: len(batch)] for output in outputs])
    logits, *regions = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Outputs(logits.astype(np.float64), tuple(np.sort(chosen, axis=-1) for chosen in regions))


def _with_regions(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A copy without functions that also gives the indices of every TopK.

    Routing blocks stand behind each other, so that any order that ONNX allows is that of the network.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(onnx.inliner.inline_local_functions(model) if model.functions else model)
    names = [node.output[1] for node in shown.graph.node if node.op_type == "TopK"]
    have = {output.name for output in shown.graph.output}
    for name in names:
        if name not in have:
            shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
    return shown, names


def snr_db(reference: Array, other: Array) -> float:
    """``10 log10(sum reference^2 / sum (reference - other)^2)`` in dB; infinite where both are equal."""
    noise = float(np.square(reference - other).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(np.square(reference).sum() / noise))


def agreement(reference: Array, other: Array) -> float:
    """Share of images with the same largest logit, percent."""
    return 100 * float((reference.argmax(axis=1) == other.argmax(axis=1)).mean())


def routing_agreement(reference: Sequence[Array], other: Sequence[Array]) -> tuple[float, ...]:
    """Share of regions with the same set of regions, percent, block by block.

    Raises:
        ValueError: another number of blocks, or of regions: the two are not the same network.
    """
    shapes = [tuple(chosen.shape for chosen in regions) for regions in (reference, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the regions picked have shapes {shapes[1]}, in FP32 {shapes[0]}")
    return tuple(100 * float((a == b).all(axis=-1).mean()) for a, b in zip(reference, other, strict=True))


def compare(reference: Reference, outputs: Outputs) -> Column:
    """Figures of ``outputs`` against FP32."""
    expected = reference.outputs
    routing = routing_agreement(expected.regions, outputs.regions)
    return Column(
        snr_db=snr_db(expected.logits, outputs.logits),
        top1=100 * float((outputs.logits.argmax(axis=1) == reference.labels).mean()),
        agreement=agreement(expected.logits, outputs.logits),
        routing=routing,
        routing_mean=float(np.mean(routing)) if routing else None,
    )


def judge(model: onnx.ModelProto, folder: Path) -> dict[str, Any]:
    """All figures of a quantized model but what making it cost.

    Args:
        model: the quantized file.
        folder: that `preparation` made.

    Raises:
        ValueError: it is not the network of that folder, or computes in ways that the counter does not see.
    """
    references = {column: Reference.load(folder / f"{column}.npz") for column in COLUMNS}
    found: dict[str, Any] = {
        column: asdict(compare(reference, run(model, reference.images))) for column, reference in references.items()
    }
    image = references["clean"].images[:1]
    counted, full = multiply_adds(model, image), multiply_adds(onnx.load(folder / "exported.onnx"), image)
    if counted.total < full.total:
        raise ValueError(
            f"{counted.total} multiply-adds were found of the {full.total} of FP32: an operator is not known"
        )
    return found | {
        "int8": counted.share("int8", "int8"),
        "weights_8_bit": counted.share("float", "int8"),
        "multiply_adds": {f"{a} x {b}": count for (a, b), count in sorted(counted.by_types.items())},
    }


def main() -> None:
    """Print the figures of a file: ``python -m benchmarks.quantization.judge FOLDER MODEL``."""
    folder, model = map(Path, sys.argv[1:])
    print(json.dumps(judge(onnx.load(model), folder)))


if __name__ == "__main__":
    main()
