"""The script that kills `edgeformer finish`, with few kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kill_finish
from benchmarks.kill_finish import kill_and_finish, unfinished_bundle


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
