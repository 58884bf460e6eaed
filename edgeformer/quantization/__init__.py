"""Post-training quantization: recipes, policy, calibration, and the passes that make INT8 accurate."""

from __future__ import annotations

from edgeformer.quantization.calibration import Calibration, load_calibration
from edgeformer.quantization.policy import Decision, decide
from edgeformer.quantization.quantize import QuantizeResult, calibrate, quantize
from edgeformer.quantization.recipe import ObserverSettings, Override, Recipe, list_recipes, load_recipe

__all__ = [
    "Calibration",
    "Decision",
    "ObserverSettings",
    "Override",
    "QuantizeResult",
    "Recipe",
    "calibrate",
    "decide",
    "list_recipes",
    "load_calibration",
    "load_recipe",
    "quantize",
]
