"""The targets of TensorRT-RTX, built for real: one GPU each, several in one engine, and another processor."""

from __future__ import annotations

import pytest

from edgeformer.engine.builder import BatchProfile, build_engine
from edgeformer.engine.targets import Target, get_target
from edgeformer.machine.plugin_library import PluginLibrary
from tests.raising import raises

from .conftest import attention_model

ONE = BatchProfile.parse("1")
RANGE = BatchProfile.parse("1:2:5")


def test_every_rtx_target_builds(plugin_library: PluginLibrary) -> None:
    engines = {
        name: build_engine(attention_model(1), target=get_target(name), batch=ONE).report.sm
        for name in ("rtx-20", "rtx-30", "rtx-40", "rtx-50")
    }
    assert engines == {"rtx-20": 75, "rtx-30": 86, "rtx-40": 89, "rtx-50": 120}


def test_one_engine_for_several_gpus(plugin_library: PluginLibrary) -> None:
    """It holds code for each of them, so it is not the engine of the first."""
    target = get_target("rtx")
    build = build_engine(attention_model(2), target=target, batch=RANGE)
    report = build.report
    assert (report.target, report.sm, report.sms) == ("rtx", 80, (80, 86, 89, 120, 121))
    assert (report.plugin.in_network, report.plugin.in_engine) == (2, 2)
    alone = build_engine(attention_model(2), target=get_target("a100-rtx"), batch=RANGE)
    assert alone.report.sms == (80,)
    assert alone.serialized != build.serialized


def test_every_gpu_of_an_engine_needs_kernels(plugin_library: PluginLibrary, rtx30: Target) -> None:
    with raises("EF613", plugin_library.path, "SM 72"):
        build_engine(attention_model(1), target=rtx30.model_copy(update={"sms": (86, 72)}), batch=ONE)


def test_an_engine_for_another_processor(plugin_library: PluginLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX builds for a DGX Spark here; this machine's plugin library does not go into that engine."""
    spark = get_target("dgx-spark-rtx")
    report = build_engine(attention_model(1), target=spark, batch=ONE).report
    assert (report.sms, report.plugin.in_engine) == ((121,), 1)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with raises("EF831", "dgx-spark-rtx", "aarch64", "x86_64", "--embed-plugin"):
        build_engine(attention_model(1), target=spark, batch=ONE, embed_plugin=True)
