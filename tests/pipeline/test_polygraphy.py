"""What a bundle's forms gave, in the hands of Polygraphy's own tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeformer.pipeline import BuildResult, verify_bundle
from edgeformer.pipeline.verification import recorded_images
from edgeformer.runtime import OnnxSession


def polygraphy(*words: str | Path) -> subprocess.CompletedProcess[str]:
    # Its script, in Python's own folder; the package has no module to run.
    command = [str(Path(sys.executable).parent / "polygraphy"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_polygraphy_compares_with_what_a_form_gave(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    from polygraphy.comparator import RunResults

    folder = tmp_path / "new" / "outputs"
    verify_bundle(fp16_bundle.path, save_outputs=folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "exported.json",
        "fused.json",
        "inputs.json",
        "typed.json",
    ]
    images = recorded_images(fp16_bundle.path)[0]
    with OnnxSession(fp16_bundle.path / "exported.onnx") as session:
        (name,) = session.inputs
        expected = session.run({name: images})
    ((runner, (iteration,)),) = RunResults.load(folder / "exported.json")
    assert runner == "exported"
    np.testing.assert_allclose(iteration["logits"], expected["logits"], rtol=1e-4, atol=1e-4)

    def run(form: str, tolerance: float) -> subprocess.CompletedProcess[str]:
        given = ("--load-inputs", folder / "inputs.json", "--load-outputs", folder / f"{form}.json")
        model = fp16_bundle.path / "exported.onnx"
        return polygraphy("run", model, "--onnxrt", *given, "--rtol", "0", "--atol", str(tolerance))

    same = run("exported", 1e-4)
    assert same.returncode == 0, same.stdout + same.stderr
    assert "PASSED" in same.stdout
    # FP16 rounds; with a smaller tolerance Polygraphy sees it.
    assert run("typed", 0.2).returncode == 0
    assert run("typed", 1e-7).returncode == 1
