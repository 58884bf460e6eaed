"""What was looked for on a machine, and whether it is there."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Fact"]


class Fact(BaseModel):
    """One thing that was looked for.

    Attributes:
        name: what it is.
        status: whether it is there and usable.
        detail: version and place; or why it is missing, and what needs it.
        remedy: the command or step that provides it; empty if the status is ok.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: Literal["ok", "missing"]
    detail: str
    remedy: str = ""
