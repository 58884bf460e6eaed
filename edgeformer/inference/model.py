"""A loaded model: calls, streams, pictures, and what it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from ctypes import byref, c_int32, c_void_p, sizeof
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import numpy as np

from edgeformer.errors import InputError
from edgeformer.inference.arrays import DTYPES, empty_like, fill, fits, stream_handle
from edgeformer.inference.library import (
    Backend,
    ClassStruct,
    ImageStruct,
    ModelInfo,
    RuntimeLibrary,
    Tensor,
    TensorInfo,
)
from edgeformer.inference.pictures import Picture, describe, pixels_of

__all__ = ["Context", "Description", "Model", "Prediction", "TensorDescription"]

_TENSOR_SIZE = sizeof(Tensor)


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
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]


@dataclass(frozen=True)
class Prediction:
    """A class of a picture.

    Attributes:
        index: of the class.
        label: its name; the index as text where it has none.
        probability: by softmax over all classes.
    """

    index: int
    label: str
    probability: float


class Model:
    """A model that `load` loaded. Threads may share it; so many run at once as it has contexts, others wait.

    Use it as a context manager, or call `close`, to give its memory back.
    """

    def __init__(self, library: RuntimeLibrary, handle: c_void_p) -> None:
        """Take over a model of the library; `load` is what makes one."""
        self._library = library
        self._handle: c_void_p | None = handle
        self._lock = threading.Lock()
        self._reserved: Context | None = None
        self._description = _describe(library, handle)
        self._inputs = self._description.inputs
        self._outputs = self._description.outputs
        self._input_struct = Tensor * len(self._inputs)
        self._output_struct = Tensor * len(self._outputs)

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """Run the model once and wait for it.

        Args:
            arrays: its inputs in its order: NumPy arrays, torch tensors, CuPy arrays, pycuda GPUArrays, or anything
                with ``__cuda_array_interface__`` or DLPack. Device arrays need the TensorRT backend.
            named: inputs by name, instead.

        Returns:
            The output as an array of the same library on the same device; of several outputs a dict by name.

        Raises:
            InputError: the arrays do not fit the model or the engine's range, or the run failed.
        """
        results = self.run(self._by_name(arrays, named))
        return next(iter(results.values())) if len(results) == 1 else results

    def run(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the model once and wait for it.

        Args:
            feeds: an array for each input, by name.
            outputs: arrays to write to, by name; the others are made as arrays of the first input's library.

        Returns:
            Every output by name.

        Raises:
            InputError: the arrays do not fit the model or the engine's range, or the run failed.
        """
        with self._lock:
            if self._reserved is not None and self._description.contexts == 1:
                return self._reserved.run(feeds, outputs)
        results: dict[str, Any] = self._run(self._library.functions.edgeformerRun, self._open(), feeds, outputs or {})
        return results

    def enqueue(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, *, stream: Any = None
    ) -> dict[str, Any]:
        """As `Context.enqueue`, on a context that the model takes from its pool at the first call and keeps.

        Calls have to follow each other on one stream; for several streams take a `context` for each.
        """
        with self._lock:
            if self._reserved is None:
                handle = c_void_p()
                self._library.check(self._library.functions.edgeformerAcquireContext(self._open(), -1, byref(handle)))
                self._reserved = Context(self, handle)
            return self._reserved.enqueue(inputs, outputs, stream=stream)

    @contextlib.contextmanager
    def context(self, wait: float | None = None) -> Iterator[Context]:
        """Take a context of the pool, for streams and for runs that shall not wait for one.

        Args:
            wait: seconds to wait where all are in use; None waits for ever.

        Raises:
            EnvironmentFault: none came free.
        """
        handle = c_void_p()
        milliseconds = -1 if wait is None else max(0, min(round(wait * 1000), 2**31 - 1))
        self._library.check(self._library.functions.edgeformerAcquireContext(self._open(), milliseconds, byref(handle)))
        try:
            yield Context(self, handle)
        finally:
            self._library.functions.edgeformerReleaseContext(handle)

    def predict(self, pictures: Picture | Sequence[Picture], top: int = 5) -> Any:
        """Classify pictures: prepare them as training did, run the model, rank the classes.

        Args:
            pictures: a picture or several: paths, Pillow images, or ``[height, width, 3]`` uint8 RGB arrays.
            top: classes of each, at most as many as the model has.

        Returns:
            A `Prediction` for each class, best first; for several pictures a list of such lists.

        Raises:
            InputError: a picture cannot be read, the model takes none, or it is no classifier.
        """
        single = not isinstance(pictures, (list, tuple))
        given: Sequence[Picture] = [pictures] if single else pictures  # type: ignore[list-item, assignment]
        pixels = [pixels_of(picture) for picture in given]
        images = (ImageStruct * len(pixels))(*(ImageStruct(**describe(one)) for one in pixels))
        found = (ClassStruct * max(1, len(pixels) * max(0, min(top, 1000))))()
        self._library.check(
            self._library.functions.edgeformerClassify(self._open(), images, len(pixels), c_int32(top), found)
        )
        labels = self._description.labels
        ranked = [
            [
                Prediction(one.index, labels[one.index] if one.index < len(labels) else str(one.index), one.probability)
                for one in found[start * top : (start + 1) * top]
            ]
            for start in range(len(pixels))
        ]
        return ranked[0] if single else ranked

    def preprocess(self, pictures: Sequence[Picture]) -> np.ndarray[Any, Any]:
        """The model's input of pictures, as `predict` makes it.

        Args:
            pictures: as `predict` takes them.

        Returns:
            ``[len(pictures), ...]`` of the type and layout of the model's input.

        Raises:
            InputError: a picture cannot be read, or the model takes none.
        """
        pixels = [pixels_of(picture) for picture in pictures]
        images = (ImageStruct * len(pixels))(*(ImageStruct(**describe(one)) for one in pixels))
        info = self._inputs[0]
        if not self._description.takes_images or not all(info.shape[1:]):
            raise InputError("EF765", f"{self._description.file} says nothing of how pictures become its input")
        array = np.empty((len(pixels), *(size or 0 for size in info.shape[1:])), info.dtype)
        tensor = Tensor()
        fill(tensor, array, info.name)
        self._library.check(
            self._library.functions.edgeformerPreprocess(self._open(), images, len(pixels), byref(tensor))
        )
        return array

    def describe(self) -> Description:
        """What the model is, and what runs it."""
        return self._description

    def close(self) -> None:
        """Free the model. Nothing may be running on it."""
        handle, self._handle = self._handle, None
        if self._reserved is not None:
            self._library.functions.edgeformerReleaseContext(self._reserved._handle)
            self._reserved = None
        if handle is not None:
            self._library.functions.edgeformerRelease(handle)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A model whose construction failed has no handle.
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _open(self) -> c_void_p:
        if self._handle is None:
            raise InputError("EF803", f"{self._description.file} was closed before this call")
        return self._handle

    def _by_name(self, arrays: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        if len(arrays) > len(self._inputs):
            raise InputError("EF802", f"got {len(arrays)} inputs; the model has {len(self._inputs)}")
        feeds = {info.name: array for info, array in zip(self._inputs, arrays, strict=False)}
        if twice := sorted(feeds.keys() & named.keys()):
            raise InputError("EF802", f"inputs are given twice, by place and by name: {', '.join(twice)}")
        return {**feeds, **named}

    def _run(self, function: Any, handle: c_void_p, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        inputs, kept = self._input_tensors(feeds)
        results, tensors = self._output_tensors(inputs, feeds, outputs)
        self._library.check(function(handle, inputs, len(self._inputs), tensors, len(self._outputs)))
        del kept
        return results

    def _enqueue(
        self, handle: c_void_p, feeds: Mapping[str, Any], outputs: Mapping[str, Any], stream: Any
    ) -> dict[str, Any]:
        inputs, kept = self._input_tensors(feeds, may_copy=False)
        results, tensors = self._output_tensors(inputs, feeds, outputs)
        first = next(iter(feeds.values()))
        self._library.check(
            self._library.functions.edgeformerEnqueue(
                handle, inputs, len(self._inputs), tensors, len(self._outputs), stream_handle(stream, first)
            )
        )
        del kept
        return results

    def _input_tensors(self, feeds: Mapping[str, Any], *, may_copy: bool = True) -> tuple[Any, list[Any]]:
        if feeds.keys() != {info.name for info in self._inputs}:
            names = [info.name for info in self._inputs]
            raise InputError("EF802", f"got the inputs {sorted(feeds)}; the model has {names}")
        tensors = self._input_struct()
        kept = []
        for tensor, info in zip(tensors, self._inputs, strict=True):
            array = feeds[info.name]
            used = fill(tensor, array, info.name)
            if used is not array and not may_copy:
                raise InputError(
                    "EF912", f"`{info.name}` is not dense, and a copy would not outlive the call: make it contiguous"
                )
            kept.append(used)
        return tensors, kept

    def _output_tensors(
        self, inputs: Any, feeds: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Any]:
        unknown = sorted(given.keys() - {info.name for info in self._outputs})
        if unknown:
            raise InputError("EF802", f"the model has no output {', '.join(unknown)}")
        tensors = self._output_struct()
        for tensor in tensors:
            tensor.struct_size = _TENSOR_SIZE
        self._library.check(
            self._library.functions.edgeformerOutputShapes(
                self._open(), inputs, len(self._inputs), tensors, len(self._outputs)
            )
        )
        like = next(iter(feeds.values()))
        results = {}
        for tensor, info in zip(tensors, self._outputs, strict=True):
            shape = tuple(tensor.shape[: tensor.rank])
            if info.name in given:
                array = given[info.name]
                if min(shape, default=0) >= 0:
                    fits(array, shape, info.dtype, info.name)
            elif min(shape, default=0) < 0:
                raise InputError(
                    "EF865",
                    f"only a run tells the size of output `{info.name}`, {[None if n < 0 else n for n in shape]}: give "
                    "an array for it that is large enough, outputs={...}",
                )
            else:
                array = empty_like(like, shape, info.dtype)
            results[info.name] = array
            if fill(tensor, array, info.name) is not array:
                raise InputError("EF912", f"output `{info.name}` is not dense: make it contiguous")
        return results, tensors


class Context:
    """One execution of a model at a time, of one thread. `Model.context` gives it."""

    def __init__(self, model: Model, handle: c_void_p) -> None:
        """Take over a context of the library; `Model.context` is what makes one."""
        self._model = model
        self._handle = handle

    def run(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As `Model.run`, on this context."""
        function = self._model._library.functions.edgeformerRunContext
        results: dict[str, Any] = self._model._run(function, self._handle, feeds, outputs or {})
        return results

    def enqueue(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, *, stream: Any = None
    ) -> dict[str, Any]:
        """Enqueue one run on a CUDA stream and return at once. The TensorRT backend alone.

        Args:
            inputs: device arrays by name. They and the outputs have to live until the stream has passed the call.
            outputs: device arrays to write to; the others are made.
            stream: a handle, an object with ``__cuda_stream__``, or a stream of torch, CuPy or pycuda; None takes the
                current one of the first input's library.

        Returns:
            Every output by name, filled once the stream has passed the call.

        Raises:
            InputError: the arrays do not fit, are not on the device, or ONNX Runtime runs the model.
        """
        return self._model._enqueue(self._handle, inputs, outputs or {}, stream)

    @property
    def graph_state(self) -> str:
        """What this context does about CUDA graphs, and why."""
        text: bytes = self._model._library.functions.edgeformerGraphState(self._handle)
        return text.decode(errors="replace")


def _describe(library: RuntimeLibrary, handle: c_void_p) -> Description:
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
        inputs=tuple(tensors[: info.inputs]),
        outputs=tuple(tensors[info.inputs :]),
        **texts,
    )


_TEXTS = ("name", "task", "precision", "backend_library", "backend_version", "backend_reason", "file")


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
