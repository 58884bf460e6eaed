"""edgeformer: each recipe that it lists, and what is left of the default one without some of its parts."""

from __future__ import annotations

from typing import Any

import onnx

import edgeformer as ef
from benchmarks.quantization.subjects import MODEL
from benchmarks.quantization.tools.job import PRODUCTS, Job, Row
from edgeformer.models import model_info
from edgeformer.quantization import ObserverSettings, Recipe, list_recipes, load_recipe
from edgeformer.records.terms import TYPED_PRECISIONS

__all__ = ["EVERY", "IMPORTS", "ROWS", "quantize"]

IMPORTS = ("edgeformer.quantization", "edgeformer.data", "edgeformer.graph.types")

EVERY = "default, nothing returned"
"""The row whose layers are all that edgeformer ever makes INT8."""

_NOTHING_RETURNED = {"min_int8_share": 1.0}
_STEPS = ("balance", "choose_ranges", "round_weights", "correct_bias", "degrade")
_PLAIN = {**_NOTHING_RETURNED, "observer": ObserverSettings(kind="min_max"), **dict.fromkeys(_STEPS, False)}

ROWS: dict[str, Row] = {
    **{name: Row(options={"recipe": name}, quick=name == "default") for name in list_recipes()},
    "default, FP16 elsewhere": Row(options={"recipe": "default", "float_type": "float16"}),
    EVERY: Row(options={"recipe": "default", "changes": _NOTHING_RETURNED}, quick=True),
    "min-max and nothing else": Row(options={"recipe": "default", "changes": _PLAIN}, quick=True),
    "FP16 alone": Row(options={"float_type": "float16"}),
    **{name: Row(options={"precision": name}) for name in TYPED_PRECISIONS},
}


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A recipe with other values.

    Raises:
        ValueError: it has no such field: the row would not be what its name says.
    """
    unknown = sorted(set(changes) - set(Recipe.model_fields))
    if unknown:
        raise ValueError(f"recipes have no {', '.join(unknown)} any more")
    return Recipe.model_validate(recipe.model_dump() | changes)


def quantize(job: Job) -> dict[str, object]:
    """Make a row.

    Returns:
        Under ``layers`` the names of the nodes of the exported graph that became INT8.
    """
    options = job.row.options
    model = onnx.load(job.fused)
    samples = ef.open_samples(job.calibration, model_info(MODEL).preprocessing)
    found: dict[str, object] = {}
    if "recipe" in options:
        recipe = changed(load_recipe(options["recipe"]), options.get("changes", {}))
        result = ef.quantize(model, samples, recipe=recipe)
        model = result.model
        found["layers"] = [item.node for item in result.decisions if item.quantized and item.op_type in PRODUCTS]
    if "precision" in options:
        model = ef.quantize(model, samples, precision=options["precision"]).model
    if "float_type" in options:
        model = ef.to_float_type(model, options["float_type"])
    onnx.save(model, job.output)
    return found
