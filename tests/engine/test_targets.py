from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeformer.engine import targets
from edgeformer.engine.targets import Target, can_build, get_target, list_targets
from edgeformer.machine.backends import Backend, Flavour
from edgeformer.machine.devices import Gpu, GpuSurvey
from tests.raising import raises

NO_GPU = GpuSurvey((), None, None, "no NVIDIA driver (test)")
ORIN = GpuSurvey((Gpu(0, "Orin", 87, 65_000_000_000),), "540.4.0", "12.6", "")
RTX_4090 = GpuSurvey((Gpu(0, "RTX 4090", 89, 25_300_000_000),), "580.1", "13.0", "")


def machine(monkeypatch: pytest.MonkeyPatch, gpus: GpuSurvey, **versions: str) -> None:
    """Make this machine have these GPUs and these TensorRT flavours."""

    def find_backend(flavour: Flavour) -> Backend | None:
        if flavour not in versions:
            return None
        return Backend(flavour, flavour, versions[flavour], Path("/opt") / flavour)

    monkeypatch.setattr(targets, "find_gpus", lambda: gpus)
    monkeypatch.setattr(targets, "find_backend", find_backend)
    monkeypatch.setattr("edgeformer.machine.backends.find_backend", find_backend)


def test_table_has_the_targets_with_their_compute_capability() -> None:
    assert {target.name: target.sm for target in list_targets()} == {
        "jetson-orin-nano": 87,
        "jetson-orin-nano-4gb": 87,
        "jetson-orin-nx": 87,
        "jetson-orin-nx-8gb": 87,
        "jetson-agx-orin": 87,
        "jetson-agx-orin-32gb": 87,
        "igx-orin": 87,
        "jetson-thor": 110,
        "jetson-thor-t4000": 110,
        "igx-thor": 110,
        "dgx-spark": 121,
        "dgx-spark-rtx": 121,
        "rtx": 80,
        "rtx-20": 75,
        "rtx-30": 86,
        "rtx-40": 89,
        "rtx-50": 120,
        "rtx-pro": 120,
        "t4": 75,
        "a2": 86,
        "a10": 86,
        "l4": 89,
        "l40s": 89,
        "a100": 80,
        "a100-rtx": 80,
        "h100": 90,
        "b200": 100,
    }


def test_rtx_is_one_engine_for_all_that_tensorrt_rtx_builds_for_without_loss() -> None:
    """Not for Turing: an engine for SM 75 and 86 is larger than either, and others are not."""
    several = {target.name: target.sms for target in list_targets() if len(target.sms) > 1}
    assert several == {"rtx": (80, 86, 89, 120, 121)}
    assert get_target("rtx").compute_capability == "8.0, 8.6, 8.9, 12.0, 12.1"
    assert all(target.sms == (target.sm,) for target in list_targets() if target.name not in several)


def test_the_floors_come_from_the_jetpacks_and_the_flavours() -> None:
    own = {"dgx-spark": "10.13", "b200": "10.8"}
    for target in list_targets():
        if target.name in own:
            floor = own[target.name]
        elif target.flavour == "tensorrt_rtx":
            floor = "1.7"
        else:
            floor = {87: "10.3", 110: "10.13"}.get(target.sm, "10.3")
        assert target.tensorrt_minimum == floor, target.name


def test_every_memory_has_its_source() -> None:
    unknown = {target.name for target in list_targets() if target.memory_gb is None}
    assert unknown == {"igx-orin", "jetson-thor-t4000", "igx-thor", "rtx", "b200"}
    record = get_target("rtx-30").model_dump()
    with pytest.raises(ValidationError, match="memory_gb and its source go together"):
        Target.model_validate({**record, "sources": {**record["sources"], "memory": None}})


def test_rtx_targets_and_only_they_are_built_anywhere() -> None:
    for target in list_targets():
        ahead_of_time = target.name.startswith("rtx") or target.name.endswith("-rtx")
        assert (target.built == "anywhere") == ahead_of_time, target.name
        assert (target.flavour == "tensorrt_rtx") == ahead_of_time, target.name


def test_figures_are_dense_and_consistent() -> None:
    for target in list_targets():
        fp16, int8 = target.peaks.fp16_tflops, target.peaks.int8_tops
        assert (fp16 is None) == (int8 is None), target.name
        if fp16 and int8:
            # Twice FP16 on data-centre and Jetson tensor cores, four times FP16 with FP32 accumulation on GeForce.
            ratio = 4 if target.name.startswith("rtx-") else 2
            assert int8.value / fp16.value == pytest.approx(ratio, rel=0.01), target.name
    assert get_target("jetson-agx-orin").peaks.fp16_tflops == targets.Figure(
        value=42.6,
        source="Jetson AGX Orin 64GB: 16 SMs at 1.3 GHz, 2048 dense operations a clock and SM "
        "(NVIDIA Jetson AGX Orin technical brief: 170 sparse INT8 TOPS)",
    )


