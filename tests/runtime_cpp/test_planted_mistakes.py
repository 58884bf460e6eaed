"""Mistakes planted into the C++ preprocessing: the comparison with Pillow finds each of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.runtime_cpp.cases import apart, random_cases
from tests.runtime_cpp.conftest import ROOT
from tests.runtime_cpp.preprocessing import load, run, settings_of

SOURCES = ROOT / "runtime" / "src"
TESTS = ROOT / "runtime" / "tests" / "preprocessing"
EMULATION = ROOT / "plugins" / "tests" / "emulation"

MISTAKES = {
    "coefficients rounded down": ("filters.cpp", "0.5 + scaled", "scaled"),
    "a narrower filter": ("filters.cpp", "center + support + 0.5", "center + support - 0.5"),
    "first pass along rows rounded down": ("host_loops.cpp", "kFilterHalf", "0"),
    "other pass rounded down": ("host.cpp", "kFilterHalf", "0"),
    "ties of the crop rounded down": ("rules.cpp", "down + down % 2", "down"),
    "orders of the passes swapped": ("rules.cpp", "(image_width - width) * 2", "(image_width - width) * 3"),
    "last rows of a chunk left out": ("host.cpp", "std::min(end, window.first", "std::min(end - 1, window.first"),
    "kernel rounds down": ("resize.cu", "int32_t red = kFilterHalf", "int32_t red = 0"),
}


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("c++")
    if found is None:
        pytest.skip("there is no C++ compiler (c++)")
    return found


def build(compiler: str, preprocessing_build: Path, folder: Path, mistake: tuple[str, str, str]) -> Path:
    """A library with the mistake in one file; the rest is as it was built."""
    name, right, wrong = mistake
    text = (SOURCES / "preprocessing" / name).read_text()
    assert right in text
    mutant = folder / f"{name}.cpp"
    mutant.write_text(text.replace(right, wrong))
    library = folder / "mutant.so"
    # The archives give what the objects before them lack.
    archives = [
        preprocessing_build / "libemulated_preprocessing.a",
        preprocessing_build.parents[2] / "plugins" / "tests" / "libemulator.a",
    ]
    includes = [f"-I{path}" for path in (EMULATION, EMULATION.parent, ROOT / "plugins", SOURCES)]
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-shared", "-w", *includes]
    sources = [TESTS / "emulated_library.cpp", mutant]
    # A library of another test that is loaded already must not give its symbols.
    subprocess.run([*command, "-Wl,-Bsymbolic", *sources, *archives, "-o", library], check=True)
    return library


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found(
    compiler: str, preprocessing_build: Path, tmp_path: Path, mistake: tuple[str, str, str]
) -> None:
    library = load(build(compiler, preprocessing_build, tmp_path, mistake))
    on_device = mistake[0].endswith(".cu")
    for case in random_cases(1000, seed=1, largest=200 if on_device else 600):
        settings = settings_of(case.preprocessing)
        result = run(library, settings, case.pixels, orientation=case.orientation, on_device=on_device)
        if not np.array_equal(result, case.expected()):
            assert apart(result, case.expected()) > 0
            return
    pytest.fail("no image showed it")
