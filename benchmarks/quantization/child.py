"""One row in a process of its own, with the Python of its tool's environment.

    python -m benchmarks.quantization.child TOOL ROW FOLDER OUTPUT [--layers FILE]

Writes OUTPUT and, beside it as ``.cost.json``, what making it took.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import time
from pathlib import Path

from benchmarks.quantization.tools import TOOLS, Job, load_tool

__all__ = ["main"]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("row")
    parser.add_argument("folder", type=Path, help="that benchmarks.quantization.preparation made")
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=Path, help="JSON list of the nodes that become INT8")
    options = parser.parse_args(words)
    tool = load_tool(options.tool)
    folder = options.folder.resolve()
    job = Job(
        row=tool.rows[options.row],
        exported=folder / "exported.onnx",
        fused=folder / "fused.onnx",
        calibration=folder / "calibrate.npy",
        output=options.output.resolve(),
        layers=() if options.layers is None else json.loads(options.layers.read_text()),
    )
    # What a user waits for once, and not for each model.
    for name in tool.imports:
        importlib.import_module(name)
    started, cpu = time.monotonic(), _cpu_seconds()
    found = tool.quantize(job) or {}
    cost = {
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(_cpu_seconds() - cpu, 2),
        # Linux counts in KiB. The interpreter and what it imported are part of it, as they are for a user.
        "peak_mb": round(max(_usage(who).ru_maxrss for who in _WHO) * 1024 / 1e6),
    }
    job.output.with_suffix(".cost.json").write_text(json.dumps(found | cost))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _usage(who: int) -> resource.struct_rusage:
    return resource.getrusage(who)


def _cpu_seconds() -> float:
    return sum(_usage(who).ru_utime + _usage(who).ru_stime for who in _WHO)


if __name__ == "__main__":
    main()
