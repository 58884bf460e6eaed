"""benchmarks/bench_activation_memory.py on the smallest model: real engines, and the tables that the docs show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("precision", "beside", "option", "plugins"),
    [
        ("fp16", "op's body, `--linears-as-convolutions`", "--linears-as-convolutions", [0, 0, 4, 0, 4, 4, 4]),
        ("int8", "a weight scale for each channel", "--quantize-attention", [0, 0, 4, 4, 4, 4, 4]),
    ],
)
def test_it_measures_every_form(tmp_path: Path, precision: str, beside: str, option: str, plugins: list[int]) -> None:
    path = tmp_path / "reports.json"
    words = ["--models", "biformer_nano", "--precisions", precision, "--batches", "1:2:4", "--json", str(path)]
    printed = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "bench_activation_memory.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    (row,) = json.loads(path.read_text())
    reports = row["reports"]
    forms = ["exported graph", "op's body", "plugin", beside, "`--fuse-lepe`", f"`{option}`", "both"]
    assert list(reports) == forms
    assert [report["plugin"]["in_network"] for report in reports.values()] == plugins
    assert [report["op_nodes"] for report in reports.values()] == [0, 4, 4, 4, 4, 4, 4]
    exported, body, plugin, *_, both = (reports[form]["activation_bytes"] for form in forms)
    assert both <= plugin
    assert both < body
    head, _, line = printed.stdout.splitlines()[:3]
    assert head == "| model | type | batch | " + " | ".join(forms) + " |"
    assert line.startswith(
        f"| biformer_nano | {precision.upper()} | 1:2:4 | {exported / 1e6:.2f} | {body / 1e6:.2f} | "
    )
    assert line.endswith(f"{both / 1e6:.2f} ({both / exported:.2f}x, {both / body:.2f}x) |")
