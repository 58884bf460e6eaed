"""The script that kills `edgeformer finish`, with few kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kill_finish
from benchmarks.kill_finish import AUTOTUNE, kill_and_finish, tunable_bundle, unfinished_bundle
from edgeformer.bundle import open_bundle
from edgeformer.bundle.details import AutotuneDetails


@pytest.mark.slow
def test_a_killed_finish_leaves_the_bundle_whole_and_then_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = unfinished_bundle(tmp_path)
    states = []
    for number, seconds in enumerate((0.0, 2.5, 4.0)):
        folder = tmp_path / str(number)
        folder.mkdir()
        states.append(kill_and_finish(unfinished, folder, seconds)[0])
    assert states[0] == "nothing"
    assert set(states) <= {"nothing", "built", "finished"}
    # The check sees a bundle that is not finished.
    (tmp_path / "never").mkdir()
    monkeypatch.setattr(kill_finish, "FINISH", ("true",))
    with pytest.raises(RuntimeError, match="has no engine in the end"):
        kill_and_finish(unfinished, tmp_path / "never", 0.0)


@pytest.mark.slow
def test_a_killed_choice_leaves_the_bundle_whole_and_is_then_made(tmp_path: Path) -> None:
    """Engines for real, three a call; comparing and timing are pretended."""
    unfinished = tunable_bundle(tmp_path)
    folder = tmp_path / "whole"
    folder.mkdir()
    state, whole = kill_and_finish(unfinished, folder, 0.0, AUTOTUNE)
    assert state == "nothing"
    manifest = open_bundle(folder / "bundle")
    details = manifest.details(AutotuneDetails)
    assert details is not None
    assert {one.name: one.outcome for one in details.candidates} == {
        "int8": "kept",
        "int8-float-attention": "no difference",
        "fp16": "slower",
    }
    folder = tmp_path / "killed"
    folder.mkdir()
    state, _ = kill_and_finish(unfinished, folder, 0.7 * whole, AUTOTUNE)
    assert state in ("nothing", "1 built", "2 built", "3 built", "finished")
