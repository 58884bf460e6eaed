"""Hostile inputs by the hundred; benchmarks/fuzz/run.py goes on where this ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz.cases import KINDS
from tests.benchmarks.conftest import ROOT

# About two minutes of one core.
INPUTS = 700


def fuzz(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fuzz.run", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_input_ends_as_documented(tmp_path: Path) -> None:
    ended = fuzz("--inputs", str(INPUTS), "--folder", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{INPUTS} inputs, 0 handled badly" in ended.stdout
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [result["number"] for result in results] == list(range(INPUTS))
    for kind in KINDS:
        # Some get through and some do not, or the mutations are no good.
        assert {0, 2} <= {result["code"] for result in results if result["kind"] == kind}, kind
    # Started again, it does nothing twice, and a line that was cut off is one to do again.
    text = (tmp_path / "results.jsonl").read_text()
    (tmp_path / "results.jsonl").write_text(text[: text.rindex("{") + 20] + "\n")
    assert fuzz("--inputs", str(INPUTS), "--folder", tmp_path).returncode == 0
    again = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(again) == INPUTS + 1
    assert json.loads(again[-1])["number"] == INPUTS - 1
