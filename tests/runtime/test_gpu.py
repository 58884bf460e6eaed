from __future__ import annotations

import pytest

from edgeformer.errors import EnvironmentFault
from edgeformer.runtime import can_run_engine, gpu
from edgeformer.runtime.gpu import gpu_fault, installed_flavours


class Driver:
    def __init__(self, init: int = 0, count_code: int = 0, count: int = 1) -> None:
        self.init, self.count_code, self.count = init, count_code, count

    def cuInit(self, flags: int) -> int:  # noqa: N802 - CUDA's name
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, pointer) -> int:  # noqa: N802 - CUDA's name
        pointer._obj.value = self.count
        return self.count_code


def absent(name: str):
    raise OSError(name)


@pytest.mark.parametrize(
    ("load", "fault"),
    [
        (absent, "no CUDA GPU: the NVIDIA driver (libcuda.so.1) is not installed"),
        (lambda _: Driver(init=100), "no CUDA GPU: the NVIDIA driver is there and finds no device"),
        (lambda _: Driver(init=804), "no CUDA GPU: the NVIDIA driver fails to start (cuInit gives error 804)"),
        (lambda _: Driver(count=0), "no CUDA GPU: the NVIDIA driver is there and finds no device"),
        (lambda _: Driver(count_code=3), "no CUDA GPU: the NVIDIA driver is there and finds no device"),
        (lambda _: Driver(), None),
    ],
)
def test_why_there_is_no_gpu(load, fault):
    assert gpu_fault(load) == fault


def test_without_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "gpu_fault", lambda: "no CUDA GPU: none")
    assert not can_run_engine()
    with pytest.raises(
        EnvironmentFault, match=r"no CUDA GPU: none\. Run the engine on the machine that it was built for"
    ):
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
def test_with_gpu_the_flavour_decides(monkeypatch, installed, flavour, works):
    monkeypatch.setattr(gpu, "gpu_fault", lambda: None)
    monkeypatch.setattr(gpu, "installed_flavours", lambda: installed)
    assert can_run_engine(flavour) is works
    if not works:
        package = (flavour or "tensorrt").replace("_", "-")
        with pytest.raises(EnvironmentFault, match=f"is not installed: pip install {package}$"):
            can_run_engine(flavour, raise_error=True)


def test_installed_flavours_are_found_without_importing_them(monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: object() if name == "tensorrt" else None)
    assert installed_flavours() == ("tensorrt",)
