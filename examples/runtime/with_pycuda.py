#!/usr/bin/env python3
"""Classify pictures with memory, a context and a stream of pycuda: device arrays and page-locked memory, in and out.

It needs an NVIDIA GPU that the bundle's engine was built for, TensorRT, and pycuda (pip install 'edgeformer[gpu]').
Where one of them is missing it says so and ends with exit code 4; --host classifies with NumPy arrays and whatever runs
the bundle there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgeformer as ef
from edgeformer.inference import Model

Logits = NDArray[np.floating[Any]]


def main(arguments: list[str] | None = None) -> int:
    """Print the best classes of each picture; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a classifier's; its engine is code that is run: trust its maker")
    parser.add_argument("picture", nargs="+", type=Path)
    parser.add_argument("--top", type=int, default=3, help="classes of each picture (default: %(default)s)")
    parser.add_argument("--device", type=int, default=0, help="number of the CUDA device (default: %(default)s)")
    parser.add_argument("--host", action="store_true", help="without pycuda: NumPy arrays in and out")
    options = parser.parse_args(arguments)
    try:
        if options.host:
            with ef.load(options.bundle) as model:
                report(model, options.picture, on_host(model, options.picture), options.top)
        else:
            with cuda_context(options.device), open_on_gpu(options.bundle, options.device) as model:
                report(model, options.picture, on_gpu(model, options.picture), options.top)
    except ef.EdgeformerError as error:  # its message says what is wrong and what to do
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_code
    except CudaMissing as error:
        print(f"{error}. --host does without", file=sys.stderr)
        return 4
    return 0


class CudaMissing(Exception):
    """pycuda or a GPU is missing, which only this machine's owner can change."""


@contextmanager
def cuda_context(device: int) -> Iterator[None]:
    """A context that is current within the block: the device's primary one, which the runtime and torch use, too.

    Where the application has made another one current before it loads a model, the model lives in that one.

    Raises:
        CudaMissing: there is no pycuda, no driver, or no such device.
    """
    try:
        import pycuda.driver as cuda
    except ImportError as error:  # also where there is no driver, which it is linked to
        raise CudaMissing(f"pycuda cannot be imported ({error}): pip install 'edgeformer[gpu]'") from error
    try:
        cuda.init()
        context = cuda.Device(device).retain_primary_context()
    except cuda.Error as error:
        raise CudaMissing(f"pycuda finds no CUDA device {device} ({error})") from error
    context.push()
    try:
        yield
    finally:
        context.pop()


def open_on_gpu(bundle: Path, device: int) -> Model:
    """The bundle's engine in the current context; raises where it cannot run here, instead of taking the CPU."""
    return ef.load(bundle, backend="tensorrt", device=device, trust_bundle=True)


def on_host(model: Model, pictures: list[Path]) -> Logits:
    """One run with NumPy arrays: the runtime copies them to the GPU and back, where there is one."""
    name, output = names(model)
    results = model.run({name: model.preprocess(list(pictures))})
    return np.asarray(results[output])


def on_gpu(model: Model, pictures: list[Path]) -> Logits:
    """The same twice: on a stream of ours with arrays in device memory, and from page-locked memory into such.

    Nothing here waits for the GPU but `synchronize` and `run`.
    """
    import pycuda.driver as cuda
    from pycuda import gpuarray

    name, output = names(model)
    prepared = model.preprocess(list(pictures))
    # Page-locked memory is an array of NumPy's. The GPU copies from and to it by itself, while this thread goes on.
    staged = cuda.pagelocked_empty(prepared.shape, prepared.dtype)
    staged[...] = prepared

    stream = cuda.Stream()
    images = gpuarray.empty(prepared.shape, prepared.dtype)
    images.set_async(staged, stream=stream)
    # Outputs that are not given are made, as GPUArrays since the input is one. Inputs and outputs have to live until
    # the stream has passed the call.
    results = model.enqueue({name: images}, stream=stream)
    logits = cuda.pagelocked_empty(results[output].shape, results[output].dtype)
    results[output].get_async(stream=stream, ary=logits)
    stream.synchronize()

    # Without a stream: the runtime copies, from page-locked memory at full speed.
    again = cuda.pagelocked_empty(logits.shape, logits.dtype)
    model.run({name: staged}, {output: again})
    if not np.array_equal(logits, again):
        raise AssertionError("the same pictures gave other classes the second time")
    return np.asarray(logits)


def names(model: Model) -> tuple[str, str]:
    """The input that takes pictures and the first output."""
    found = model.describe()
    return found.image_input or found.inputs[0].name, found.outputs[0].name


def report(model: Model, pictures: list[Path], logits: Logits, top: int) -> None:
    """Print the best classes, best first, with their probabilities."""
    print(model.describe())
    labels = model.describe().labels
    for picture, row in zip(pictures, logits.astype(np.float64), strict=True):
        weights = np.exp(row - row.max())
        for index in np.argsort(-row, kind="stable")[:top]:
            label = labels[index] if index < len(labels) else str(index)
            print(f"{picture}: {label} {weights[index] / weights.sum():.1%}")


if __name__ == "__main__":
    sys.exit(main())
