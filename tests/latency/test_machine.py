"""What the machine tells while a model runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.latency.machine import CpuSensors, StateMeter, describe_machine, sensors_for
from edgeformer.latency.tegra import TegraSensors
from edgeformer.version import __version__
from tests.latency.doubles import Machine, SensorsDouble
from tests.latency.test_tegra import jetson as jetson


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_processors_files(tmp_path: Path) -> None:
    cpu = tmp_path / "sys/devices/system/cpu"
    for index, kilohertz in enumerate((2_000_000, 3_000_000)):
        write(cpu / f"cpu{index}/cpufreq/scaling_cur_freq", f"{kilohertz}\n")
    zones = tmp_path / "sys/class/thermal"
    write(zones / "thermal_zone0/type", "acpitz\n")
    write(zones / "thermal_zone0/temp", "20000\n")
    write(zones / "thermal_zone1/type", "x86_pkg_temp\n")
    write(zones / "thermal_zone1/temp", "61500\n")
    sensors = CpuSensors(tmp_path)
    assert (sensors.clock_mhz(), sensors.temperature_c()) == (2500.0, 61.5)
    assert (sensors.throttled(), sensors.joules()) == ((), None)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    sensors = CpuSensors(tmp_path)
    assert (sensors.clock_mhz(), sensors.temperature_c()) == (None, None)
    meter = StateMeter(sensors)
    meter.begin(lambda: 0.0)
    meter.between()
    meter.end(3)
    found = meter.figures()
    assert (found.clock_mhz, found.temperature_c, found.throttled, found.energy) == (None, None, (), None)


def test_energy_of_a_models_own_blocks() -> None:
    machine = Machine()
    sensors = SensorsDouble(1500, 40, ("heat",), joules=lambda: 10 * machine.now)
    meter = StateMeter(sensors)
    for _ in range(3):
        machine.now += 100  # others' blocks
        meter.begin(machine.clock)
        machine.now += 2
        meter.between()
        meter.end(5)
    found = meter.figures()
    assert found.energy is not None
    assert found.energy.joules_per_image == pytest.approx(60 / 15)
    assert found.energy.watts == pytest.approx(10)
    assert found.energy.source == "double"
    assert sensors.asked == 6
    assert found.clock_mhz is not None
    assert (found.clock_mhz.least, found.clock_mhz.mean, found.clock_mhz.greatest) == (1500, 1500, 1500)
    assert found.throttled == ("heat",)


def test_power_of_the_moment_is_read_while_the_model_runs() -> None:
    machine = Machine()
    sensors = SensorsDouble(joules=lambda: machine.now, polled=True)
    meter = StateMeter(sensors)
    meter.begin(machine.clock)
    for _ in range(100):
        machine.now += 0.005
        meter.between()
    meter.end(100)
    # Every 20 ms, and at both ends.
    assert sensors.asked == pytest.approx(0.5 / 0.02 + 2, abs=1)


def test_which_sensors_there_are(tmp_path: Path, jetson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(sensors_for(None, jetson)[0], CpuSensors)
    assert isinstance(sensors_for("0000:01:00.0", jetson)[0], TegraSensors)
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    sensors, why = sensors_for("0000:01:00.0", tmp_path)
    assert isinstance(sensors, CpuSensors)
    assert "pip install 'edgeformer[bench]'" in why


def test_what_the_machine_is() -> None:
    found = describe_machine({"onnxruntime": "1.2.3"}, "RTX 9", "600.1")
    assert found.versions["edgeformer"] == __version__
    assert found.versions["onnxruntime"] == "1.2.3"
    assert {"python", "numpy"} < set(found.versions)
    assert (found.gpu, found.driver) == ("RTX 9", "600.1")
    assert found.cores >= 1
    assert found.processor
