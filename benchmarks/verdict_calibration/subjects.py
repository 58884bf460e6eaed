"""What the calibration times: a graph made by code, slow-downs of a known size, and load by other processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeformer.latency import Runner, Times

_CHANNELS = 48
_SIDE = 28
_LAYERS = 4


def write_graph(path: Path) -> Path:
    """A chain of convolutions that takes about a millisecond on one core; weights are those of a seed."""
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "input"
    for layer in range(_LAYERS):
        name, made = f"w{layer}", f"conv{layer}"
        scale = 1 / np.sqrt(9 * _CHANNELS)
        weight = generator.normal(0, scale, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(weight, name))
        nodes.append(helper.make_node("Conv", [value, name], [made], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [made], [f"relu{layer}"]))
        value = f"relu{layer}"
    shape: list[str | int | None] = ["batch", _CHANNELS, _SIDE, _SIDE]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", value)]
    graph = helper.make_graph(nodes, "convolutions", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


class Slowed:
    """A runner whose runs take a known fraction longer: the processor is kept busy for so long after each."""

    def __init__(self, inner: Runner, fraction: float) -> None:
        """Find out what the fraction is of.

        Args:
            inner: what is slowed down.
            fraction: of its median time; 0.05 for 5 %.
        """
        self._inner = inner
        times = [inner.run() for _ in range(60)]
        self.seconds = fraction * float(np.median([one.end - one.start for one in times[20:]]))

    @property
    def graph_state(self) -> str:
        return self._inner.graph_state

    def run(self) -> Times:
        one = self._inner.run()
        until = one.end + self.seconds
        while (now := time.perf_counter()) < until:
            pass
        return one._replace(end=now)

    def close(self) -> None:
        self._inner.close()


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep so many processors busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()
