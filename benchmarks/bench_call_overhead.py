#!/usr/bin/env python3
"""Measure what `ef.load`'s model costs beside ONNX Runtime's own session: each call, and the time to the first result.

    benchmarks/bench_call_overhead.py BUNDLE [--cpp build/default/call_overhead]

The same graph of the bundle runs both ways, at batch 1 and with one thread, in turns (A B B A): what drifts falls on
both. The thread's CPU time is the figure to look at where the machine does other things as well. The control, a second
bare session beside the first, says how far to trust it: two sessions of one graph are not equally fast. A graph that
computes next to nothing is measured, too: what a call costs does not depend on the graph, and there it is not lost in
what the model costs. `--cpp` adds what the program of benchmarks/call_overhead.cpp finds for C++
(cmake --build --preset default --target call_overhead).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import edgeformer as ef
from edgeformer.inference.backend_libraries import onnx_runtime_library

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 20
RUNS_IN_EACH_ORDER = 4
MICRO = 1e6
# To the first result, in a process that has done nothing yet; and of it what ONNX Runtime takes for its session.
FIRST = """
import time
began = time.perf_counter()
import sys
import numpy as np
import edgeformer as ef
model = ef.load(sys.argv[1], backend="onnxruntime", threads=1)
loaded = time.perf_counter()
info = model.describe().inputs[0]
model(np.zeros([size or 1 for size in info.shape], info.dtype))
ended = time.perf_counter()
print(loaded - began, ended - began)
"""
SESSION = """
import sys, time
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("session.disable_quant_qdq", "1")
began = time.perf_counter()
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Overhead:
    """Medians over the rounds, in microseconds a call.

    Attributes:
        bare_us: ONNX Runtime's own session.
        overhead_us: what the model takes beyond it.
        ratio: the model's time over the bare session's.
    """

    bare_us: float
    overhead_us: float
    ratio: float


def bare_session(graph: str) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session with the options that the runtime sets."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def measure(
    ours: Callable[[], Any], theirs: Callable[[], Any], clock: Callable[[], float], rounds: int, calls: int
) -> Overhead:
    """Run both in turns.

    Args:
        ours: a call of the model.
        theirs: the same call of the bare session.
        clock: seconds.
        rounds: whose medians are taken.
        calls: in each half of a round.
    """

    def timed(call: Callable[[], Any], count: int) -> float:
        call()  # the other's weights are in the caches
        began = clock()
        for _ in range(count):
            call()
        return MICRO * (clock() - began) / count

    timed(ours, WARM_UP)
    timed(theirs, WARM_UP)
    differences, bare, ratios = [], [], []
    for _ in range(rounds):
        first, second, third = timed(ours, calls), timed(theirs, 2 * calls), timed(ours, calls)
        mean = (first + third) / 2
        differences.append(mean - second)
        ratios.append(mean / second)
        bare.append(second)
    return Overhead(statistics.median(bare), statistics.median(differences), statistics.median(ratios))


def of_calls(path: Path, rounds: int, calls: int) -> dict[str, Overhead]:
    """What a call costs, by the clock and by the thread's CPU time; "control" is one bare session beside another.

    Args:
        path: a bundle, or an ONNX file.
        rounds: whose medians are taken.
        calls: in each half of a round.

    Raises:
        ValueError: the two give different results.
    """
    with ef.load(path, backend="onnxruntime", threads=1) as model:
        found = model.describe()
        session = bare_session(found.file)
        (info,) = found.inputs
        x = np.random.default_rng(0).random([size or 1 for size in info.shape]).astype(info.dtype)
        feeds = {info.name: x}
        ours, theirs = model.run(feeds), session.run(None, feeds)
        if any(not np.array_equal(a, b) for a, b in zip(ours.values(), theirs, strict=True)):
            raise ValueError("the model and the bare session differ")

        other = bare_session(found.file)

        def bare() -> Any:
            return session.run(None, feeds)

        def bare_too() -> Any:
            return other.run(None, feeds)

        return {
            "wall": measure(lambda: model(x), bare, time.perf_counter, rounds, calls),
            "thread CPU": measure(lambda: model(x), bare, time.thread_time, rounds, calls),
            "control": measure(bare_too, bare, time.thread_time, rounds, calls),
        }


