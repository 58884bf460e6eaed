"""benchmarks/bench_build.py on the smallest model: real stages, their memory, and the table that the docs show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.bench_build import peak_bytes, resident_bytes

from .conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "bench_build.py"


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_stage_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    printed = bench("--models", "biformer_nano", "--images", "8", "--json", str(path))
    assert printed.returncode == 0, printed.stderr
    written = json.loads(path.read_text())
    assert (written["target"], written["images"]) == ("rtx-40", 8)
    *stages, whole = written["builds"]["biformer_nano"]
    assert [cost["stage"] for cost in stages[:5]] == ["export", "fuse", "quantize", "parity", "engine"]
    assert whole["stage"] == "whole build"
    for cost in (*stages, whole):
        assert cost["seconds"] > 0
        assert cost["cpu_seconds"] > 0
        # Python with PyTorch in it is beyond the one, and this machine's memory beyond the other.
        assert 100e6 < cost["peak_bytes"] < written["machine"]["memory_bytes"]
    assert sum(cost["seconds"] for cost in stages) <= whole["seconds"]
    assert sum(cost["cpu_seconds"] for cost in stages) <= whole["cpu_seconds"]
    assert max(cost["peak_bytes"] for cost in stages) <= whole["peak_bytes"]
    rows = [line for line in printed.stdout.splitlines() if line.startswith("| biformer_nano | ")]
    assert len(rows) == len(stages) + 1
    export = stages[0]
    memory = f"{export['peak_bytes'] / 1e6:,.0f} MB"
    assert rows[0] == (
        f"| biformer_nano | export | {export['seconds']:.1f} s | {export['cpu_seconds']:.1f} s | {memory} |"
    )


def test_a_build_that_fails_ends_the_run(tmp_path: Path) -> None:
    printed = bench("--models", "biformer_nano", "--data", str(tmp_path / "gone"))
    assert printed.returncode == 2
    assert "error: biformer_nano: " in printed.stderr
    assert "gone" in printed.stderr


def test_a_peak_is_that_of_the_stage_alone() -> None:
    samples = [(1.0, 10), (2.0, 70), (3.0, 30), (4.0, 20)]
    assert peak_bytes(samples, 1.5, 3.5) == 70
    assert peak_bytes(samples, 2.5, 4.5) == 30
    # Between two samples there is none: the nearest one counts.
    assert peak_bytes(samples, 3.1, 3.2) == 30


def test_memory_of_child_processes_counts() -> None:
    size = 200_000_000
    child = f"x = b'1' * {size}; print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = resident_bytes(psutil.Process(process.pid))
        process.communicate(b"\n")
    assert found == pytest.approx(size, rel=0.3)
    assert found > size
