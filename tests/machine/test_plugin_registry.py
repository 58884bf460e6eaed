from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeformer.machine.plugin_registry import load_plugin_library
from tests.raising import raises

# A shared library that every Linux has; it has no plugins.
LIBRARY = Path("libc.so.6")


class Registry:
    """TensorRT's, which knows the op's plugin, or does once a library is loaded that has it."""

    def __init__(self, *, known: bool = False, works: bool = True) -> None:
        self.known, self.works = known, works
        self.loaded: list[str] = []

    @property
    def all_creators_recursive(self) -> list[SimpleNamespace]:
        names = [("Other", "1", ""), ("BiLevelRoutingAttention", "2", ""), ("BiLevelRoutingAttention", "1", "else")]
        names += [("BiLevelRoutingAttention", "1", "")] * self.known
        named = [SimpleNamespace(name=name, plugin_version=v, plugin_namespace=space) for name, v, space in names]
        return [SimpleNamespace(), *named]

    def load_library(self, path: str) -> None:
        self.loaded.append(path)
        self.known = self.works


@pytest.mark.parametrize("known", [False, True])
def test_a_plugin_library_is_loaded_once(known: bool) -> None:
    registry = Registry(known=known)
    load_plugin_library(registry, LIBRARY, flavour="tensorrt", rtx_alias=None)
    assert registry.loaded == ([] if known else [str(LIBRARY)])


def test_a_library_without_the_plugin() -> None:
    with raises("EF612", LIBRARY, "BiLevelRoutingAttention", "cmake --build"):
        load_plugin_library(Registry(works=False), LIBRARY, flavour="tensorrt", rtx_alias=None)


def test_a_library_that_cannot_be_loaded_keeps_the_loaders_words(tmp_path: Path) -> None:
    path = tmp_path / "plugins.so"
    path.write_bytes(b"no library")
    registry = Registry()
    with raises("EF611", path) as caught:
        load_plugin_library(registry, path, flavour="tensorrt", rtx_alias=None)
    assert re.search("too short|invalid ELF", str(caught.value))
    assert registry.loaded == []


@pytest.mark.parametrize("known", [False, True])
def test_rtx_without_its_alias_library_stops_before_the_parser(tmp_path: Path, known: bool) -> None:
    """Also where the plugin is known already: it is the parser that opens the alias."""
    alias = tmp_path / "libtensorrt_rtx.so"
    alias.write_bytes(b"not ELF")
    registry = Registry(known=known)
    with raises("EF611", alias, "TensorRT-RTX", "cmake --build"):
        load_plugin_library(registry, tmp_path / "plugins.so", flavour="tensorrt_rtx", rtx_alias=alias)
    assert registry.loaded == []


def test_what_lies_beside_the_library_is_not_opened_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name alone goes to the dynamic linker, which does not look beside the library."""
    opened: list[str] = []

    def open_library(name: str, **_: int) -> None:
        opened.append(name)
        raise OSError("not found")

    monkeypatch.setattr("ctypes.CDLL", open_library)
    (tmp_path / "libtensorrt_rtx.so").write_bytes(b"not ELF")
    with raises("EF611", "libtensorrt_rtx.so"):
        load_plugin_library(Registry(), tmp_path / "plugins.so", flavour="tensorrt_rtx", rtx_alias=None)
    assert opened == ["libtensorrt_rtx.so"]