def test_unknown_target_names_close_ones_and_all() -> None:
    with raises("EF603", "'rtx40'", "mean rtx-40", *(target.name for target in targets.list_targets()), "local"):
        get_target("rtx40")
    with raises("EF603", "'zzz'") as caught:
        get_target("zzz")
    assert "mean" not in str(caught.value)


def test_compute_capability_as_nvidia_writes_it() -> None:
    assert get_target("jetson-thor").compute_capability == "11.0"
    assert get_target("rtx-30").compute_capability == "8.6"


def test_local_without_a_gpu_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, NO_GPU)
    with raises("EF604", "'local'", "no NVIDIA driver (test)", "jetson-orin-nano"):
        get_target("local")


def test_local_takes_the_gpu_and_the_flavour_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, RTX_4090, tensorrt_rtx="1.7.1")
    local = get_target("local")
    assert (local.sm, local.flavour, local.built, local.description) == (89, "tensorrt_rtx", "anywhere", "RTX 4090")
    assert local.memory_gb == 25.3
    machine(monkeypatch, RTX_4090, tensorrt_rtx="1.7.1", tensorrt="10.14.1")
    assert (get_target("local").flavour, get_target("local").built) == ("tensorrt", "on-device")
    # TensorRT-RTX does not serve this GPU.
    machine(monkeypatch, ORIN, tensorrt_rtx="1.7.1")
    assert get_target("local").flavour == "tensorrt"


def test_local_on_an_unknown_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, RTX_4090, tensorrt_rtx="1.7.1")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with raises("EF604", "'riscv64'", "x86_64", "aarch64"):
        get_target("local")


def test_rtx_target_needs_the_package_only(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, NO_GPU, tensorrt_rtx="1.7.1")
    assert can_build(get_target("rtx-40"))
    machine(monkeypatch, NO_GPU)
    verdict = can_build(get_target("rtx-40"))
    assert not verdict
    assert verdict.reason == (
        "TensorRT-RTX is not installed; 1.7 or newer, below 2, is needed: pip install 'edgeformer[rtx]'"
    )


@pytest.mark.parametrize("version", ["1.4.0.76", "1.6.1.120", "1.6.9", "2.0"])
def test_version_out_of_range_is_said(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    machine(monkeypatch, NO_GPU, tensorrt_rtx=version)
    reason = can_build(get_target("rtx-40")).reason
    assert reason.startswith(f"TensorRT-RTX {version} is installed in /opt/tensorrt_rtx")
    assert "1.7 or newer, below 2, is needed: pip install" in reason


def test_jetson_is_built_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    orin = get_target("jetson-agx-orin")
    machine(monkeypatch, NO_GPU, tensorrt="10.3.0")
    assert can_build(orin).reason == (
        "an engine for jetson-agx-orin is built on the device itself (SM 87, aarch64), "
        "and this machine has no such GPU: no NVIDIA driver (test)"
    )
    machine(monkeypatch, RTX_4090, tensorrt="10.3.0")
    assert can_build(orin).reason.endswith("this machine has no such GPU: RTX 4090 (SM 89)")
    with raises("EF604", "jetson-agx-orin", "SM 87", "RTX 4090 (SM 89)"):
        can_build(orin, raise_error=True)
    machine(monkeypatch, ORIN, tensorrt="10.3.0")
    assert can_build(orin)
    machine(monkeypatch, ORIN, tensorrt="10.2.0")
    with raises("EF605", "TensorRT 10.2.0 is installed", orin.tensorrt_minimum):
        can_build(orin, raise_error=True)


def test_tensorrt_11_is_for_the_jetsons_that_nvidia_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 11.4.1 on it runs on AGX Orin and Thor (JetPack 7.2.2); Orin Nano and NX stay on 10.x."""
    machine(monkeypatch, ORIN, tensorrt="11.4.1")
    assert can_build(get_target("jetson-agx-orin"))
    assert get_target("jetson-thor").tensorrt_below == "12"
    for name in ("jetson-orin-nano", "jetson-orin-nx"):
        with raises("EF605", "TensorRT 11.4.1 is installed", "10.3 or newer, below 11"):
            can_build(get_target(name), raise_error=True)
    machine(monkeypatch, ORIN, tensorrt="10.16.1")
    assert can_build(get_target("jetson-orin-nano"))


def test_schema_refuses_what_it_does_not_know() -> None:
    record = get_target("rtx-30").model_dump()
    with pytest.raises(ValidationError, match="colour"):
        Target.model_validate({**record, "colour": "green"})
    with pytest.raises(ValidationError, match="tensorrt_minimum must be below"):
        Target.model_validate({**record, "tensorrt_minimum": "2"})
    for sms in ((86, 80), (80, 86), (86, 86), ()):
        with pytest.raises(ValidationError, match="ascending and begin with sm"):
            Target.model_validate({**record, "sms": sms})
    with pytest.raises(ValidationError, match="on the device is for one SM"):
        Target.model_validate({**get_target("a100").model_dump(), "sms": (80, 86)})
    with pytest.raises(ValidationError, match="source"):
        Target.model_validate({**record, "peaks": {**record["peaks"], "int8_tops": {"value": 1.0}}})
