"""A loaded model: calls, streams, pictures, and what it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from ctypes import byref, c_int32, c_void_p, sizeof
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from edgeformer.errors import InputError
from edgeformer.inference.arguments import milliseconds, require_mapping, whole_number
from edgeformer.inference.arrays import empty_like, fill, fill_output, fits
from edgeformer.inference.description import Description, describe_model
from edgeformer.inference.library import ClassStruct, ImageStruct, RuntimeLibrary, Tensor
from edgeformer.inference.pictures import Picture, describe, pixels_of
from edgeformer.inference.plan import Plan
from edgeformer.ops.memory import stream_handle, wait_for

__all__ = ["Context", "Model", "Prediction"]

_TENSOR_SIZE = sizeof(Tensor)
# Shapes that a model remembers: more are run like the first call.
_MOST_PLANS = 64
_LARGEST_INT32 = 2**31 - 1
# EDGEFORMER_MAX_TOP
_MOST_CLASSES = 1000


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


class _Loaded:
    """A model of the library, with what was taken from it: freed once it is closed and no call is inside it any more.

    ``with loaded as handle:`` is a call.
    """

    def __init__(self, library: RuntimeLibrary, handle: c_void_p) -> None:
        self.file = ""
        self.reserved: c_void_p | None = None
        self._functions = library.functions
        self._handle = handle
        self._lock = threading.Lock()
        self._closed = False
        self._users = 1

    def __enter__(self) -> c_void_p:
        with self._lock:
            if self._closed:
                raise InputError("EF803", f"{self.file} was closed before this call")
            self._users += 1
        return self._handle

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self._functions.edgeformerReleaseContext(self.reserved)
            self._functions.edgeformerRelease(self._handle)

    def close(self) -> None:
        with self._lock:
            was_closed, self._closed = self._closed, True
        if not was_closed:
            self.__exit__()


class Model:
    """A model that `load` loaded. Threads may share it; so many run at once as it has contexts, others wait.

    Use it as a context manager, or call `close`, to give its memory back.
    """

    def __init__(self, library: RuntimeLibrary, handle: c_void_p) -> None:
        """Take over a model of the library; `load` is what makes one."""
        self._library = library
        self._loaded = _Loaded(library, handle)
        self._lock = threading.Lock()
        self._reserved: Context | None = None
        self._description = describe_model(library, handle)
        self._loaded.file = self._description.file
        self._inputs = self._description.inputs
        self._outputs = self._description.outputs
        self._device = self._description.device
        name = self._description.image_input
        self._image_input = next((info for info in self._inputs if info.name == name), None)
        self._input_struct = Tensor * len(self._inputs)
        self._output_struct = Tensor * len(self._outputs)
        self._plans: dict[tuple[tuple[int, ...], ...], Plan] = {}

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
        with self._loaded as handle:
            if self._reserved is not None and self._description.contexts == 1:
                with self._lock:
                    return self._reserved.run(feeds, outputs)
            functions = self._library.functions
            return self._run(
                functions.edgeformerRun,
                functions.edgeformerOutputShapes,
                handle,
                feeds,
                {} if outputs is None else outputs,
            )

    def enqueue(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, *, stream: Any = None
    ) -> dict[str, Any]:
        """As `Context.enqueue`, on a context that the model takes from its pool at the first call and keeps.

        Calls have to follow each other on one stream; for several streams take a `context` for each.
        """
        with self._loaded as handle, self._lock:
            if self._reserved is not None:
                return self._reserved.enqueue(inputs, outputs, stream=stream)
            taken = self._acquire(handle, -1)
            context = Context(self, taken)
            try:
                results = context.enqueue(inputs, outputs, stream=stream)
            except BaseException:
                self._library.functions.edgeformerReleaseContext(taken)
                raise
            self._loaded.reserved, self._reserved = taken, context
            return results

    @contextlib.contextmanager
    def context(self, wait: float | None = None) -> Iterator[Context]:
        """Take a context of the pool, for streams and for runs that shall not wait for one.

        Args:
            wait: seconds to wait where all are in use; None waits for ever.

        Raises:
            InputError: the model is closed, or `wait` is no number.
            EnvironmentFault: none came free.
        """
        waited = milliseconds(wait)
        with self._loaded as handle:
            taken = self._acquire(handle, waited)
            context = Context(self, taken)
            try:
                yield context
            finally:
                context._handle = None
                self._library.functions.edgeformerReleaseContext(taken)

    def predict(self, pictures: Picture | Sequence[Picture], top: int | None = None) -> Any:
        """Classify pictures: prepare them as training did, run the model, rank the classes.

        Args:
            pictures: a picture or several: paths, Pillow images, or ``[height, width, 3]`` uint8 RGB arrays.
            top: classes of each, at most as many as the model has; None for 5, or all where it has fewer.

        Returns:
            A `Prediction` for each class, best first; for several pictures a list of such lists.

        Raises:
            InputError: a picture cannot be read, the model takes none, or it is no classifier.
        """
        several = _several(pictures)
        pixels = [pixels_of(picture) for picture in several]
        images = (ImageStruct * len(pixels))(*(ImageStruct(**describe(one)) for one in pixels))
        if top is None:
            classes = self._outputs[0].shape[-1:] if self._outputs else ()
            top = min(5, *(size for size in classes if size), 5)
        top = max(-_LARGEST_INT32, min(whole_number(top, "top"), _LARGEST_INT32))
        found = (ClassStruct * max(1, len(pixels) * max(0, min(top, _MOST_CLASSES))))()
        with self._loaded as handle:
            self._library.check(
                self._library.functions.edgeformerClassify(handle, images, len(pixels), c_int32(top), found)
            )
        labels = self._description.labels
        ranked = [
            [
                Prediction(one.index, labels[one.index] if one.index < len(labels) else str(one.index), one.probability)
                for one in found[start * top : (start + 1) * top]
            ]
            for start in range(len(pixels))
        ]
        return ranked if several is pictures else ranked[0]

    def preprocess(self, pictures: Picture | Sequence[Picture]) -> np.ndarray[Any, Any]:
        """The model's input of pictures, as `predict` makes it; of several inputs the one that the manifest names.

        Args:
            pictures: as `predict` takes them.

        Returns:
            ``[pictures, ...]``, one also of a single one, of the type and layout of the model's input for images.

        Raises:
            InputError: a picture cannot be read, or the model takes none.
        """
        pixels = [pixels_of(picture) for picture in _several(pictures)]
        images = (ImageStruct * len(pixels))(*(ImageStruct(**describe(one)) for one in pixels))
        tensor = Tensor(struct_size=_TENSOR_SIZE)
        array = np.empty(0)
        info = self._image_input
        if info is not None:
            if not all(info.shape[1:]):
                raise InputError(
                    "EF765",
                    f"{self._description.file} leaves the size of its input `{info.name}` open: prepare it yourself",
                )
            array = np.empty((len(pixels), *(size or 0 for size in info.shape[1:])), info.dtype)
            fill(tensor, array, info.name)
        with self._loaded as handle:
            self._library.check(
                self._library.functions.edgeformerPreprocess(handle, images, len(pixels), byref(tensor))
            )
        return array

    def describe(self) -> Description:
        """What the model is, and what runs it."""
        return self._description

    def close(self) -> None:
        """Free the model once the calls that are inside it have ended. Wait for what was enqueued before."""
        self._loaded.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _acquire(self, handle: c_void_p, wait_milliseconds: int) -> c_void_p:
        taken = c_void_p()
        self._library.check(self._library.functions.edgeformerAcquireContext(handle, wait_milliseconds, byref(taken)))
        return taken

    def _by_name(self, arrays: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        if len(arrays) > len(self._inputs):
            raise InputError("EF802", f"got {len(arrays)} inputs; the model has {len(self._inputs)}")
        feeds = {info.name: array for info, array in zip(self._inputs, arrays, strict=False)}
        if twice := sorted(feeds.keys() & named.keys()):
            raise InputError("EF802", f"inputs are given twice, by place and by name: {', '.join(twice)}")
        return {**feeds, **named}

    def _run(
        self, run: Any, shapes: Any, handle: c_void_p, feeds: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """``run`` and ``shapes`` are the library's functions, for ``handle``: a model or a context."""
        require_mapping(feeds, "inputs")
        require_mapping(outputs, "outputs")
        key = None if outputs else self._shapes_of(feeds)
        plan = self._plans.get(key) if key is not None else None
        if plan is not None:
            results, inputs, tensors = plan.bind(feeds)
            self._library.check(run(handle, inputs, len(self._inputs), tensors, len(self._outputs)))
            return results
        inputs, kept = self._input_tensors(feeds)
        results, tensors = self._output_tensors(shapes, handle, inputs, feeds, outputs)
        if self._device is not None:
            # The run is on a stream of its own.
            for tensor, array in (*zip(inputs, kept, strict=True), *zip(tensors, results.values(), strict=True)):
                if tensor.memory:
                    wait_for(array)
        self._library.check(run(handle, inputs, len(self._inputs), tensors, len(self._outputs)))
        del kept
        if key is not None and len(self._plans) < _MOST_PLANS:
            self._plans[key] = Plan(inputs, tensors, [info.name for info in self._inputs], results)
        return results

    def _shapes_of(self, feeds: Mapping[str, Any]) -> tuple[tuple[int, ...], ...] | None:
        """The inputs' shapes; None where they are not all dense NumPy arrays of the model's types."""
        shapes = []
        for info in self._inputs:
            array = feeds.get(info.name)
            if type(array) is not np.ndarray or array.dtype != info.dtype or not array.flags.c_contiguous:
                return None
            shapes.append(array.shape)
        return tuple(shapes) if len(feeds) == len(shapes) else None

    def _enqueue(
        self, handle: c_void_p, feeds: Mapping[str, Any], outputs: Mapping[str, Any], stream: Any
    ) -> dict[str, Any]:
        functions = self._library.functions
        require_mapping(feeds, "inputs")
        require_mapping(outputs, "outputs")
        inputs, kept = self._input_tensors(feeds, may_copy=False)
        results, tensors = self._output_tensors(functions.edgeformerContextOutputShapes, handle, inputs, feeds, outputs)
        of_stream = stream_handle(stream, next(iter(feeds.values()), None))
        self._library.check(
            functions.edgeformerEnqueue(handle, inputs, len(self._inputs), tensors, len(self._outputs), of_stream)
        )
        del kept
        return results

    def _input_tensors(self, feeds: Mapping[str, Any], *, may_copy: bool = True) -> tuple[Any, list[Any]]:
        if feeds.keys() != {info.name for info in self._inputs}:
            names = [info.name for info in self._inputs]
            raise InputError("EF802", f"got the inputs {sorted(map(str, feeds))}; the model has {names}")
        tensors = self._input_struct()
        kept = []
        for tensor, info in zip(tensors, self._inputs, strict=True):
            array = feeds[info.name]
            used = fill(tensor, array, info.name, self._device)
            if used is not array and not may_copy:
                raise InputError(
                    "EF912", f"`{info.name}` is not dense, and a copy would not outlive the call: make it contiguous"
                )
            kept.append(used)
        return tensors, kept

    def _output_tensors(
        self, shapes: Any, handle: c_void_p, inputs: Any, feeds: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Any]:
        unknown = sorted(map(str, given.keys() - {info.name for info in self._outputs}))
        if unknown:
            raise InputError("EF802", f"the model has no output {', '.join(unknown)}")
        tensors = self._output_struct()
        for tensor in tensors:
            tensor.struct_size = _TENSOR_SIZE
        self._library.check(shapes(handle, inputs, len(self._inputs), tensors, len(self._outputs)))
        results: dict[str, Any] = {}
        if self._description.backend == "onnxruntime" and any(tensor.memory for tensor in inputs):
            return results, tensors  # which the library refuses: no output has to be made for it
        like = next(iter(feeds.values()), None)
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
            fill_output(tensor, array, info.name, self._device)
        return results, tensors


class Context:
    """One execution of a model at a time, of one thread. `Model.context` gives it."""

    def __init__(self, model: Model, handle: c_void_p) -> None:
        """Take over a context of the library; `Model.context` is what makes one."""
        self._model = model
        self._handle: c_void_p | None = handle

    def run(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As `Model.run`, on this context."""
        functions = self._model._library.functions
        return self._model._run(
            functions.edgeformerRunContext,
            functions.edgeformerContextOutputShapes,
            self._taken(),
            feeds,
            {} if outputs is None else outputs,
        )

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
        return self._model._enqueue(self._taken(), inputs, {} if outputs is None else outputs, stream)

    @property
    def graph_state(self) -> str:
        """What this context does about CUDA graphs, and why."""
        text: bytes = self._model._library.functions.edgeformerGraphState(self._taken())
        return text.decode(errors="replace")

    def _taken(self) -> c_void_p:
        if self._handle is None:
            raise InputError("EF803", "this context was given back before the call: use it inside its `with` block")
        return self._handle


def _several(pictures: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """A list or tuple of pictures as it is; a single picture as a list."""
    return pictures if isinstance(pictures, (list, tuple)) else [pictures]  # type: ignore[list-item]
