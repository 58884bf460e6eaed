"""scripts/targets_page.py: docs/targets.md has the tables of the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from edgeformer.engine.targets import list_targets
from edgeformer.machine.jetpack import list_jetpacks


def test_the_page_is_as_it_would_be_written(load_script: Callable[[str], ModuleType]) -> None:
    script = load_script("targets_page")
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text) == text, "run scripts/targets_page.py"


def test_every_row_is_on_the_page(load_script: Callable[[str], ModuleType]) -> None:
    text = load_script("targets_page").PAGE.read_text(encoding="utf-8")
    machines = text.split("<!-- machines -->")[1].split("<!-- end of machines -->")[0]
    for target in list_targets():
        assert f"| `{target.name}` | {target.description} | {target.compute_capability} | {target.cpu} |" in machines
        for figure in (target.peaks.dram_gb_s, target.peaks.fp16_tflops, target.peaks.int8_tops):
            assert figure is None or f"{figure.value:g} " in text.split(f"| `{target.name}` | compute")[1]
    for jetpack in list_jetpacks():
        assert f"\n| {jetpack.name} | {', '.join(jetpack.l4t)} | {jetpack.tensorrt or ''} |" in text
    assert "| none |  | 11.0, 11.1, 11.2, 11.3, 11.5 |" in text


def test_a_page_that_is_out_of_date_is_told(
    load_script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load_script("targets_page")
    stale = script.PAGE.read_text(encoding="utf-8").replace("| 6.1 |", "| 6.0 |")
    page = tmp_path / "targets.md"
    page.write_text(stale, encoding="utf-8")
    monkeypatch.setattr(script, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["targets_page.py", "--check"])
    assert script.main() == 1
    assert "run scripts/targets_page.py" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == stale
    monkeypatch.setattr("sys.argv", ["targets_page.py"])
    assert script.main() == 0
    assert "| 6.1 |" in page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no marks for the table 'machines'"):
        script.page("nothing")
