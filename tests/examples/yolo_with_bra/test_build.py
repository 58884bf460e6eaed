"""The example runs from PyTorch to boxes, and its C++ program gets the bits and the boxes that Python gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgeformer as ef
from edgeformer.bundle import open_bundle
from edgeformer.inference.backend_libraries import onnx_runtime_library
from edgeformer.ops.library_files import BUILD_COMMAND, RUNTIME, development_builds, searched_places

pytestmark = [pytest.mark.slow, pytest.mark.whole]

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "yolo_with_bra"
# What a network says that was trained for a few steps: enough boxes for some to overlap.
LEAST_SCORE = "0.02"


@pytest.fixture(scope="module")
def runtime_library() -> Path:
    """The runtime library of the newest build tree."""
    builds = development_builds(RUNTIME)
    if not builds:
        pytest.skip(f"no build tree has the runtime library ({searched_places(RUNTIME)}): {BUILD_COMMAND}")
    return builds[0]


@pytest.fixture(scope="module")
def built(runtime_library: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The example's bundle, for a size that its regions do not divide, and what it printed."""
    bundle = tmp_path_factory.mktemp("yolo") / "bundle"
    words = ["--size", "96", "--steps", "40", "--least-score", LEAST_SCORE, "-o", str(bundle)]
    return bundle, run(sys.executable, EXAMPLE / "build.py", *words)


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_blocks_are_fused_and_the_engine_has_them(built: tuple[Path, str]) -> None:
    bundle, printed = built
    assert "2 of 2 routing-attention blocks fused\n" in printed
    assert "engine: passed, 2 plugin layers for 2 op nodes\n" in printed
    assert re.search(r"^parity: passed, ", printed, re.MULTILINE)
    manifest = open_bundle(bundle)
    assert (manifest.precision, manifest.target.name) == ("int8", "rtx-40")
    assert [(output.name, list(output.shape[1:])) for output in manifest.outputs] == [
        ("boxes", [189, 4]),
        ("scores", [189, 3]),
    ]
    application = manifest.application
    assert application.image is not None
    assert (application.image.normalization, application.image.crop_fraction) == ("scale", 1.0)
    assert application.labels == ("disc", "square", "triangle")


def test_cpp_gets_the_bits_and_the_boxes_that_python_gets(
    built: tuple[Path, str], runtime_library: Path, tmp_path: Path
) -> None:
    bundle, printed = built
    for component in ("runtime", "development"):
        run("cmake", "--install", runtime_library.parent, "--prefix", tmp_path / "sdk", "--component", component)
    options = (f"-DCMAKE_PREFIX_PATH={tmp_path / 'sdk'}", "-DCMAKE_CXX_FLAGS=-Werror")
    run("cmake", "-S", EXAMPLE, "-B", tmp_path / "build", *options)
    run("cmake", "--build", tmp_path / "build")
    pictures = sorted(bundle.with_suffix(".pictures").iterdir())
    library = onnx_runtime_library()
    assert library is not None
    environment = {"EDGEFORMER_ONNXRUNTIME_LIBRARY": str(library), "DETECT_DUMP": str(tmp_path / "outputs")}
    found = run(tmp_path / "build" / "detect", bundle, LEAST_SCORE, *pictures, environment=environment)

    with ef.load(bundle) as model:
        outputs = [model(model.preprocess([picture])) for picture in pictures]
    values = b"".join(one[name].tobytes() for one in outputs for name in ("boxes", "scores"))
    assert (tmp_path / "outputs").read_bytes() == values
    # The program ends with what detect prints.
    assert len(found.splitlines()) > len(pictures)
    assert printed.endswith(found)
