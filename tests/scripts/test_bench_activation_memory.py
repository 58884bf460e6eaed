"""scripts/bench_activation_memory on the smallest model: real engines, and the tables that the docs show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_measures_every_form(tmp_path: Path) -> None:
    path = tmp_path / "reports.json"
    words = ["--models", "biformer_nano", "--precisions", "fp16", "--batches", "1:2:4", "--json", str(path)]
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_activation_memory", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    (row,) = json.loads(path.read_text())
    reports = row["reports"]
    assert list(reports) == ["exported", "body", "plugin", "lepe", "convolutions", "both"]
    assert [report["plugin"]["in_network"] for report in reports.values()] == [0, 0, 4, 4, 4, 4]
    assert [report["op_nodes"] for report in reports.values()] == [0, 4, 4, 4, 4, 4]
    size = {what: report["activation_bytes"] for what, report in reports.items()}
    assert size["both"] <= size["plugin"] <= size["body"]
    line = next(line for line in printed.stdout.splitlines() if line.startswith("| biformer_nano | FP16 | 1:2:4 |"))
    assert f"| {size['exported'] / 1e6:.2f} |" in line
    assert f"{size['both'] / 1e6:.2f} ({size['both'] / size['exported']:.2f}x, " in line
