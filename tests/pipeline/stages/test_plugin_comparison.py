"""The engine with the plugin and the one without, side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeformer.bundle import Manifest, read_manifest
from edgeformer.engine import builder
from edgeformer.engine.builder import BuildFailed, EngineBuild
from edgeformer.pipeline import BuildResult, build
from edgeformer.pipeline.stages import plugin_comparison
from edgeformer.pipeline.stages.plugin_comparison import compare_bundle, recorded_comparison
from edgeformer.records.engine import EngineFigures, PluginComparison
from tests.pipeline.conftest import engine_report
from tests.raising import raises

NAME = "plugin-comparison"
WITH = EngineFigures(
    parsed_layers=100,
    engine_layers=50,
    activation_bytes=5_000_000,
    weight_bytes=1_000_000,
    engine_bytes=2_000_000,
    build_seconds=1.0,
    peak_host_bytes=300_000_000,
)
WITHOUT = EngineFigures(
    parsed_layers=400,
    engine_layers=90,
    activation_bytes=10_000_000,
    weight_bytes=1_000_000,
    engine_bytes=3_000_000,
    build_seconds=2.5,
    peak_host_bytes=400_000_000,
)


def comparison_of(manifest: Manifest) -> PluginComparison:
    found = recorded_comparison(manifest)
    assert found is not None
    return found


def test_figures_side_by_side() -> None:
    both = PluginComparison(with_plugin=WITH, without_plugin=WITHOUT)
    assert both.summary() == (
        "activations 5.00 MB instead of 10.00 MB (0.50x), parsed layers 100 instead of 400, "
        "built in 1.0 s instead of 2.5 s"
    )
    assert both.rows()[0] == ("parsed layers", "100", "400", "0.25x")
    assert both.rows()[2] == ("activation memory", "5.00 MB", "10.00 MB", "0.50x")
    assert PluginComparison.model_validate_json(both.model_dump_json()) == both


def test_what_the_builder_does_not_say_is_no_figure() -> None:
    silent = WITH.model_copy(update={"engine_layers": None, "activation_bytes": None})
    both = PluginComparison(with_plugin=silent, without_plugin=WITHOUT)
    assert both.summary().startswith("activations not said instead of 10.00 MB, parsed layers")
    assert both.rows()[1] == ("engine layers", "not said", "90", "")
    assert both.ratio("activation_bytes") is None


def test_a_build_records_both_sides(fp16_bundle: BuildResult) -> None:
    both = comparison_of(fp16_bundle.manifest)
    engine, stage = fp16_bundle.manifest.stage("engine"), fp16_bundle.manifest.stage(NAME)
    assert engine is not None
    assert stage is not None
    assert both.with_plugin.activation_bytes == engine_report(fp16_bundle).activation_bytes
    assert both.with_plugin.engine_bytes == fp16_bundle.manifest.files["model.engine"].size
    # The op's body is some hundred layers, a plugin one.
    assert both.with_plugin.parsed_layers < both.without_plugin.parsed_layers / 2
    # The weights are the same but for constants of the body.
    assert both.with_plugin.weight_bytes == pytest.approx(both.without_plugin.weight_bytes, rel=0.01)
    assert None not in (both.with_plugin.activation_bytes, both.without_plugin.activation_bytes)
    assert stage.note == both.summary()


def test_a_build_can_leave_it_out_and_inspect_make_it_up(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    result = build(nano_onnx, output=bundle, target="rtx-30", use_plugin=False, compare_plugin=False, max_aux_streams=0)
    assert result.manifest.stage(NAME) is None
    before = read_manifest(bundle)
    asked = []

    build_engine = builder.build_engine

    def watched(*arguments: Any, **options: Any) -> EngineBuild:
        asked.append(options)
        return build_engine(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builder, "build_engine", watched)
        both = compare_bundle(bundle, before)
    # Within the limits of the engine that is there.
    assert [(options["max_aux_streams"], options["workspace_bytes"]) for options in asked] == [(0, None)]
    engine = result.manifest.stage("engine")
    assert engine is not None
    # This engine is the one without: the plugin is in the other.
    assert both.without_plugin.parsed_layers == engine_report(result).parsed_layers
    assert both.with_plugin.parsed_layers < both.without_plugin.parsed_layers / 2
    assert read_manifest(bundle) == before


def test_the_other_sides_failure_is_no_fault_of_the_build(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BuildFailed("EF625", "no tactic\n  and more")

    monkeypatch.setattr(plugin_comparison, "compare_plugin", fail)
    result = build(nano_onnx, output=tmp_path / "bundle", target="rtx-30")
    stage = result.manifest.stage(NAME)
    assert stage is not None
    assert (stage.verdict, stage.note) == ("not run", "the other engine was not built: no tactic")
    assert recorded_comparison(result.manifest) is None
    assert "model.engine" in result.manifest.files


def test_a_bundle_without_an_engine_has_nothing_to_compare(nano_onnx: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    result = build(nano_onnx, output=bundle, target="jetson-agx-orin")
    assert result.manifest.stage(NAME) is None
    with raises("EF707", bundle):
        compare_bundle(bundle, result.manifest)


def inspect(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeformer", "inspect", *words], capture_output=True, text=True, check=False
    )


def test_inspect_prints_both_sides(fp16_bundle: BuildResult) -> None:
    printed = inspect(str(fp16_bundle.path))
    assert printed.returncode == 0, printed.stderr
    lines = {line.split("  ")[0].strip(): line.split() for line in printed.stdout.splitlines()}
    both = comparison_of(fp16_bundle.manifest)
    assert lines["engine"][-4:] == ["with", "plugin", "without", "ratio"]
    assert lines["parsed layers"][2:4] == [str(both.with_plugin.parsed_layers), str(both.without_plugin.parsed_layers)]
    assert f"{(both.without_plugin.activation_bytes or 0) / 1e6:.2f}" in lines["activation memory"]

    document = json.loads(inspect(str(fp16_bundle.path), "--json").stdout)
    ratio = document["plugin_comparison"].pop("activation_ratio")
    assert ratio == both.ratio("activation_bytes")
    assert document["plugin_comparison"] == both.model_dump(mode="json")


def test_comparing_takes_a_bundle(fp16_bundle: BuildResult) -> None:
    printed = inspect(str(fp16_bundle.path / "model.engine"), "--compare")
    assert printed.returncode == 2
    assert "--compare builds from a bundle's graph" in printed.stderr
