"""JSON that may be anything is parsed or refused with a reason, and names that may hold anything can be printed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edgeformer.text import parse_json, printable, read_json, shortened


@pytest.mark.parametrize(
    "content",
    [
        '{"a": [1, -2.5, "[[[", null, true]}',
        "3",
        '"\\u00e9\\""',
        f'"{"[" * 500}"',
        "[" * 100 + "]" * 100,
        str(2**64 - 1),
    ],
)
def test_what_json_takes_is_taken(content: str) -> None:
    assert parse_json(content) == json.loads(content)
    assert parse_json(content.encode()) == json.loads(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 100_000, "100000 levels"),
        ('{"a":' * 3000 + "1" + "}" * 3000, "3000 levels"),
        ("9" * 5000, "5000 digits"),
        ("1" * 50, "64 bits"),
        (str(2**64), "64 bits"),
        ("-" + str(2**63 + 1), "64 bits"),
        ("1e400", "1e400"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ('{"a": 1, "b": 2, "a": 3}', "'a'"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "byte order mark"),
        (b'{"a": "\xff"}', "UTF-8"),
    ],
)
def test_what_is_refused_has_a_short_reason(content: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(content)
    assert not isinstance(caught.value, json.JSONDecodeError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("content", ["", "{", "relu", "[1,]", '"abc\\', "\0"])
def test_what_is_no_json_is_told_apart(content: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(content)


def test_strings_that_do_not_end_take_no_long_time() -> None:
    begun = time.process_time()
    with pytest.raises(json.JSONDecodeError):
        parse_json('"' + '\\"' * 500_000)
    assert time.process_time() - begun < 5  # looking again from each quote would take hours


def test_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room
    with pytest.raises(ValueError, match="64 MiB"):
        read_json(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_printable_escapes_what_a_terminal_would_act_on() -> None:
    assert printable("a\x1b[31mb\x9bc\x7f\r") == "a\\x1b[31mb\\x9bc\\x7f\\x0d"
    assert printable("\u202eabc\u2066\u2028") == "\\u202eabc\\u2066\\u2028"
    assert printable(b"caf\xe9.png".decode("utf-8", "surrogateescape")) == "caf\\xe9.png"
    assert printable("\ud800") == "\\ud800"
    for kept in ("café 猫 🐈 [/red] :cat:", "two\nlines\tand a tab", "می\u200cخواهم", ""):
        assert printable(kept) == kept


def test_shortened_tells_the_length() -> None:
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81, 5) == "xxxxx... (81 characters)"
    assert shortened(12) == "12"
