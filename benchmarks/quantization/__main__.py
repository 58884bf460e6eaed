"""Compare edgeformer's INT8 with what users would take instead, and write the page that says how they do.

    python -m benchmarks.quantization [--quick] [--tools NAME...] [--subjects NAME...]

Trains checkpoints in floating point, makes an environment for each rival, quantizes, judges, and writes
docs/measurements/quantization.json and the tables of docs/quantization.md. Everything else goes below
build/quantization; what is there is kept, so a run that was stopped goes on. `--quick` takes one checkpoint, few
images, edgeformer and ONNX Runtime, and writes no page. `--render` makes the page from the JSON file that is there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.quantization.environments import Unavailable, python_of, versions_of
from benchmarks.quantization.running import ROOT, Maker, every_row
from benchmarks.quantization.subjects import CHECKPOINTS, LOG, SUBJECTS, WEIGHTS, train_subject
from benchmarks.quantization.tables import inserted, tables
from benchmarks.quantization.tools import TOOLS
from edgeformer.artifacts import write_text
from edgeformer.errors import EdgeformerError

RESULTS = ROOT / "docs" / "measurements" / "quantization.json"
PAGE = ROOT / "docs" / "quantization.md"
WORK = ROOT / "build" / "quantization"
# Evaluation images: all clean ones, and every second one degraded.
_WHOLE = {"clean": 500, "degraded": 250}
_QUICK = {"clean": 100, "degraded": 100}
_QUICK_TOOLS = ("edgeformer", "onnxruntime")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one checkpoint, few images, few rows; a few minutes")
    parser.add_argument("--render", action="store_true", help="make the page from the JSON file; measure nothing")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, metavar="NAME", help=f"default: {', '.join(TOOLS)}")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, metavar="NAME", help=f"of: {', '.join(SUBJECTS)}")
    parser.add_argument("--rows", default="", metavar="REGEX", help='only rows whose "TOOL, ROW" has a match')
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="folder of trained ones")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of everything else")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args(words)
    if options.render:
        _render(json.loads(options.json.read_text()))
        return
    tools = [name for name in TOOLS if name in (options.tools or (_QUICK_TOOLS if options.quick else TOOLS))]
    names = options.subjects or (list(SUBJECTS)[:1] if options.quick else list(SUBJECTS))
    work = options.work / ("quick" if options.quick else "whole")
    subjects = {name: _subject(name, options.checkpoints, work, quick=options.quick) for name in names}
    makers, missing = _makers(tools, options.work / "environments")
    folders = [work / name for name in subjects]
    rows = list(every_row(makers, folders, quick=options.quick, wanted=options.rows, tell=_tell))
    document = {
        "command": shlex.join(["python", "-m", "benchmarks.quantization", *(words or sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "machine": _machine(),
        "versions": {maker.tool: versions_of(maker.tool, maker.python) for maker in makers},
        "missing": missing,
        "subjects": subjects,
        "rows": rows,
    }
    if options.quick:
        print(tables(document))
        return
    write_text(options.json, json.dumps(document, indent=1) + "\n")
    if options.json == RESULTS:
        _render(document)


def _subject(name: str, checkpoints: Path, work: Path, *, quick: bool) -> dict[str, Any]:
    """Train what is not there, and prepare it; what the document says of it."""
    from benchmarks.quantization.preparation import prepare

    subject, folder = SUBJECTS[name], checkpoints / name
    finished = folder / LOG
    epochs = json.loads(finished.read_text())["epochs"] if finished.exists() else []
    if len(epochs) < subject.epochs or not (folder / WEIGHTS).exists():
        train_subject(subject, folder)
        epochs = json.loads(finished.read_text())["epochs"]
    top1 = epochs[-1]["top1"]
    if top1 < subject.wanted:
        raise SystemExit(f"{name}: {top1:.1f} % of the test images, {subject.wanted} % are wanted: train it for longer")
    found = prepare(subject, folder, work / name, **(_QUICK if quick else _WHOLE))
    return {"data": subject.data, "seed": subject.seed, "overrides": dict(subject.overrides), "test_top1": top1} | found


def _makers(tools: list[str], cache: Path) -> tuple[list[Maker], dict[str, str]]:
    """Who can make rows here, and why others cannot."""
    makers, missing = [], {}
    for tool in tools:
        try:
            makers.append(Maker(tool, python_of(tool, cache)))
        except Unavailable as error:
            missing[tool] = str(error)
            print(f"{tool}: cannot be installed: {error}", flush=True)
    return makers, missing


def _tell(subject: str, row: dict[str, Any]) -> None:
    told = row.get("failed") or (
        f"{row['clean']['snr_db']:.1f} / {row['degraded']['snr_db']:.1f} dB, INT8 {row['int8']:.0%}, "
        f"{row['cpu_seconds']:.1f} CPU s"
    )
    print(f"{subject}, {row['tool']}, {row['row']}: {told}", flush=True)


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)}


def _render(document: dict[str, Any]) -> None:
    write_text(PAGE, inserted(PAGE.read_text(), document))


if __name__ == "__main__":
    try:
        main()
    except EdgeformerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
