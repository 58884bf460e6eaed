"""What callers give, refused with a message where it is not what it should be."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from edgeformer.errors import InputError

__all__ = ["milliseconds", "require_mapping", "whole_number"]

_LARGEST_INT32 = 2**31 - 1


def whole_number(value: Any, name: str) -> int:
    """A whole number of any type, such as NumPy's.

    Raises:
        InputError: it is none.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError("EF101", f"{name} is {value!r}; it is a whole number") from error


def milliseconds(wait: Any) -> int:
    """Seconds to wait, as the runtime takes them: -1 for ever.

    Args:
        wait: seconds, infinity among them; None waits for ever.

    Raises:
        InputError: it is no such number.
    """
    if wait is None:
        return -1
    if not isinstance(wait, (int, float)) or math.isnan(wait):
        raise InputError("EF101", f"wait is {wait!r}; it is a number of seconds, or None")
    return round(max(0.0, min(wait * 1000, _LARGEST_INT32)))


def require_mapping(given: Any, what: str) -> None:
    """Refuse arrays that come without their names.

    Args:
        given: is looked at.
        what: "inputs" or "outputs", for the message.

    Raises:
        InputError: it is no mapping.
    """
    if type(given) is not dict and not isinstance(given, Mapping):  # the usual case costs next to nothing
        raise InputError("EF802", f"the {what} are a {type(given).__name__}; they are a dict, an array for each name")
