"""The example with pycuda: its host path on ONNX Runtime, its device path with stand-ins for pycuda and the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.runtime_faults.faults import make_bundle
from edgeformer.inference import load
from examples.runtime import with_pycuda
from tests.inference.conftest import IMAGE
from tests.stand_ins import ROOT, run_with_stand_ins

EXAMPLE = ROOT / "examples" / "runtime" / "with_pycuda.py"


def put_pictures(folder: Path, count: int = 3) -> list[Path]:
    rng = np.random.default_rng(7)
    paths = [folder / f"{index}.png" for index in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), np.uint8)).save(path)
    return paths


def test_the_host_path_classifies(
    small_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pictures = put_pictures(tmp_path)
    assert with_pycuda.main([str(small_bundle), *map(str, pictures), "--host", "--top", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    with load(small_bundle) as model:
        expected = [
            f"{picture}: {one.label} {one.probability:.1%}"
            for picture in pictures
            for one in model.predict(picture, top=2)
        ]
        assert printed == [*str(model.describe()).splitlines(), *expected]


def test_without_pycuda_it_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "pycuda", None)  # as if it were not installed
        assert with_pycuda.main([str(tmp_path), "picture.png"]) == 4
    said = capsys.readouterr().err
    assert "pip install 'edgeformer[gpu]'" in said
    assert "--host" in said


def test_without_a_device_it_says_so(tmp_path: Path) -> None:
    """A pycuda whose driver has no device."""
    package = tmp_path / "pycuda"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "driver.py").write_text(
        "class Error(Exception): pass\ndef init(): raise Error('cuInit failed: no CUDA-capable device is detected')\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path), "picture.png"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 4
    assert "no CUDA-capable device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_the_bundle_keeps_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert with_pycuda.main([str(tmp_path / "nothing"), "picture.png", "--host"]) == 2
    assert capsys.readouterr().err.startswith("EF701: ")


def test_the_device_path_with_stand_ins(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["application"]["image"] = {**IMAGE, "input": "image", "height": 2, "width": 2}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    pictures = put_pictures(tmp_path)
    code = "import sys\nfrom examples.runtime.with_pycuda import main\nsys.exit(main(sys.argv[1:]))"
    path = f"{ROOT / 'tests' / 'doubles'}:{ROOT}"
    done = run_with_stand_ins(code, bundle, *pictures, "--top", "1", folder=tmp_path, PYTHONPATH=path)
    assert "in TensorRT 1.7.1 on CUDA device 0, 1 at once" in done.printed[1]
    # The stand-in's engine: class k is k + 1 times the sum of the input, so the first or the last is the best.
    assert [line.rpartition(": ")[0] for line in done.printed[-3:]] == [str(picture) for picture in pictures]
    assert {line.rpartition(": ")[2].split()[0] for line in done.printed[-3:]} <= {"a", "e"}
    assert done.done == ["deserialized", "enqueued", "enqueued"]
