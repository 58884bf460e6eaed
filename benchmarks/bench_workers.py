"""How much faster `edgeformer sensitivity` is with worker processes; says so only of results that are equal.

    python -m benchmarks.bench_workers model.onnx --data images.npy --workers 2

Timed are the measurements of all layers and the observation of ranges, in turns (A B B A ...): in one process with ONNX
Runtime's own threads, in one process with one thread, and on N worker processes with one thread each, which are started
before the clock. Run it where nothing else runs: the load of other processes is printed beside the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

from edgeformer.data import open_samples
from edgeformer.pipeline.model_source import OnnxFile, model_source
from edgeformer.quantization import load_recipe
from edgeformer.quantization.distributed import Pool, open_pool
from edgeformer.quantization.layer_sensitivity import measure_layers
from edgeformer.records.sensitivity import SensitivityReport
from edgeformer.runtime.onnx_session import session_threads


def timed(
    source: OnnxFile, data: Path, images: int, pool: Pool | None, threads: int | None
) -> tuple[float, SensitivityReport]:
    samples = open_samples(data, source.preprocessing, labels=False)
    begun = time.perf_counter()
    with nullcontext() if threads is None else session_threads(threads):
        report = measure_layers(source.model, samples, recipe=load_recipe(), images=images, pool=pool)
    return time.perf_counter() - begun, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an .onnx file")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", default="2")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    source = model_source(asked.model)
    assert isinstance(source, OnnxFile)
    seconds: dict[str, list[float]] = {"one process": [], "one thread": [], "workers": []}
    reports = []
    with open_pool(asked.workers) as pool:
        # The first run of the workers imports what they need.
        timed(source, asked.data, asked.images, pool, None)
        load = os.getloadavg()[0]
        for number in range(asked.rounds):
            for name in sorted(seconds, reverse=number % 2 == 1):
                took, report = timed(
                    source,
                    asked.data,
                    asked.images,
                    pool if name == "workers" else None,
                    1 if name == "one thread" else None,
                )
                seconds[name].append(took)
                reports.append(report)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "equal": all(report == reports[0] for report in reports),
                "layers": len(reports[0].layers),
                "workers": asked.workers,
                "cores": os.cpu_count(),
                "load_before": load,
                "seconds": seconds,
                "faster_than_one_process": medians["one process"] / medians["workers"],
                "faster_than_one_thread": medians["one thread"] / medians["workers"],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
