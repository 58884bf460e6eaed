"""Recipes: which layers become INT8, how ranges are observed, and what accuracy is asked for - as a JSON file."""

from __future__ import annotations

import os
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeformer.errors import InputError
from edgeformer.text import parse_json, read_json, shortened

__all__ = ["ObserverSettings", "Override", "Recipe", "list_recipes", "load_recipe"]

# Faults that a message lists; the rest is counted.
_LISTED = 10


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ObserverSettings(_Strict):
    """How the range of an activation is taken from what calibration shows.

    Attributes:
        kind: ``min_max`` (the largest magnitude), ``percentile`` (of the magnitudes) or ``mse`` (the range with the
            smallest mean square quantization error).
        percentile: for ``percentile``: the share of magnitudes inside the range, in percent.
    """

    kind: Literal["min_max", "percentile", "mse"] = "min_max"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.999


class Override(_Strict):
    """Takes matching layers in or out, whatever the default policy says. Later overrides win.

    Attributes:
        name: shell pattern (``*``, ``?``, ``[...]``) on the node's name, output tensor or weight.
        op_type: shell pattern on the operator (``MatMul``, ``Gemm``, ``Conv``).
        quantize: take in or leave out.
        because: the reason, for the report.
    """

    name: str = "*"
    op_type: str = "*"
    quantize: bool
    because: Annotated[str, Field(min_length=1)]


class Recipe(_Strict):
    """How a model is quantized.

    Attributes:
        schema_version: of this format.
        name: for reports.
        observer: how activation ranges are taken.
        balance: try SmoothQuant: even out and centre the channels of activations, exactly in float.
        choose_ranges: try other ranges than the observer's.
        round_weights: try GPTQ.
        correct_bias: try to take each layer's mean error back in its bias.
        degrade: judge all that on degraded versions of the calibration images as well.
        min_int8_share: share of the network's multiply-adds that stays INT8 at least, as far as layers can be INT8;
            down to it, layers return to float where that is worth it. 1: no layer returns.
        target_snr_db: no more layers return than it takes for this SNR of the outputs, in dB, the worse of clean and
            degraded. None: the best trade.
        max_drop: no more layers return than it takes to lose at most so many points of top-1 accuracy on the
            calibration images, with a margin for how few they are. Needs labels.
        search_runs: runs of the network on one image that all of this may take; None goes by the network's size.
        quantize_attention: give the attention op INT8 queries, keys and values, in all blocks. They change which
            regions are picked, so its error is measured apart, and attention never returns to float.
        overrides: exceptions from the default policy.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    observer: ObserverSettings = ObserverSettings()
    balance: bool = True
    choose_ranges: bool = True
    round_weights: bool = True
    correct_bias: bool = True
    degrade: bool = True
    min_int8_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    target_snr_db: Annotated[float, Field(gt=0, lt=120)] | None = None
    max_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    search_runs: Annotated[int, Field(ge=1)] | None = None
    quantize_attention: bool = False
    overrides: tuple[Override, ...] = ()

    @property
    def searches(self) -> bool:
        """Whether anything is chosen by the network's outputs."""
        steps = self.balance or self.choose_ranges or self.round_weights or self.correct_bias
        return steps or self.min_int8_share < 1


# Fields of earlier versions, and what takes their place.
_RENAMED = {
    "min_snr_db": "it is target_snr_db now, and judged on degraded images as well",
    "max_float_share": "it is min_int8_share now, a share of multiply-adds and not of layers",
}


def _folder() -> Any:
    return resources.files("edgeformer.quantization") / "recipes"


def list_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with edgeformer."""
    return tuple(sorted(item.name.removesuffix(".json") for item in _folder().iterdir() if item.name.endswith(".json")))


def load_recipe(
    source: str | os.PathLike[str] = "default",
    *,
    quantize_attention: bool | None = None,
    degrade: bool | None = None,
    target_snr_db: float | None = None,
) -> Recipe:
    """A recipe by the name of one that comes with edgeformer, or from a JSON file.

    Args:
        source: the name or the file.
        quantize_attention: replaces the recipe's own answer; None leaves it.
        degrade: the same.
        target_snr_db: the same.

    Raises:
        InputError: there is no such recipe or file, it is not JSON, or the schema refuses values (all are listed).
    """
    try:
        if isinstance(source, str) and source in list_recipes():
            document = parse_json((_folder() / f"{source}.json").read_bytes())
        else:
            document = read_json(source)
        recipe = Recipe.model_validate(document)
    except OSError as error:
        raise InputError(
            "EF502",
            f"cannot read the recipe {str(source)!r}: {error}. Give a JSON file or one of: {', '.join(list_recipes())}",
        ) from error
    except ValidationError as error:
        listed = [
            f"{shortened('.'.join(map(str, fault['loc']))) or 'recipe'}: "
            + _RENAMED.get(str(fault["loc"][0]) if fault["loc"] else "", shortened(fault["msg"], 200))
            for fault in error.errors()
        ]
        more = f"; and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        faults = "; ".join(listed[:_LISTED]) + more
        raise InputError("EF503", f"the recipe {str(source)!r} is not valid: {faults}") from error
    except ValueError as error:
        raise InputError("EF503", f"the recipe {str(source)!r} cannot be read as JSON: {error}") from error
    asked = {"quantize_attention": quantize_attention, "degrade": degrade, "target_snr_db": target_snr_db}
    return recipe.model_copy(update={name: value for name, value in asked.items() if value is not None})
