"""scripts/mutate_kernels.py: the C++ tests of the kernels find every bug that is planted in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mutate_kernels(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # The script adds the folder of its list to the path.
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return load_script("mutate_kernels")


def test_every_mutation_fits_the_sources(mutate_kernels: ModuleType) -> None:
    names = [mutation.name for mutation in mutate_kernels.MUTATIONS]
    assert len(set(names)) == len(names)
    for mutation in mutate_kernels.MUTATIONS:
        assert mutation.new in mutate_kernels.mutated(mutation)
        assert Path(mutation.compiled).suffix in (".cu", ".cpp")


def test_text_that_is_not_there_is_an_error(mutate_kernels: ModuleType) -> None:
    mutation = mutate_kernels.Mutation("a bug", "routing.cu", "text of yesterday", "", "Routing")
    with pytest.raises(mutate_kernels.CannotPlant, match=r"occurs 0 times in routing\.cu, not once"):
        mutate_kernels.mutated(mutation)


def test_text_that_is_there_twice_is_an_error(mutate_kernels: ModuleType) -> None:
    mutation = mutate_kernels.Mutation("a bug", "routing.cu", "#pragma unroll", "", "Routing")
    with pytest.raises(mutate_kernels.CannotPlant, match=r"times in routing\.cu, not once"):
        mutate_kernels.mutated(mutation)


def test_a_pattern_without_a_bug_is_an_error(mutate_kernels: ModuleType) -> None:
    with pytest.raises(mutate_kernels.CannotPlant, match="no bug has such a name"):
        mutate_kernels.run([], ROOT / "build" / "default", 1)


@pytest.mark.slow
def test_every_bug_is_found() -> None:
    libraries = (ROOT / "build").glob("*/plugins/tests/libtest_support_thread_sanitized.a")
    newest = max(libraries, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        pytest.skip("no build tree has the C++ tests: cmake --preset default && cmake --build --preset default")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "mutate_kernels.py", "--build", newest.parents[2]],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SURVIVED" not in done.stdout
