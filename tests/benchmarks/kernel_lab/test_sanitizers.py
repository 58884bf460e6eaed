"""What compute-sanitizer finds, stood in for by a script."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from benchmarks.kernel_lab import sanitizers

from ..conftest import ended


def sanitizer(folder: Path, body: str) -> str:
    path = folder / "compute-sanitizer"
    path.write_text(f'#!/bin/sh\n[ "$1" = --help ] && echo "  --kernel-name arg" && exit 0\n{body}\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('echo "9 cases checked"; echo "========= ERROR SUMMARY: 0 errors"', ""),
        ('echo "9 cases checked"; echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"', ""),
        (
            'echo "9 cases checked"; echo "RACECHECK SUMMARY: 2 hazards displayed (0 errors, 2 warnings)"',
            "no clean summary",
        ),
        ('echo "========= ERROR SUMMARY: 0 errors"', "no clean summary"),
        ('echo "Invalid __global__ read of size 16"; exit 86', "exit code 86: Invalid __global__ read"),
        ('echo "0 cases checked"; echo "========= ERROR SUMMARY: 0 errors"', "no clean summary"),
        ("exec sleep 60", "not finished after its share of the time"),
        # The program under test is a child of the tool, and keeps its output open.
        ("sleep 60 & wait", "not finished after its share of the time"),
    ],
    ids=["clean", "no hazards", "warnings", "nothing watched", "errors", "nothing checked", "endless", "child"],
)
def test_sanitizer_findings(tmp_path: Path, body: str, fault: str) -> None:
    start = time.monotonic()
    findings = sanitizers.run_tools(tmp_path / "x.so", 2.0, sanitizer(tmp_path, body))
    assert time.monotonic() - start < 20.0
    assert tuple(findings) == sanitizers.TOOLS
    assert all(fault in finding.fault if fault else not finding.fault for finding in findings.values())


def test_the_program_of_a_stopped_sanitizer_ends_with_it(tmp_path: Path) -> None:
    tool = sanitizer(tmp_path, f'sleep 600 & echo $! > "{tmp_path}/$2.pid"; wait')
    sanitizers.run_tools(tmp_path / "x.so", 2.0, tool)
    assert ended([int((tmp_path / f"{name}.pid").read_text()) for name in sanitizers.TOOLS])


def test_sanitizer_is_asked_for_our_kernels_without_a_caching_allocator(tmp_path: Path) -> None:
    body = 'echo "no time for: $PYTORCH_NO_CUDA_MEMORY_CACHING $*"; echo "9 cases checked SUMMARY: 0 errors"'
    before = time.monotonic()
    finding = sanitizers.run_tools(tmp_path / "x.so", 20.0, sanitizer(tmp_path, body))["racecheck"]
    (words,) = finding.dropped
    assert words.startswith("1 --tool racecheck --error-exitcode 86 --kernel-name kns=edgeformer ")
    found = re.search(r"-m benchmarks\.kernel_lab\.sanitizers --library (\S+) --until (\S+)$", words)
    assert found is not None
    assert found[1] == str(tmp_path / "x.so")
    assert float(found[2]) == pytest.approx(before + 15.0, abs=4.0)
