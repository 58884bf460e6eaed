"""The network part by part: what each computes in, and how far what it gives is from the float graph's."""

from __future__ import annotations

from pydantic import Field

from edgeformer.records.base import Figure, Record
from edgeformer.records.terms import Precision

__all__ = ["BlockFigures"]


class BlockFigures(Record):
    """A block of the network, or what stands between two of them (a stem, a downsampling layer, the head).

    Attributes:
        name: the module's path where the graph tells it (``stages.0.0``), else that of its op node.
        int8_layers: layers with weights (Conv, Gemm, MatMul) that are quantized, to the bundle's precision.
        float_layers: those that compute in floating point.
        op: name of the node of routing attention in it, which the plugin runs; None where there is none.
        attention: what that node computes on; None where there is none.
        regions: regions along each side of its map.
        topk: regions that each region attends to.
        snr_db: of what the part gives, in the typed graph against the fused one; None where the two have no tensor in
            common there.
        images: over how many images.
    """

    name: str
    int8_layers: int = Field(ge=0)
    float_layers: int = Field(ge=0)
    op: str | None = None
    attention: Precision | None = None
    regions: int | None = None
    topk: int | None = None
    snr_db: Figure | None = None
    images: int = Field(default=0, ge=0)
