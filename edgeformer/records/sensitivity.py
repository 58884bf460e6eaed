"""What each layer of a network does to its outputs alone in INT8, and what it costs to leave it in float."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from edgeformer.records.base import Record

__all__ = ["LayerSensitivity", "SensitivityReport"]

_Finite = Annotated[float, Field(allow_inf_nan=False)]


class LayerSensitivity(Record):
    """One layer alone in INT8, all others in float.

    Attributes:
        node: the layer's name, or its output where it has none; of the attention how many blocks it is.
        op: its operator.
        output: its output tensor, which identifies it.
        snr_clean_db: SNR of the network's outputs on the images as they are, in dB; the worst output counts.
        snr_degraded_db: the same on degraded versions of the images; None where none were made.
        multiply_adds: of the layer, for one image; None where the graph does not tell its shapes.
    """

    node: str
    op: str
    output: str
    snr_clean_db: _Finite
    snr_degraded_db: _Finite | None
    multiply_adds: Annotated[int, Field(ge=0)] | None

    @property
    def snr_db(self) -> float:
        """The worse of clean and degraded."""
        return self.snr_clean_db if self.snr_degraded_db is None else min(self.snr_clean_db, self.snr_degraded_db)

    @property
    def noise_per_million_db(self) -> float | None:
        """Noise that the layer brings for each million multiply-adds that INT8 makes cheaper, in dB.

        ``10 log10(noise / millions of multiply-adds)``, the noise relative to the outputs. Where noises add up, the
        layer where it is highest is the one that buys most in float for what it costs. None where the multiply-adds
        are not known.
        """
        if not self.multiply_adds:
            return None
        return -self.snr_db - 10 * math.log10(self.multiply_adds / 1e6)


class SensitivityReport(Record):
    """The layers that a recipe quantizes, the most harmful first.

    Attributes:
        schema_version: of this report.
        edgeformer: version that made it.
        model_sha256: of the float graph.
        data_sha256: of the calibration data, its order and preprocessing.
        recipe: the recipe's name.
        images: number of images that the SNR was measured on.
        multiply_adds: of all layers of the network, quantized or not, for one image; None where some are not known.
        layers: the layers that the recipe quantizes, ranked.
    """

    schema_version: Literal[1] = 1
    edgeformer: str
    model_sha256: str
    data_sha256: str
    recipe: str
    images: Annotated[int, Field(ge=1)]
    multiply_adds: Annotated[int, Field(ge=0)] | None
    layers: tuple[LayerSensitivity, ...]

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """What is told of each layer, in the order of the ranking, with what follows from it."""
        return [
            {
                "rank": number,
                "node": layer.node,
                "op": layer.op,
                "output": layer.output,
                "snr_db": layer.snr_db,
                "snr_clean_db": layer.snr_clean_db,
                "snr_degraded_db": layer.snr_degraded_db,
                "multiply_adds": layer.multiply_adds,
                "multiply_adds_share": self.share(layer),
                "noise_per_million_multiply_adds_db": layer.noise_per_million_db,
            }
            for number, layer in enumerate(self.layers, 1)
        ]

    def share(self, layer: LayerSensitivity) -> float | None:
        """The layer's part of the network's multiply-adds, 0 to 1; None where it is not known."""
        if not self.multiply_adds or layer.multiply_adds is None:
            return None
        return layer.multiply_adds / self.multiply_adds
