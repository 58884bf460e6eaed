from __future__ import annotations

import pytest

from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.records.terms import Flavour
from edgeformer.runtime import can_run_engine, gpu
from tests.raising import raises

NONE = GpuSurvey((), None, None, "no NVIDIA driver (test)")
ONE = GpuSurvey((Gpu(0, "GPU", 86, 1 << 33),), "580.65", "13.0", "")


def test_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_gpus", lambda: NONE)
    assert not can_run_engine()
    with raises("EF650", NONE.problem):
        can_run_engine(raise_error=True)


@pytest.mark.parametrize(
    ("installed", "flavour", "works"),
    [
        ((), None, False),
        ((), "tensorrt_rtx", False),
        (("tensorrt_rtx",), None, True),
        (("tensorrt_rtx",), "tensorrt_rtx", True),
        (("tensorrt_rtx",), "tensorrt", False),
    ],
)
def test_with_gpu_the_flavour_decides(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], flavour: Flavour | None, works: bool
) -> None:
    monkeypatch.setattr(gpu, "find_gpus", lambda: ONE)
    monkeypatch.setattr(gpu, "installed_flavours", lambda: installed)
    assert can_run_engine(flavour) is works
    if not works:
        package = (flavour or "tensorrt").replace("_", "-")
        with raises("EF605", f"pip install {package}"):
            can_run_engine(flavour, raise_error=True)
