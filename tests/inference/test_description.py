"""What a loaded model says that it is, on a machine of stand-ins for the driver and TensorRT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.runtime_faults.faults import make_bundle
from tests.stand_ins import run_with_stand_ins

CODE = """
import sys
import edgeformer as ef
for backend in sys.argv[2:]:
    with ef.load(sys.argv[1], backend=backend, trust_bundle=True) as model:
        print(model.describe().precision)
"""


@pytest.mark.parametrize(("own", "told"), [("absent", "int8"), (None, "int8"), ("fp16", "fp16")])
def test_an_engine_of_another_precision_than_the_bundle_says_so(own: str | None, told: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "tensorrt")
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["precision"] = "int8"
    manifest.pop("engine_precision", None)
    if own != "absent":
        manifest["engine_precision"] = own
    path.write_text(json.dumps(manifest))
    assert run_with_stand_ins(CODE, bundle, "tensorrt", folder=tmp_path, flavour="tensorrt").printed == [told]
