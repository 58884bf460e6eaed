"""Text from outside: JSON that someone else wrote, and names that may hold anything, made fit to be printed."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

__all__ = ["parse_json", "printable", "read_json", "shortened"]

# No JSON that edgeformer reads comes near: a manifest has a depth of 12 and less than 1 MiB.
_MOST_BYTES = 64 << 20
_DEEPEST = 100
_LONGEST_NUMBER = 100
# Brackets count outside of strings only. A string that does not end goes to the end of the text, so that no character
# is looked at twice.
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*\\?(?:"|\Z)|([\[{])|([\]}])', re.DOTALL)
# Marks that reverse the direction in which a terminal writes what follows.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file, as `parse_json` takes it.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `parse_json`.
    """
    with Path(path).open("rb") as file:
        return parse_json(file.read(_MOST_BYTES + 1))


def parse_json(content: bytes | str) -> Any:
    """Parse JSON that may be anything. Every file, option and property of JSON from outside is read by this function.

    Stricter than `json.loads` where readers differ or Python would run out of stack: duplicate keys, NaN, infinity,
    integers beyond 64 bits, numbers beyond float64 and more than 100 levels are refused, and bytes must be UTF-8
    without a byte order mark.

    Args:
        content: the text, or its bytes.

    Raises:
        json.JSONDecodeError: it is not JSON.
        ValueError: it is JSON that is not taken. Both say in one short line why.
    """
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES >> 20} MiB")
    text = _decoded(content) if isinstance(content, bytes) else content
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        if match[1]:
            depth += 1
            deepest = max(deepest, depth)
        elif match[2]:
            depth -= 1
    if deepest > _DEEPEST:
        raise ValueError(f"{deepest} levels of brackets, at most {_DEEPEST} are taken")
    return json.loads(
        text, parse_int=_integer, parse_float=_float, parse_constant=_refused, object_pairs_hook=_without_duplicates
    )


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it begins with a byte order mark: save it as UTF-8 without one")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits ({shortened(digits, 20)})")
    value = int(digits)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"the integer {shortened(digits, 30)} does not fit in 64 bits")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {shortened(digits, 30)} is beyond float64")
    return value


def _refused(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shortened(twice)!r} is there twice")
    return found


def printable(text: str) -> str:
    r"""``text`` with everything escaped that a terminal would act on or that no encoding can hold.

    Control characters (ANSI sequences begin with one), marks that reverse the direction of writing, and the bytes of
    names that are not UTF-8 are shown as Python writes them: ``\x1b``, ``\u202e``, ``\xff``. Line feeds and
    tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that os.fsdecode could not decode
        return f"\\x{number - 0xDC00:02x}"
    acts = character in _DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    if character in "\n\t" or not acts:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii") if number >= 128 else f"\\x{number:02x}"


def shortened(text: object, most: int = 80) -> str:
    """``text`` as a message can quote it: cut after ``most`` characters, with its length."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[:most]}... ({len(whole)} characters)"
