"""``edgeformer targets``: every target and every JetPack, on a terminal of 80 columns."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgeformer.cli.targets import command
from edgeformer.engine.targets import list_targets
from edgeformer.machine.jetpack import list_jetpacks


def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(command, [], catch_exceptions=False)
    assert result.exit_code == 0
    return [line.rstrip() for line in result.output.splitlines()]


def test_each_target_and_each_jetpack_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = lines(monkeypatch)
    first = [line.split()[0] for line in shown if line.split()]
    for target in list_targets():
        assert first.count(target.name) == 1
    for jetpack in list_jetpacks():
        assert first.count(jetpack.name) == 1
    # Nothing is cut or wrapped.
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in shown)
    assert max(map(len, shown)) <= 80
    words = {line.split()[0]: line.split() for line in shown if line.split()}
    assert words["jetson-orin-nano-4gb"][1:7] == ["87", "aarch64", "10.3+", "4", "GB", "device"]
    assert words["rtx"][1:6] == ["80-121", "x86_64", "RTX", "1.7+", "anywhere"]
    assert words["b200"][1:5] == ["100", "x86_64", "10.8+", "device"]
    assert words["7.0"][-4:] == ["10.13", "13.0", "3.12", "110"]
    assert "'--target rtx' is one engine for SM 80, 86, 89, 120, 121." in shown
    types = [line.split() for line in shown if line.split() and line.split()[0] in ("TensorRT", "RTX")]
    assert types == [
        ["TensorRT", "SM", "int8", "int8-weights", "fp8", "int4-weights"],
        ["TensorRT", "75", "accelerates", "shrinks", "refused", "refused"],
        ["TensorRT", "80-87", "accelerates", "shrinks", "refused", "shrinks"],
        ["TensorRT", "89-121", "accelerates", "shrinks", "accelerates", "shrinks"],
        ["RTX", "75", "unlisted", "shrinks", "refused", "refused"],
        ["RTX", "80-86", "unlisted", "shrinks", "refused", "shrinks"],
        ["RTX", "89-121", "unlisted", "shrinks", "accelerates", "shrinks"],
    ]
    assert "No JetPack brings TensorRT 11.0, 11.1, 11.2, 11.3, 11.5." in shown


def test_json_has_the_figures_and_their_sources() -> None:
    result = CliRunner().invoke(command, ["--json"], catch_exceptions=False)
    targets = {target["name"]: target for target in json.loads(result.stdout)}
    assert targets["rtx"]["sms"] == [80, 86, 89, 120, 121]
    assert targets["rtx"]["sm"] == 80
    assert targets["l40s"]["memory_gb"] == 48
    assert targets["l40s"]["sources"]["memory"]
    assert targets["b200"]["memory_gb"] is None
    for target in targets.values():
        assert [one["precision"] for one in target["precisions"]] == ["int8", "int8-weights", "fp8", "int4-weights"]
        assert all(one["source"].startswith("https://") and one["why"] for one in target["precisions"])
