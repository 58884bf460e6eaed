"""What quantization decided about every layer."""

from __future__ import annotations

from edgeformer.records.base import Record

__all__ = ["LayerRecord"]


class LayerRecord(Record):
    """The decision about one layer.

    Attributes:
        node: the node's name, or its first output if it has none.
        op: its operator.
        int8: whether it became INT8.
        because: the reason.
    """

    node: str
    op: str
    int8: bool
    because: str
