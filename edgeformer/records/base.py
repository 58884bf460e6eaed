"""What all records share: strict fields, and numbers that JSON can hold."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer

__all__ = ["Figure", "Record", "with_sms"]


def _as_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


# A number that may be infinite or NaN, which JSON cannot hold: those are the text "inf", "-inf" and "nan" there.
Figure = Annotated[float, PlainSerializer(_as_json, when_used="json")]


class Record(BaseModel):
    """A record: unknown fields are refused, and it does not change once it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def with_sms(record: Any) -> Any:
    """A record's fields before they are checked, with ``sms`` from ``sm`` where a version wrote it that had no more."""
    if isinstance(record, dict) and "sm" in record and not record.get("sms"):
        return {**record, "sms": (record["sm"],)}
    return record
