"""The names of `import edgeformer as ef`: they resolve, are functions or classes, and stay what they are."""

from __future__ import annotations

import importlib
import inspect

import pytest

import edgeformer


@pytest.mark.parametrize("name", [name for name in edgeformer.__all__ if name != "__version__"])
def test_every_name_is_a_function_or_a_class(name: str) -> None:
    value = getattr(edgeformer, name)
    assert callable(value)
    assert not inspect.ismodule(value)
    assert value.__name__ == name


def test_no_name_is_shadowed_by_a_room() -> None:
    """Importing ``edgeformer.verify`` would bind that name to the module."""
    for name in edgeformer.__all__:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"edgeformer.{name}")


def test_unknown_names_are_refused_and_known_ones_listed() -> None:
    with pytest.raises(AttributeError, match="module 'edgeformer' has no attribute 'verfy'"):
        _ = edgeformer.verfy
    assert {"build", "verify_bundle", "__version__"} <= set(dir(edgeformer))
