"""Codes of errors: every one that is raised is listed in docs/errors.md, and every one that is listed is raised."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from edgeformer.engine.builder import BuildCancelled, BuildFailed
from edgeformer.errors import EdgeformerError, EnvironmentFault, GateMissed, InputError
from tests.raising import raises

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"EF[1-9]\d\d")
EXIT_CODES = {
    "InputError": InputError.exit_code,
    "GateMissed": GateMissed.exit_code,
    "EnvironmentFault": EnvironmentFault.exit_code,
    "BuildFailed": BuildFailed.exit_code,
    "BuildCancelled": BuildCancelled.exit_code,
}


def raised_codes(source: str) -> set[str]:
    """Every code in a source file: a string constant that is one and nothing more."""
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if isinstance(node.value, str) and CODE.fullmatch(node.value)}


def error_calls(source: str) -> list[ast.Call]:
    """Every call in a source file that makes an error."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EXIT_CODES
    ]


def runtime_sources() -> list[str]:
    """The sources of the runtime and its tool, whose messages begin with a code."""
    folders = (ROOT / "runtime" / "src", ROOT / "runtime" / "tools")
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".cpp", ".h", ".cu"))
    assert paths
    return [re.sub(r"//.*", "", path.read_text(encoding="utf-8")) for path in paths]


def listed_codes() -> list[str]:
    """The codes in the page's tables, in order."""
    return re.findall(r"^\| (EF\d\d\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_lists_what_is_raised_and_nothing_else() -> None:
    raised = set().union(
        *(raised_codes(path.read_text(encoding="utf-8")) for path in (ROOT / "edgeformer").rglob("*.py"))
    )
    raised |= {code for source in runtime_sources() for code in re.findall(r'"(EF[1-9]\d\d)[":]', source)}
    listed = listed_codes()
    assert listed == sorted(set(listed))
    assert set(listed) == raised


def test_every_error_has_a_code_and_a_message() -> None:
    paths = sorted((ROOT / "edgeformer").rglob("*.py"))
    bare = []
    for path in paths:
        for call in error_calls(path.read_text(encoding="utf-8")):
            if len(call.args) != 2 or isinstance(call.args[0], ast.JoinedStr):
                bare.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert paths
    assert bare == []


def test_the_page_gives_the_exit_code_that_an_error_has() -> None:
    listed = dict(re.findall(r"^\| (EF\d\d\d) \| (\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted((ROOT / "edgeformer").rglob("*.py"))
        for call in error_calls(path.read_text(encoding="utf-8"))
        for code in raised_codes(ast.unparse(call))
        if isinstance(call.func, ast.Name) and listed[code] != str(EXIT_CODES[call.func.id])
    ]
    assert wrong == []


def test_the_page_gives_the_exit_code_that_a_fault_of_the_runtime_has() -> None:
    listed = dict(re.findall(r"^\| (EF\d\d\d) \| (\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    exits = {"INVALID_ARGUMENT": "2", "INVALID_BUFFER": "2", "INVALID_BUNDLE": "2", "UNAVAILABLE": "4", "BUSY": "4"}
    exits |= {"BACKEND_ERROR": "2", "CUDA_ERROR": "4", "INTERNAL_ERROR": "1"}
    faults = [
        (status, code)
        for source in runtime_sources()
        for status, codes in re.findall(r'\bEDGEFORMER_([A-Z_]+),\s*((?:[\w ?]*"EF[1-9]\d\d"[ :,]*)+)', source)
        for code in re.findall(r"EF\d\d\d", codes)
    ]
    assert {("UNAVAILABLE", "EF753"), ("UNAVAILABLE", "EF752"), ("INVALID_BUNDLE", "EF702")} <= set(faults)
    assert [(status, code) for status, code in faults if listed[code] != exits[status]] == []


def test_the_search_for_codes_sees_them() -> None:
    assert raised_codes('raise InputError("EF101", f"{x} EF102")\n# "EF103"') == {"EF101"}


@pytest.mark.parametrize(("kind", "exit_code"), [(InputError, 2), (GateMissed, 3), (EnvironmentFault, 4)])
def test_an_error_has_its_code_its_message_and_an_exit_code(kind: type[EdgeformerError], exit_code: int) -> None:
    with raises("EF101", "48", 32) as caught:
        raise kind("EF101", "got 48, the limit is 32")
    assert (str(caught.value), caught.value.exit_code) == ("got 48, the limit is 32", exit_code)


def test_another_code_or_a_missing_value_fails_a_test() -> None:
    with pytest.raises(AssertionError, match="EF102: a"), raises("EF101"):
        raise InputError("EF102", "a")
    with pytest.raises(AssertionError, match="does not name"), raises("EF101", "b"):
        raise InputError("EF101", "a")
