"""What quantization decided about every layer, and what calibration saw of every activation that was quantized."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgeformer.records.base import Record
from edgeformer.records.terms import TypedPrecision

__all__ = ["ActivationHistogram", "ActivationRecord", "FrontPoint", "LayerRecord"]


class LayerRecord(Record):
    """The decision about one layer.

    Attributes:
        node: the node's name, or its first output if it has none.
        op: its operator.
        int8: whether it became INT8, weights and activations.
        because: the reason.
        type: what it became in the other quantized precisions; None where it stayed in float, and for ``int8``.
    """

    node: str
    op: str
    int8: bool
    because: str
    type: TypedPrecision | None = None


class ActivationHistogram(Record):
    """Magnitudes of an activation over calibration images.

    Attributes:
        bin_width: width of a bin, in the activation's unit; the first begins at 0.
        counts: values in each bin, up to the bin of the largest magnitude.
        largest: the largest magnitude.
        clipped: fraction of the values that lie beyond the range by more than rounding, half a step of INT8.
    """

    bin_width: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    largest: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    clipped: Annotated[float, Field(ge=0, le=1)]


class ActivationRecord(Record):
    """An activation that INT8 or FP8 layers read.

    Attributes:
        tensor: its name; channels of one are ``qkv[..., 0:64]``.
        layers: the nodes that read it.
        amax: the magnitude that becomes 127 in INT8 and 448 in FP8.
        histogram: what calibration saw; None where the recipe's observer keeps no more than the largest value.
    """

    tensor: str
    layers: tuple[str, ...]
    amax: float
    histogram: ActivationHistogram | None = None


class FrontPoint(Record):
    """A point of the trade between error and INT8 share, on calibration images that nothing was fitted to.

    Attributes:
        returned: the layer's output tensor that went back to float last; None where every layer is INT8.
        int8_share: share of the network's multiply-adds that is INT8.
        clean_db: SNR of the outputs on images as they are, the worst output counting.
        degraded_db: the same on degraded versions of them.
        finished: with weights rounded and biases corrected.
    """

    returned: str | None = None
    int8_share: Annotated[float, Field(ge=0, le=1)]
    clean_db: Annotated[float, Field(allow_inf_nan=False)]
    degraded_db: Annotated[float, Field(allow_inf_nan=False)]
    finished: bool = False
