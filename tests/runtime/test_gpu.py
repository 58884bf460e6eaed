from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.records.terms import Flavour
from edgeformer.runtime import can_run_engine, gpu
from tests.raising import raises
from tests.stand_ins import run_with_stand_ins

NONE = GpuSurvey((), None, None, "no NVIDIA driver (test)")
ONE = GpuSurvey((Gpu(0, "GPU", 86, 1 << 33),), "580.65", "13.0", "")


def test_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_gpus", lambda: NONE)
    assert not can_run_engine()
    with raises("EF650", NONE.problem):
        can_run_engine(raise_error=True)


@pytest.mark.parametrize(
    ("there", "flavour", "works"),
    [
        ((), None, False),
        ((), "tensorrt_rtx", False),
        (("tensorrt_rtx",), None, True),
        (("tensorrt_rtx",), "tensorrt_rtx", True),
        (("tensorrt_rtx",), "tensorrt", False),
    ],
)
def test_with_gpu_the_flavour_decides(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], flavour: Flavour | None, works: bool
) -> None:
    monkeypatch.setattr(gpu, "find_gpus", lambda: ONE)
    monkeypatch.setattr(gpu, "has_tensorrt", lambda name: name in there)
    assert can_run_engine(flavour) is works
    if not works:
        wanted = flavour or "tensorrt"
        with raises("EF605", wanted, "pip install", f"EDGEFORMER_{wanted.upper()}_LIBRARY"):
            can_run_engine(flavour, raise_error=True)


def test_a_library_is_enough(tmp_path: Path) -> None:
    """Its Python module is not asked for: on a device there may be none."""
    code = (
        "from edgeformer.runtime import can_run_engine\nprint(can_run_engine('tensorrt'))\n"
        "import sys\nprint('tensorrt' in sys.modules)"
    )
    assert run_with_stand_ins(code, folder=tmp_path, flavour="tensorrt").printed == ["True", "False"]
