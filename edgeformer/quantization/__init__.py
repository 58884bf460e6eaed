"""Quantization: recipes, policy, calibration, INT8 by the outputs, FP8, weights alone, and training with rounding."""

from __future__ import annotations

from edgeformer.quantization.aware_training import fake_quantize
from edgeformer.quantization.calibration import Calibration, load_calibration
from edgeformer.quantization.policy import Decision, decide
from edgeformer.quantization.precisions import quantize
from edgeformer.quantization.quantize import QuantizeResult, calibrate
from edgeformer.quantization.recipe import ObserverSettings, Override, Recipe, list_recipes, load_recipe
from edgeformer.quantization.typed_result import TypedResult

__all__ = [
    "Calibration",
    "Decision",
    "ObserverSettings",
    "Override",
    "QuantizeResult",
    "Recipe",
    "TypedResult",
    "calibrate",
    "decide",
    "fake_quantize",
    "list_recipes",
    "load_calibration",
    "load_recipe",
    "quantize",
]