def empty_graph(path: Path) -> Path:
    """A graph that computes next to nothing: what a call costs is not lost in what the model costs."""
    value = onnx.helper.make_tensor_value_info
    shape: list[str | int | None] = ["batch", 8]
    kind = onnx.TensorProto.FLOAT
    node = onnx.helper.make_node("Neg", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "empty", [value("x", kind, shape)], [value("y", kind, shape)])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def of_first_results(bundle: Path, rounds: int) -> dict[str, float]:
    """Medians of the times to the first result, in seconds, each in a new process."""
    with ef.load(bundle, backend="onnxruntime", threads=1) as model:
        graph = model.describe().file

    def run(code: str, argument: str) -> list[float]:
        words = [sys.executable, "-c", code, argument]
        printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [float(word) for word in printed.split()]

    first = [run(FIRST, str(bundle.resolve())) for _ in range(rounds)]
    session = [run(SESSION, graph)[0] for _ in range(rounds)]
    return {
        "loaded_seconds": statistics.median(one[0] for one in first),
        "first_result_seconds": statistics.median(one[1] for one in first),
        "session_seconds": statistics.median(session),
    }


def of_cpp(program: Path, path: Path, rounds: int, calls: int) -> dict[str, Any]:
    """What benchmarks/call_overhead.cpp finds, in microseconds: the mean over both orders of making the sessions.

    Args:
        program: compiled.
        path: a bundle, or an ONNX file.
        rounds: whose medians are taken.
        calls: in each half of a round.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [str(program.resolve()), str(path), str(onnx_runtime_library()), str(rounds), str(calls)]
    runs = []
    for order in RUNS_IN_EACH_ORDER * ([], ["bare-first"]):
        printed = subprocess.run([*command, *order], capture_output=True, text=True, check=True).stdout
        runs.append(json.loads(printed))
    means = {name: statistics.mean(run[name] for run in runs) for name in ("bare_us", "overhead_us")}
    spread = statistics.stdev(run["overhead_us"] for run in runs) / len(runs) ** 0.5
    return {**means, "overhead_standard_error_us": spread, "runs": runs}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cpp", type=Path, help="the program of benchmarks/call_overhead.cpp")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--calls", type=int, default=5, help="in each half of a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    document: dict[str, Any] = {"onnxruntime": onnxruntime.__version__, "rounds": options.rounds}
    overheads = of_calls(options.bundle.resolve(), options.rounds, options.calls)
    with tempfile.TemporaryDirectory() as folder:
        graph = empty_graph(Path(folder, "empty.onnx"))
        empty = of_calls(graph, options.rounds, 20 * options.calls)
        if options.cpp is not None:
            document["cpp"] = of_cpp(options.cpp, options.bundle, options.rounds, options.calls)
            document["cpp_empty_graph"] = of_cpp(options.cpp, graph, options.rounds, 20 * options.calls)
    document["python"] = {name: asdict(one) for name, one in overheads.items()}
    document["python_empty_graph"] = {name: asdict(one) for name, one in empty.items()}
    document["first"] = of_first_results(options.bundle, max(3, options.rounds // 40))
    if options.json:
        print(json.dumps(document, indent=2))
        return
    of_both = {**overheads, **{f"{name}, empty graph": one for name, one in empty.items()}}
    for name, one in of_both.items():
        print(
            f"a call, {name}: {one.overhead_us:.1f} us beside {one.bare_us:.1f} us of ONNX Runtime "
            f"({one.ratio:.4f} times)"
        )
    for name, title in (("cpp", "in C++"), ("cpp_empty_graph", "in C++, empty graph")):
        if name in document:
            found = document[name]
            print(
                f"{title}: {found['overhead_us']:.1f} us (standard error {found['overhead_standard_error_us']:.1f} us) "
                f"beside {found['bare_us']:.1f} us"
            )
    first = document["first"]
    print(
        f"to the first result: {first['first_result_seconds']:.3f} s, imports and loading among them; "
        f"ONNX Runtime takes {first['session_seconds']:.3f} s for a session of this graph"
    )


if __name__ == "__main__":
    main()
