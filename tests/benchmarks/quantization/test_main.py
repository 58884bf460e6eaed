"""The command: what it writes where, and what it refuses. Nothing is trained or quantized here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quantization import __main__ as command
from benchmarks.quantization.subjects import LOG, SUBJECTS
from benchmarks.quantization.tables import BEGIN, END
from tests.benchmarks.quantization.test_tables import document, row

EMPTY = f"# Title\n\n{BEGIN}\n{END}\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for docs/; subjects and rows are made up."""
    page, results = tmp_path / "quantization.md", tmp_path / "quantization.json"
    page.write_text(EMPTY)
    monkeypatch.setattr(command, "PAGE", page)
    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setattr(command, "_subject", lambda name, *_, **__: document()["subjects"]["a"])

    def every_row(makers: Any, folders: list[Path], **asked: Any) -> list[dict[str, Any]]:
        return [row(folder.name, f"{asked['quick']} {asked['wanted']}", 40.0) for folder in folders]

    monkeypatch.setattr(command, "every_row", every_row)
    return page


def test_the_command_writes_figures_and_page(page: Path, tmp_path: Path) -> None:
    words = ["--tools", "onnxruntime", "--subjects", "seed1", "seed3", "--rows", "hand", "--work", str(tmp_path)]
    command.main([*words, "--json", str(command.RESULTS)])
    written = json.loads(command.RESULTS.read_text())
    assert written["command"].startswith("python -m benchmarks.quantization --tools onnxruntime --subjects seed1 seed3")
    assert list(written["subjects"]) == ["seed1", "seed3"]
    assert [one["subject"] for one in written["rows"]] == ["seed1", "seed3"]
    assert set(written["versions"]) == {"onnxruntime"}
    assert written["machine"]["cores"] >= 1
    assert "| tool | False hand | 40.0 / 39.0 | 40.0 / 39.0 |" in page.read_text()


def test_figures_elsewhere_leave_the_page(page: Path, tmp_path: Path) -> None:
    words = ["--tools", "onnxruntime", "--subjects", "seed1", "--work", str(tmp_path)]
    command.main([*words, "--json", str(tmp_path / "other.json")])
    assert (tmp_path / "other.json").exists()
    assert page.read_text() == EMPTY


def test_quick_prints_and_writes_nothing(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--quick", "--tools", "onnxruntime", "--work", str(tmp_path)])
    assert "| tool | True  | 40.0 / 39.0 |" in capsys.readouterr().out
    assert not command.RESULTS.exists()
    assert page.read_text() == EMPTY


def test_the_page_is_made_from_the_figures_alone(page: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps(document()))
    command.main(["--render", "--json", str(tmp_path / "other.json")])
    assert "| tool | good | 40.0 / 39.0 | 46.0 / 45.0 |" in page.read_text()


def test_a_checkpoint_that_is_not_good_enough_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "seed1"
    folder.mkdir()
    epochs = [{"epoch": number, "top1": 97.9} for number in range(SUBJECTS["seed1"].epochs)]
    (folder / LOG).write_text(json.dumps({"epochs": epochs}))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"seed1: 97\.9 % of the test images, 98\.0 % are wanted"):
        command._subject("seed1", tmp_path, tmp_path, quick=False)


def test_it_says_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--quick", "--render", "--tools", "--subjects", "--rows"))
    assert "modelopt" in shown
