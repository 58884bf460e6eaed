from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeformer.quantization import Calibration, Recipe, calibrate, load_calibration
from edgeformer.quantization.calibration import calibration_key
from tests.graph.precision_graphs import transformer
from tests.quantization.conftest import ArraySamples
from tests.raising import raises

PLAIN = Recipe(name="plain")


@pytest.fixture
def calibration(make_samples: Callable[..., ArraySamples]) -> Calibration:
    return calibrate(transformer(), make_samples(), recipe=PLAIN)


def test_round_trip_is_exact(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    calibration.save(path)
    assert load_calibration(path) == calibration
    written = json.loads(path.read_text())
    assert written["schema_version"] == 2
    assert written["images"] == 24
    assert set(written["key"]) == {"model", "data", "settings", "tool"}


def test_same_inputs_give_the_same_file(make_samples: Callable[..., ArraySamples], calibration: Calibration) -> None:
    assert calibrate(transformer(), make_samples(), recipe=PLAIN) == calibration


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": transformer(seed=9)}, "another model"),
        ({"samples": 1}, "other calibration data"),
        ({"recipe": PLAIN.model_copy(update={"balance": False})}, "other settings of the recipe or other layers"),
        ({"layers": ["stem"]}, "other settings of the recipe or other layers"),
    ],
)
def test_key_that_differs_is_refused_with_the_reason(
    make_samples: Callable[..., ArraySamples], change: dict[str, Any], reason: str
) -> None:
    samples = make_samples()
    layers = ["stem", "qkv_matmul"]
    calibration = calibrate(transformer(), samples, recipe=PLAIN).model_copy(
        update={"key": calibration_key(transformer(), samples, PLAIN, layers)}
    )
    other = calibration_key(
        change.get("model", transformer()),
        make_samples(seed=change.get("samples", 0)),
        change.get("recipe", PLAIN),
        change.get("layers", layers),
    )
    with raises("EF506", "'here.json'", f": {reason} (") as caught:
        calibration.check_key(other, "here.json")
    assert ";" not in str(caught.value)


def test_all_reasons_are_listed(make_samples: Callable[..., ArraySamples], calibration: Calibration) -> None:
    other = calibration_key(transformer(seed=1), make_samples(seed=5), PLAIN, ["x"])
    with raises("EF506", "c.json", "model", "data", "settings", "version"):
        calibration.check_key(other.model_copy(update={"tool": "0.0"}), "c.json")


def test_name_of_the_recipe_is_no_part_of_the_key(make_samples: Callable[..., ArraySamples]) -> None:
    keys = [calibration_key(transformer(), make_samples(), Recipe(name=name), ["stem"]) for name in ("a", "b")]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda text: text[: len(text) // 2], "line "),
        (lambda text: "", "line 1"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 7'), "schema_version"),
        (lambda text: text.replace('"images"', '"pictures"'), "images"),
        (lambda text: text.replace('"images": 24', '"images": 0'), "images"),
        (lambda text: '{"ranges": {"x": -1}}', "key"),
    ],
)
def test_damaged_file_is_refused(
    calibration: Calibration, tmp_path: Path, damage: Callable[[str], str], named: str
) -> None:
    path = tmp_path / "calibration.json"
    calibration.save(path)
    path.write_text(damage(path.read_text()))
    with raises("EF505", path, named):
        load_calibration(path)


@pytest.mark.parametrize(("value", "named"), [("NaN", "NaN"), ("-1.0", "ranges.input"), ("Infinity", "Infinity")])
def test_impossible_range_in_a_file_is_refused(
    calibration: Calibration, tmp_path: Path, value: str, named: str
) -> None:
    path = tmp_path / "calibration.json"
    calibration.save(path)
    content = json.loads(path.read_text())
    content["ranges"]["input"] = float(value)
    path.write_text(json.dumps(content))
    with raises("EF505", path, named):
        load_calibration(path)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with raises("EF505", tmp_path / "none.json"):
        load_calibration(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with raises("EF505", tmp_path / "b.json"):
        load_calibration(tmp_path / "b.json")
