"""A Jetson's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.latency.tegra import TegraSensors, power_mode


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    """The files of an AGX Orin, as far as they are read."""
    root = tmp_path / "jetson"
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.4",
        "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
        "sys/class/devfreq/17000000.gpu/cur_freq": "1300500000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": "48000",
        "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
        "sys/class/thermal/thermal_zone1/temp": "51250",
        "sys/class/hwmon/hwmon1/oc1_event_cnt": "0",
        "sys/class/hwmon/hwmon1/oc3_event_cnt": "2",
        "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC",
        "sys/class/hwmon/hwmon3/in1_input": "5000",
        "sys/class/hwmon/hwmon3/curr1_input": "1000",
        "sys/class/hwmon/hwmon4/in2_label": "VIN_SYS_5V0",
        "sys/class/hwmon/hwmon4/in2_input": "5000",
        "sys/class/hwmon/hwmon4/curr2_input": "4000",
        "var/lib/nvpmodel/status": "pmode:0003 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MODE_50W >\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_files_of_a_jetson(jetson: Path) -> None:
    now = 0.0
    sensors = TegraSensors.find(jetson, lambda: now)
    assert sensors is not None
    assert (sensors.clock_mhz(), sensors.temperature_c()) == (1300.5, 51.25)
    assert sensors.energy_source == "INA3221, rail VIN_SYS_5V0"
    assert sensors.joules() == 0.0
    now = 2.0
    assert sensors.joules() == 40.0  # 20 W
    (jetson / "sys/class/hwmon/hwmon4/curr2_input").write_text("8000")
    now = 3.0
    assert sensors.joules() == 70.0  # 20 W to 40 W


def test_over_current_is_throttling(jetson: Path) -> None:
    sensors = TegraSensors.find(jetson)
    assert sensors is not None
    assert sensors.throttled() == ()
    (jetson / "sys/class/hwmon/hwmon1/oc1_event_cnt").write_text("1")
    assert sensors.throttled() == ("over-current",)
    assert sensors.throttled() == ()


def test_the_rail_of_the_whole_module_goes_first(jetson: Path) -> None:
    (jetson / "sys/class/hwmon/hwmon3/in1_label").write_text("VDD_IN\n")
    sensors = TegraSensors.find(jetson)
    assert sensors is not None
    assert sensors.energy_source == "INA3221, rail VDD_IN"


def test_a_jetson_without_a_power_monitor(jetson: Path) -> None:
    for label in jetson.rglob("in*_label"):
        label.unlink()
    (jetson / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("no number")
    sensors = TegraSensors.find(jetson)
    assert sensors is not None
    assert (sensors.joules(), sensors.energy_source, sensors.clock_mhz()) == (None, "", None)


def test_other_machines_have_none(tmp_path: Path) -> None:
    assert TegraSensors.find(tmp_path) is None
    assert power_mode(tmp_path) is None
    tree = tmp_path / "proc/device-tree/compatible"
    tree.parent.mkdir(parents=True)
    tree.write_bytes(b"nvidia,p3768\0nvidia,tegra234\0")
    assert TegraSensors.find(tmp_path) is not None


def test_the_power_mode(jetson: Path) -> None:
    assert power_mode(jetson) == "MODE_50W"
    (jetson / "var/lib/nvpmodel/status").write_text("pmode:0007\n")
    assert power_mode(jetson) == "7"
    (jetson / "var/lib/nvpmodel/status").write_text("pmode:0000\n")
    assert power_mode(jetson) == "MAXN"
