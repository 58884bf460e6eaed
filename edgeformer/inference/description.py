"""What a loaded model is: its tensors, its classes, and what runs it."""

from __future__ import annotations

from ctypes import byref, c_void_p
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeformer.inference.arrays import DTYPES
from edgeformer.inference.library import Backend, ModelInfo, RuntimeLibrary, TensorInfo

__all__ = ["Description", "TensorDescription", "describe_model"]

# Fields that both `ModelInfo` and `Description` have as text.
_TEXTS = ("name", "task", "precision", "backend_library", "backend_version", "backend_reason", "file")
_TITLES = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime"}


@dataclass(frozen=True)
class TensorDescription:
    """An input or output.

    Attributes:
        name: its name.
        dtype: its type.
        shape: its shape; None is a free size.
        minimum: smallest shape that the engine was built for; without an engine 1 for a free size.
        optimum: the shape that the engine was made fastest for.
        maximum: largest shape; None for a size without an upper end.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int | None, ...]

    def __str__(self) -> str:
        text = f"{self.name}: {self.dtype} {_shape(self.shape)}"
        if None in self.shape:
            text += f", from {_shape(self.minimum)} to {_shape(self.maximum)}"
        return text


@dataclass(frozen=True)
class Description:
    """What a model is, and what runs it.

    Attributes:
        name: of the network, such as "biformer_tiny"; the file's for an engine or an ONNX file alone.
        task: "classification" or "features"; empty without a bundle.
        precision: "int8", "fp16", ...; empty without a bundle.
        labels: names of the classes in the order of their indices; empty where they are not known.
        backend: "tensorrt" or "onnxruntime".
        backend_version: of the backend's library.
        backend_library: its path.
        backend_reason: why ONNX Runtime runs a bundle that has an engine; empty otherwise.
        file: the file that is run.
        device: the CUDA device; None on the CPU.
        contexts: executions that may run at once.
        takes_images: whether `Model.predict` and `Model.preprocess` make its input from pictures.
        image_input: the input that they make; None where they make none.
        inputs: its inputs, in its order.
        outputs: its outputs, in its order.
    """

    name: str
    task: str
    precision: str
    labels: tuple[str, ...]
    backend: Literal["tensorrt", "onnxruntime"]
    backend_version: str
    backend_library: str
    backend_reason: str
    file: str
    device: int | None
    contexts: int
    takes_images: bool
    image_input: str | None
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]

    def __str__(self) -> str:
        about = [self.task, self.precision, f"{len(self.labels)} classes" if self.labels else ""]
        place = "the CPU" if self.device is None else f"CUDA device {self.device}"
        lines = [
            ": ".join(filter(None, (self.name, ", ".join(filter(None, about))))),
            f"{self.file} in {_TITLES[self.backend]} {self.backend_version} on {place}, {self.contexts} at once",
            *([f"not in TensorRT: {self.backend_reason}"] if self.backend_reason else []),
            *(f"input {tensor}" for tensor in self.inputs),
            *(f"output {tensor}" for tensor in self.outputs),
        ]
        return "\n".join(lines)


def _shape(sizes: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in sizes) + "]"


def describe_model(library: RuntimeLibrary, handle: c_void_p) -> Description:
    """Ask the library what a model of its is."""
    functions = library.functions
    info = ModelInfo()
    library.check(functions.edgeformerDescribe(handle, byref(info)))
    tensors = []
    for index in range(info.inputs + info.outputs):
        raw = TensorInfo()
        library.check(functions.edgeformerTensor(handle, index, byref(raw)))
        tensors.append(_tensor(raw))
    labels = (functions.edgeformerLabel(handle, index) for index in range(info.labels))
    texts = {name: getattr(info, name).decode(errors="replace") for name in _TEXTS}
    return Description(
        labels=tuple(label.decode(errors="replace") for label in labels),
        backend="tensorrt" if info.backend == Backend.TENSORRT else "onnxruntime",
        device=None if info.device < 0 else info.device,
        contexts=info.contexts,
        takes_images=bool(info.takes_images),
        image_input=tensors[info.image_input].name if info.takes_images else None,
        inputs=tuple(tensors[: info.inputs]),
        outputs=tuple(tensors[info.inputs :]),
        **texts,
    )


def _tensor(raw: TensorInfo) -> TensorDescription:
    def sizes(shape: Any) -> tuple[int | None, ...]:
        return tuple(None if size < 0 else size for size in shape[: raw.rank])

    return TensorDescription(
        name=raw.name.decode(errors="replace"),
        dtype=DTYPES[raw.type],
        shape=sizes(raw.shape),
        minimum=tuple(raw.minimum[: raw.rank]),
        optimum=tuple(raw.optimum[: raw.rank]),
        maximum=sizes(raw.maximum),
    )
