"""edgeformer's rows: every recipe that there is, and parts of the default one that are what their names say."""

from __future__ import annotations

import pytest

from benchmarks.quantization.tools import edgeformer_rows
from benchmarks.quantization.tools.edgeformer_rows import ROWS, changed
from edgeformer.quantization import Recipe, list_recipes, load_recipe
from edgeformer.records.terms import TYPED_PRECISIONS


def test_every_recipe_and_every_precision_is_a_row() -> None:
    assert {*list_recipes(), *TYPED_PRECISIONS} <= set(ROWS)
    assert ROWS["default"].quick


def test_min_max_and_nothing_else_leaves_out_every_step_that_recipes_have() -> None:
    row = ROWS["min-max and nothing else"]
    recipe = changed(load_recipe("default"), row.options["changes"])
    steps = {name for name, field in Recipe.model_fields.items() if field.annotation is bool}
    assert steps - {"quantize_attention"} == set(edgeformer_rows._STEPS)
    assert not any(getattr(recipe, name) for name in steps)
    assert (recipe.observer.kind, recipe.min_int8_share) == ("min_max", 1.0)


def test_a_field_that_recipes_no_longer_have_is_noticed() -> None:
    with pytest.raises(ValueError, match="no min_snr_db any more"):
        changed(load_recipe("default"), {"min_snr_db": 42.0})
