"""Prints as JSON in which places of their vtables NVIDIA's bindings find the methods that the C++ runtime calls.

    LD_LIBRARY_PATH=FOLDER python vtable_probe.py BINDINGS_FOLDER MODULE SONAME

FOLDER has vtable_recorder.cpp compiled as SONAME, and empty libraries for the others that the bindings link. Methods
that the bindings do not have are left out. The names are those of runtime/src/tensorrt/abi.h.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

RUNTIME, ENGINE, CONTEXT, CONFIG, REGISTRY = range(5)


def main(folder: str, module: str, soname: str) -> None:
    sys.path.insert(0, folder)
    recorder = ctypes.CDLL(soname)
    for function in (recorder.recorderInterface, recorder.recorderText, recorder.recorderThird):
        function.restype = ctypes.c_void_p
    recorder.recorderAnswer.argtypes = [ctypes.c_void_p]
    recorder.recorderAllocate.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    trt: Any = importlib.import_module(module)
    logged: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            logged.append(message)

    logger = Logger()
    runtime = trt.Runtime(logger)
    places: dict[str, int] = {}

    def note(name: str, call: Callable[[], Any], answer: int | None = None, *, behind: bool = True) -> Any:
        recorder.recorderAnswer(recorder.recorderText() if answer is None else answer)
        try:
            value = call()
        except AttributeError:
            return None
        assert recorder.recorderPlace() >= 0, name
        assert recorder.recorderBehindInterface() == int(behind), name
        places[name] = recorder.recorderPlace()
        return value

    def interface(kind: int) -> int:
        return int(recorder.recorderInterface(kind))

    engine = note("Runtime.deserialize_engine", lambda: runtime.deserialize_cuda_engine(b"x"), interface(ENGINE))
    registry = note("Runtime.get_plugin_registry", runtime.get_plugin_registry, interface(REGISTRY))
    note("Runtime.set_host_code_allowed", lambda: setattr(runtime, "engine_host_code_allowed", True))
    note("Runtime.get_engine_header_size", lambda: runtime.engine_header_size)
    note("Runtime.get_engine_validity", lambda: runtime.get_engine_validity(b"x"), 0)
    note("Registry.load_library", lambda: registry.load_library("x"), behind=False)

    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    context = note("Engine.create_context", lambda: engine.create_execution_context(strategy), interface(CONTEXT))
    config = note("Engine.create_runtime_config", lambda: engine.create_runtime_config(), interface(CONFIG))
    if config is not None:
        note("Engine.create_context_with_config", lambda: engine.create_execution_context(config), interface(CONTEXT))
        note("Config.set_allocation_strategy", lambda: config.set_execution_context_allocation_strategy(strategy))
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        setter = "dynamic_shapes_kernel_specialization_strategy"
        note("Config.set_kernel_specialization", lambda: setattr(config, setter, eager))
    _note_engine(note, engine)

    note("Context.set_profile", lambda: context.set_optimization_profile_async(0, 0))
    note("Context.set_input_shape", lambda: context.set_input_shape("x", (1,)))
    note("Context.get_tensor_shape", lambda: context.get_tensor_shape("x"))
    note("Context.set_tensor_address", lambda: context.set_tensor_address("x", 256))
    allocator = _Allocator(trt)
    note("Context.set_output_allocator", lambda: context.set_output_allocator("x", allocator.object))
    given = recorder.recorderThird()
    note("Context.enqueue", lambda: context.execute_async_v3(0))
    note("Context.set_device_memory", lambda: context.set_device_memory(256, 1))
    note("Context.is_stream_capturable", lambda: context.is_stream_capturable(0))

    allocator.probe(recorder, given, places)

    # A logger of TensorRT 10 logs in the first place, one of the others behind three that describe it.
    for place in (0, 4):
        recorder.recorderLog(place, 1, b"message")
        if logged:
            places["log"] = place
            break
    print(json.dumps(places))
    sys.stdout.flush()
    os._exit(0)  # nothing of this is to be destroyed


def _note_engine(note: Callable[..., Any], engine: Any) -> None:
    note("Engine.get_profile_count", lambda: engine.num_optimization_profiles)
    note("Engine.get_tensor_shape", lambda: engine.get_tensor_shape("x"))
    note("Engine.get_tensor_type", lambda: engine.get_tensor_dtype("x"), 0)
    note("Engine.get_tensor_location", lambda: engine.get_tensor_location("x"), 0)
    note("Engine.is_shape_tensor", lambda: engine.is_shape_inference_io("x"))
    note("Engine.get_tensor_mode", lambda: engine.get_tensor_mode("x"), 0)
    note("Engine.get_tensor_format", lambda: engine.get_tensor_format("x"), 0)
    note("Engine.get_profile_shape", lambda: engine.get_tensor_profile_shape("x", 0))
    note("Engine.get_tensor_count", lambda: engine.num_io_tensors)
    note("Engine.get_tensor_name", lambda: engine.get_tensor_name(0))
    note("Engine.get_device_memory", lambda: engine.device_memory_size_v2)


class _Allocator:
    """An output allocator, and which of its methods were called."""

    def __init__(self, trt: Any) -> None:
        self.called = called = ["nothing"]

        class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IOutputAllocator.__init__(self)

            def reallocate_output(self, *arguments: Any) -> int:
                called.append("reallocate_output")
                return 0

            def reallocate_output_async(self, *arguments: Any) -> int:
                called.append("reallocate_output_async")
                return 0

            def notify_shape(self, *arguments: Any) -> None:
                called.append("notify_shape")

        self.object = Allocator()

    def probe(self, recorder: Any, given: Any, places: dict[str, int]) -> None:
        """Call what was handed over; the first four places describe an allocator and destroy it."""
        for place in range(4, 8):
            if "notify_shape" not in self.called:  # the last one, which is told the shape
                recorder.recorderAllocate(given, place)
                places[f"OutputAllocator.{self.called[-1]}"] = place


if __name__ == "__main__":
    main(*sys.argv[1:])
