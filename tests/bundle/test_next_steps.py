"""The commands that a build ends with can be pasted: here they are."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.kill_finish import without_engine
from edgeformer.bundle import read_manifest
from edgeformer.bundle.next_steps import next_steps
from edgeformer.cli._summary import print_next_steps
from edgeformer.pipeline import BuildResult
from tests.pipeline.conftest import fp16_bundle as fp16_bundle
from tests.pipeline.conftest import nano_onnx as nano_onnx

pytestmark = pytest.mark.whole


def paste(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would, with this environment's Python and edgeformer."""
    words = shlex.split(command)
    program = {"edgeformer": [sys.executable, "-m", "edgeformer"], "python3": [sys.executable]}[words[0]]
    return subprocess.run([*program, *words[1:]], cwd=folder, capture_output=True, text=True, check=False)


def test_a_bundle_with_an_engine_is_verified_and_run(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    bundle = tmp_path / "copied"
    shutil.copytree(fp16_bundle.path, bundle)
    verify, bench, run, program = next_steps(bundle, fp16_bundle.manifest)
    result = paste(verify.command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert shlex.split(bench.command) == ["edgeformer", "bench", str(bundle), "--trust-bundle"]
    result = paste(f"{bench.command} --seconds 0.1 --threads 1", tmp_path)
    assert result.returncode == 0, result.stderr
    # Its latency is known now.
    assert bench not in next_steps(bundle, read_manifest(bundle))
    assert len(next_steps(bundle, read_manifest(bundle))) == 3
    assert "SM 89 GPU" in run.purpose
    Image.new("RGB", (20, 30), "red").save(tmp_path / "IMAGE", "PNG")
    result = paste(run.command, tmp_path)
    assert result.returncode == 0, result.stderr
    result_of_program = paste(program.command, tmp_path)
    assert result_of_program.returncode == 0, result_of_program.stderr
    best = re.findall(r"label='(\w+)', probability=([\d.e-]+)", result_of_program.stdout)
    assert len(best) == 5
    for _, probability in best:
        assert f"{100 * float(probability):.1f} %" in result.stdout


def test_what_is_no_classifier_is_loaded(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    application = fp16_bundle.manifest.application.model_copy(update={"task": "features"})
    manifest = fp16_bundle.manifest.model_copy(update={"application": application})
    *_, program = next_steps(fp16_bundle.path, manifest)
    assert "trust_bundle=True" in program.command
    result = paste(program.command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("nano: classification, fp16\n")


def test_a_device_bundle_is_copied_and_finished_there(fp16_bundle: BuildResult, tmp_path: Path) -> None:
    """The last command is run here for a target that this machine can build for."""
    bundle = tmp_path / "a bundle"
    shutil.copytree(fp16_bundle.path, bundle)
    without_engine(bundle)
    verify, copied, finished, run, program = next_steps(bundle, read_manifest(bundle))
    assert shlex.split(verify.command) == ["edgeformer", "verify", str(bundle)]
    assert shlex.split(run.command) == ["edgeformer", "run", str(bundle), "IMAGE"]
    assert "trust_bundle" not in program.command
    assert shlex.split(copied.command) == ["scp", "-r", str(bundle), "rtx-40:"]
    result = paste(finished.command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert (bundle / "model.engine").stat().st_size > 1_000_000
    # A bundle for a device has a script for it.
    manifest = read_manifest(bundle)
    files = {name: record for name, record in manifest.files.items() if name != "model.engine"}
    scripted = manifest.model_copy(update={"files": {**files, "finish": manifest.files["typed.onnx"]}})
    assert [step.command for step in next_steps(bundle, scripted)][2] == "'a bundle/finish'"


def test_commands_are_printed_on_one_line_each(fp16_bundle: BuildResult, capsys: pytest.CaptureFixture[str]) -> None:
    print_next_steps(Console(width=40), fp16_bundle.path, fp16_bundle.manifest)
    printed = capsys.readouterr().out.splitlines()
    for command, purpose in next_steps(fp16_bundle.path, fp16_bundle.manifest):
        assert f"  {command}" in printed
        assert f"  # {purpose}" in printed
