"""Rows in processes of their own: what is kept, what fails, and which layers a placement names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.quantization import environments, running
from benchmarks.quantization.environments import ENVIRONMENTS, Unavailable, python_of, versions_of
from benchmarks.quantization.judge import COLUMNS, Reference, run
from benchmarks.quantization.running import Maker, make_row, placement_of, row_names
from benchmarks.quantization.tools import Row
from benchmarks.quantization.tools.job import Job, Reader, routing_products, stem_convolutions

from .graphs import FEATURES, model_of, routed, weights

HERE = Maker("onnxruntime", Path(sys.executable))
IMAGES = weights(20, 4, FEATURES, seed=5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = routed()
    onnx.save(model, tmp_path / "exported.onnx")
    np.save(tmp_path / "calibrate.npy", IMAGES)
    (tmp_path / "prepared.json").write_text("{}")
    for column in COLUMNS:
        Reference(IMAGES, np.zeros(20, np.int64), run(model, IMAGES)).save(tmp_path / f"{column}.npz")
    (tmp_path / "rows").mkdir()
    return tmp_path


def placed(folder: Path, layers: list[str]) -> None:
    for name in ("default", "default-nothing-returned"):
        (folder / "rows" / f"edgeformer-{name}.cost.json").write_text(json.dumps({"layers": layers}))


def none_expected(command: list[str], limit: float = 0) -> str:
    raise AssertionError(command)


def test_a_row_is_quantized_judged_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed(folder, ["classes"])
    row = Row("default")
    found = make_row(HERE, "by hand, min-max, equal placement", row, folder)
    assert "failed" not in found, found
    assert (found["tool"], found["placement"]) == ("onnxruntime", "default")
    # `queries` stays in float, as asked: its regions are FP32's.
    assert found["int8"] == pytest.approx(4 * FEATURES * 5 / (4 * FEATURES * (FEATURES + 4 + 5)))
    assert found["clean"]["routing"] == [100.0]
    assert 20 < found["clean"]["snr_db"] < 60
    assert found["cpu_seconds"] > 0
    assert found["peak_mb"] > 50
    kept = folder / "rows" / "onnxruntime-by-hand-min-max-equal-placement.json"
    written = json.loads(kept.read_text())
    assert written.pop("key")
    assert written == found
    monkeypatch.setattr(running, "_run", none_expected)
    assert make_row(HERE, "by hand, min-max, equal placement", row, folder) == found
    # Another placement is another row.
    placed(folder, ["queries", "classes"])
    with pytest.raises(AssertionError, match="child"):
        make_row(HERE, "by hand, min-max, equal placement", row, folder)


def test_a_row_that_fails_says_why(folder: Path) -> None:
    found = make_row(HERE, "no such row", Row(), folder)
    assert found["failed"] == "KeyError: 'no such row'"


def test_a_row_that_takes_too_long_is_given_up(folder: Path) -> None:
    found = make_row(Maker("onnxruntime", Path(sys.executable), limit=0.05), "default", Row(), folder)
    assert found["failed"] == "not finished after 0 s"


def test_without_edgeformers_row_there_is_no_equal_placement(folder: Path) -> None:
    found = make_row(HERE, "by hand, min-max, equal placement", Row("default"), folder)
    assert found["failed"].startswith("edgeformer's placement is not known")


def test_placements(folder: Path) -> None:
    convolutions = [
        onnx.helper.make_node("Conv", [f"x{i}", "w"], [f"x{i + 1}"], name=f"conv{i}", pads=[1, 1, 1, 1])
        for i in range(3)
    ]
    convolutions[0].input[0], convolutions[2].output[0] = "input", "logits"
    model = model_of(convolutions, {"w": weights(3, 3, 3, 3)}, shape=("batch", 3, 8, 8))
    onnx.save(model, folder / "exported.onnx")
    assert stem_convolutions(model) == ["conv0", "conv1"]
    placed(folder, ["conv0", "conv2"])
    assert placement_of("own", folder) is None
    assert placement_of("by hand", folder) is None
    assert placement_of("every", folder) == ["conv0", "conv2"]
    assert placement_of("default", folder) == ["conv0", "conv2"]
    assert placement_of("no stem", folder) == ["conv2"]
    placed(folder, ["gone"])
    with pytest.raises(ValueError, match="not in the exported graph: gone"):
        placement_of("every", folder)


def test_what_decides_the_routing_is_found() -> None:
    assert routing_products(routed()) == ["routing"]


def test_a_job_reads_its_images_again_and_names_what_stays(folder: Path) -> None:
    job = Job(Row(), folder / "exported.onnx", folder, folder / "calibrate.npy", folder / "out.onnx", ("classes",))
    assert job.others() == ["queries", "routing"]
    reader = Reader(job)
    for _ in range(2):
        batches = []
        while (batch := reader.get_next()) is not None:
            batches.append(batch["input"])
        assert len(batches) == len(reader) == 3
        np.testing.assert_array_equal(np.concatenate(batches), IMAGES)
        reader.rewind()


def test_rows_of_tools() -> None:
    mine = row_names(Maker("edgeformer", Path(sys.executable)))
    assert {"default", "default, nothing returned", "min-max and nothing else"} <= set(mine)
    theirs = row_names(HERE)
    assert {row.placement for row in theirs.values()} == {"own", "every", "no stem", "default"}
    assert sum(row.quick for row in theirs.values()) == 3


def test_a_tool_that_cannot_be_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = environments._run, []

    def run_here(command: list[str]) -> str:
        asked.append(command[1:])
        if "venv" in command:
            return ""
        if "install" not in command:
            return f"{tmp_path}\n"
        return real([sys.executable, "-c", "import sys; sys.exit('reading\\nno such package\\n')"])

    monkeypatch.setattr(environments, "_run", run_here)
    with pytest.raises(Unavailable, match=r"^no such package$"):
        python_of("quark", tmp_path)
    assert asked[0] == ["-m", "venv", "--clear", str(tmp_path / "quark")]
    assert {"psutil", "protobuf<7"} < set(asked[-1])
    assert not (tmp_path / "quark" / "installed").exists()


def test_an_environment_that_has_what_is_asked_for_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aimet").mkdir()
    wanted = ENVIRONMENTS["aimet"]
    (tmp_path / "aimet" / "installed").write_text("\n".join((*wanted.packages, *wanted.alone)))
    monkeypatch.setattr(environments, "_run", none_expected)
    assert python_of("aimet", tmp_path) == tmp_path / "aimet" / "bin" / "python"


def test_versions_are_told() -> None:
    assert python_of("edgeformer", Path()) == Path(sys.executable)
    found = versions_of("onnxruntime", Path(sys.executable))
    assert set(found) == {"onnxruntime", "onnx"}
    assert found["onnx"] == onnx.__version__
