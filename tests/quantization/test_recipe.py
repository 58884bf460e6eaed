from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeformer.quantization import ObserverSettings, Override, Recipe, list_recipes, load_recipe
from tests.raising import raises


def test_default_recipe_comes_with_the_package() -> None:
    recipe = load_recipe()
    assert recipe.name == "default"
    assert recipe.observer == ObserverSettings(kind="min_max")
    assert recipe.min_int8_share == 0.8
    assert recipe.choose_ranges
    assert recipe.round_weights
    assert recipe.degrade
    assert recipe.balance
    assert recipe.correct_bias
    assert not recipe.quantize_attention
    assert "default" in list_recipes()


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_valid_and_named_after_its_file(name: str) -> None:
    assert load_recipe(name).name == name


def test_calibration_folder_shows_the_same_files() -> None:
    folder = Path(__file__).parents[2] / "calibration" / "recipes"
    assert sorted(path.stem for path in folder.glob("*.json")) == list(list_recipes())


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({"schema_version": 1, "name": "mine", **changes}))
    return path


def test_file_is_read(tmp_path: Path) -> None:
    override: dict[str, Any] = {"name": "*fc2*", "op_type": "MatMul", "quantize": False, "because": "it clips"}
    recipe = load_recipe(write(tmp_path / "r.json", overrides=[override], target_snr_db=None))
    assert recipe == Recipe(name="mine", overrides=(Override(**override),), target_snr_db=None)


@pytest.mark.parametrize("own", [False, True])
def test_quantize_attention_is_the_recipes_own_unless_it_is_given(tmp_path: Path, own: bool) -> None:
    path = write(tmp_path / "r.json", quantize_attention=own)
    assert load_recipe(path).quantize_attention == own
    assert load_recipe(path, quantize_attention=True).quantize_attention
    assert load_recipe(path, quantize_attention=False) == Recipe(name="mine")


def test_all_faults_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", observer={"kind": "entropy"}, min_int8_share=2, colour="red")
    with raises("EF503", path, "observer.kind", "min_int8_share", "colour"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [("{", "line 1"), ("[]", "recipe: "), ('{"schema_version": 2, "name": "x"}', "schema_version"), ("{}", "name")],
)
def test_damaged_file_is_refused(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with raises("EF503", path, named):
        load_recipe(path)


def test_unknown_recipe_names_those_that_exist() -> None:
    with raises("EF502", "'fast'", *list_recipes()):
        load_recipe("fast")


@pytest.mark.parametrize("percentile", [50, 100.1])
def test_percentile_has_bounds(tmp_path: Path, percentile: float) -> None:
    with raises("EF503", "observer.percentile"):
        load_recipe(write(tmp_path / "r.json", observer={"kind": "percentile", "percentile": percentile}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[" * 100_000, "100000 levels"),
        ("9" * 5000, "5000 digits"),
        ('{"name": "x", "target_snr_db": NaN}', "NaN"),
        ('{"name": "x", "target_snr_db": 1e999}', "1e999"),
        ('{"name": "x", "name": "y"}', "'name'"),
        ("\ufeff{}", "byte order mark"),
        ('{"name": "' + "n" * 10_000 + '", "schema_version": 9}', "schema_version"),
        ("{" + ", ".join(f'"field{i}": 1' for i in range(500)) + "}", "and 4"),
    ],
)
def test_json_that_may_be_anything_is_refused_in_a_short_message(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with raises("EF503", tmp_path / "r.json", value) as caught:
        load_recipe(tmp_path / "r.json")
    assert len(str(caught.value)) < 2500
