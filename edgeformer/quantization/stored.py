"""Settings as a calibration file keeps them: weights as what they differ by from rounding to the nearest."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeformer.errors import InputError
from edgeformer.graph.qdq import LayerSite, QuantizedWeight, quantize_array
from edgeformer.quantization.calibration import Calibration, ChannelTransform, RoundedWeight
from edgeformer.quantization.settings import IDENTITY, Settings, Sites, Transform

__all__ = ["settings_of", "stored_settings"]


def stored_settings(sites: Sites, settings: Settings) -> dict[str, Any]:
    """The settings' transforms, weights and biases as fields of a `Calibration`."""
    return {
        "transforms": {
            tensor: ChannelTransform(scale=transform.scale, offset=transform.offset)
            for tensor, transform in settings.transforms.items()
            if transform.moves
        },
        "weights": {
            output: RoundedWeight(
                scales=tuple(map(float, weight.scales)),
                changes=_packed(weight.values - _nearest(sites, sites.of_output[output], settings, weight.scales)),
            )
            for output, weight in settings.weights.items()
            if output in settings.layers
        },
        "biases": {
            output: tuple(map(float, bias)) for output, bias in settings.biases.items() if output in settings.layers
        },
    }


def settings_of(sites: Sites, calibration: Calibration) -> Settings:
    """The settings that `stored_settings` kept; their ranges are those of the calibration, by its names.

    Raises:
        InputError: the file is damaged: a weight does not fit its layer.
    """
    returned = {layer.output for layer in calibration.returned}
    settings = Settings(
        frozenset(sites.of_output) - returned,
        calibration.ranges,
        {name: Transform(kept.scale, kept.offset) for name, kept in calibration.transforms.items()},
    )
    weights = {}
    for output, kept in calibration.weights.items():
        scales = np.asarray(kept.scales, dtype=np.float32)
        nearest = _nearest(sites, sites.of_output[output], settings, scales)
        weights[output] = QuantizedWeight(nearest + _unpacked(kept.changes, nearest.shape, output), scales)
    biases = {output: np.asarray(bias, dtype=np.float32) for output, bias in calibration.biases.items()}
    return Settings(settings.layers, settings.ranges, settings.transforms, weights, biases)


def _nearest(
    sites: Sites, site: LayerSite, settings: Settings, scales: npt.NDArray[np.float32]
) -> npt.NDArray[np.int8]:
    weight, _ = sites.transformed(site, settings.transforms.get(site.activation, IDENTITY))
    return quantize_array(weight, scales, axis=site.axis)


def _packed(changes: npt.NDArray[np.int8]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(changes).tobytes(), 9)).decode("ascii")


def _unpacked(text: str, shape: tuple[int, ...], output: str) -> npt.NDArray[np.int8]:
    try:
        values = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=np.int8)
        return values.reshape(shape)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InputError(
            "EF505", f"the calibration is damaged (the weight of {output!r}: {error}): delete it to calibrate again"
        ) from error
