"""edgeformer: each recipe that it lists, and what is left of the default one without some of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

import edgeformer as ef
from benchmarks.quantization.tools.job import PRODUCTS, Job, Row
from edgeformer.quantization import ObserverSettings, Recipe, list_recipes, load_recipe
from edgeformer.records import terms

__all__ = ["EVERY", "ROWS", "quantize"]

EVERY = "default, nothing returned"
"""The row whose layers are all that edgeformer ever makes INT8."""

# No layer returns to float.
_NOTHING_RETURNED = {"max_float_share": 0.0}
_PLAIN = {"observer": ObserverSettings(kind="min_max"), "balance": False, "correct_bias": False, "min_snr_db": None}

ROWS = {
    **{name: Row(options={"recipe": name}, quick=name == "default") for name in list_recipes()},
    "default, FP16 elsewhere": Row(options={"recipe": "default", "float_type": "float16"}),
    EVERY: Row(options={"recipe": "default", "changes": _NOTHING_RETURNED}, quick=True),
    "min-max and nothing else": Row(options={"recipe": "default", "changes": _PLAIN}, quick=True),
    "FP16 alone": Row(options={"float_type": "float16"}),
    **{name: Row(options={"precision": name}) for name in get_args(getattr(terms, "TypedPrecision", None))},
}


@dataclass(frozen=True)
class _Batch:
    images: NDArray[np.float32]


class _Images:
    """The calibration images as edgeformer takes them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.count = len(np.load(job.calibration, mmap_mode="r"))

    def batches(self, batch_size: int) -> Iterator[_Batch]:
        """As edgeformer wants them."""
        images = np.load(self._job.calibration, mmap_mode="r")
        for start in range(0, self.count, batch_size):
            yield _Batch(np.array(images[start : start + batch_size]))

    def sha256(self) -> str:
        """No cache is used: it decides nothing."""
        return "0" * 64


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
    model, found = onnx.load(job.fused), {}
    if "recipe" in options:
        recipe = changed(load_recipe(options["recipe"]), options.get("changes", {}))
        result = ef.quantize(model, _Images(job), recipe=recipe)
        model = result.model
        found["layers"] = [item.node for item in result.decisions if item.quantized and item.op_type in PRODUCTS]
    if "precision" in options:
        model = ef.quantize(model, _Images(job), precision=options["precision"]).model
    if "float_type" in options:
        model = ef.to_float_type(model, options["float_type"])
    onnx.save(model, job.output)
    return found
