"""``edgeformer run``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgeformer.cli.run import command
from edgeformer.inference import load
from tests.inference.conftest import CLASSES
from tests.inference.conftest import _runtime_library as _runtime_library
from tests.inference.conftest import small_bundle as small_bundle
from tests.raising import raises

FRAMES = np.random.default_rng(9).integers(0, 256, (6, 9, 7, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them damaged."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(FRAMES[index]).save(folder / f"{index}.png")
    (folder / "1.png").write_text("no picture")
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)


def classes(bundle: Path, frame: np.ndarray, top: int | None = None) -> list[dict[str, Any]]:
    with load(bundle) as model:
        return [vars(one) for one in model.predict(frame, top)]


def test_a_table_for_people(folder: Path, small_bundle: Path) -> None:
    result = run(small_bundle, folder, "--top", 2)
    assert result.exit_code == 0
    assert "1.png" in result.stderr
    assert "1 of 3 images could not be read" in result.stdout
    assert "biformer_nano int8 by onnxruntime" in result.stdout
    for index in (0, 2):
        for one in classes(small_bundle, FRAMES[index], 2):
            assert f"{100 * one['probability']:.1f} %" in result.stdout
            assert one["label"] in result.stdout
    assert "".join(line.split()[0] for line in result.stdout.splitlines() if line.strip()).count("pictures/0.png") == 1


def test_one_json_document_for_machines(folder: Path, small_bundle: Path) -> None:
    result = run(small_bundle, folder, "--json", "--backend", "onnxruntime", "--threads", 1)
    document = json.loads(result.stdout)
    first, second, third = document["images"]
    assert first == {"path": str(folder / "0.png"), "classes": classes(small_bundle, FRAMES[0])}
    assert third["classes"] == classes(small_bundle, FRAMES[2])
    assert (second["path"], second["error"]["code"]) == (str(folder / "1.png"), "EF405")
    assert document["model"]["file"] == str(small_bundle / "typed.onnx")
    assert document["left_out"] == []


def test_annotated_pictures(folder: Path, small_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = run(small_bundle, folder, "-o", output, "--json")
    assert sorted(os.listdir(output)) == ["0.png", "2.png"]
    assert json.loads(result.stdout)["images"][2]["annotated"] == str(output / "2.png")
    with Image.open(output / "0.png") as image:
        assert image.size == (7, 9)
    with raises("EF868", folder / "0.png"):
        run(small_bundle, folder, "-o", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_where_no_picture_can_be_read(folder: Path, small_bundle: Path) -> None:
    with raises("EF870", "none of 1", folder / "1.png") as caught:
        run(small_bundle, folder / "1.png", "--json")
    assert caught.value.exit_code == 2


def test_options_that_do_not_go_together(folder: Path, small_bundle: Path) -> None:
    with raises("EF104", "--output"):
        run(small_bundle, "camera:0", "-o", folder.parent / "out")
    with raises("EF104", "--frames"):
        run(small_bundle, folder, "--frames", 3)
    assert run(small_bundle).exit_code == 2
    assert run(small_bundle, folder, "--backend", "cuda").exit_code == 2
    with raises("EF101", "top=9", len(CLASSES)):
        run(small_bundle, folder, "--top", 9)


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video of six frames, for whatever decodes it."""
    path = tmp_path / "film.mp4"
    path.touch()
    monkeypatch.setattr("edgeformer.inference.video.frames_of", lambda source: iter(FRAMES))
    return path


def test_a_video(film: Path, small_bundle: Path) -> None:
    result = run(small_bundle, film, "--top", 1)
    assert "6 frames in " in result.stdout
    assert "frames a second, at most 3 under way at once" in result.stdout
    assert result.stdout.startswith(f"frame 0: {classes(small_bundle, FRAMES[0])[0]['label']} ")
    document = json.loads(run(small_bundle, film, "--json", "--frames", 4).stdout)
    assert (document["frames"], document["dropped"], document["depth"]) == (4, 0, 3)
    assert [one["frame"] for one in document["results"]] == [0, 1, 2, 3]
    assert document["results"][3]["classes"] == classes(small_bundle, FRAMES[3])
    assert document["frames_per_second"] > 0


def test_a_video_without_frames(film: Path, small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeformer.inference.video.frames_of", lambda source: iter(()))
    with raises("EF869", film):
        run(small_bundle, film, "--json")


def test_a_camera_until_somebody_ends_it(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def frames(source: object) -> Iterator[np.ndarray]:
        yield FRAMES[0]
        time.sleep(0.2)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeformer.inference.video.frames_of", frames)
    result = CliRunner().invoke(command, [str(small_bundle), "camera:0", "--json"])
    assert result.exit_code == 1  # of an aborted command, when it is called like this
    document = json.loads(result.stdout.removesuffix("\nAborted!\n"))
    assert (document["frames"], document["depth"]) == (1, 2)


ENDLESS = """
import sys
from collections.abc import Iterator
import numpy as np
import edgeformer.inference.video as video
def frames(source):
    while True:
        yield np.zeros((8, 8, 3), np.uint8)
video.frames_of = frames
from edgeformer.cli import main
main()
"""


def test_ctrl_c_ends_a_camera_cleanly(small_bundle: Path) -> None:
    words = [sys.executable, "-c", ENDLESS, "run", str(small_bundle), "camera:0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first.startswith("frame ")
    assert "frames a second" in rest
    assert "Traceback" not in errors
