"""The manifest: its JSON schema and the example of one are held to the code, and another version is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from edgeformer.bundle import Manifest, StageRecord, manifest_schema, open_bundle, read_manifest
from edgeformer.bundle.details import (
    Details,
    EngineDetails,
    FiguresDetails,
    ParityDetails,
    PluginComparisonDetails,
)
from tests.raising import raises

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = DOCS / "manifest.schema.json"
EXAMPLE = DOCS / "manifest.example.json"


def test_the_committed_schema_is_the_codes() -> None:
    """Made by: edgeformer inspect --schema > docs/manifest.schema.json."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == manifest_schema()


def test_the_command_line_prints_it() -> None:
    words = [sys.executable, "-m", "edgeformer", "inspect"]
    printed = subprocess.run([*words, "--schema"], capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == manifest_schema()
    for more in (["--schema", "."], ["--schema", "--compare"], []):
        refused = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error EF104" if more else "error EF103")


def test_the_committed_example_is_read_as_it_is_written() -> None:
    """An INT8 build of the shipped checkpoint; every kind of details that such a build has is in it."""
    text = EXAMPLE.read_text(encoding="utf-8")
    manifest = Manifest.model_validate_json(text)
    assert json.loads(manifest.model_dump_json()) == json.loads(text)
    assert [stage.name for stage in manifest.stages] == [
        "export",
        "fuse",
        "quantize",
        "parity",
        "engine",
        "engine-parity",
        "plugin-comparison",
    ]
    parity, engine = manifest.details(ParityDetails), manifest.details(EngineDetails)
    assert parity is not None
    assert [form.name for form in parity.report.forms] == ["exported", "fused", "fp16", "typed"]
    assert engine is not None
    assert engine.report is not None
    assert engine.report.plugin.in_network == 4
    assert manifest.details(PluginComparisonDetails) is not None
    assert set(manifest.accuracy) == {"fp32", "fp16", "int8"}


def test_details_are_told_apart_by_their_stage() -> None:
    (own, figures), *_ = map(get_args, get_args(Details)[:1])
    stages = [kind.model_fields["stage"].default for kind in get_args(get_args(own)[0])]
    assert len(set(stages)) == len(stages) == 11
    assert figures is FiguresDetails
    with pytest.raises(ValidationError, match="stage 'fuse' has the details of stage 'engine'"):
        StageRecord(name="fuse", key="", seconds=0, details=EngineDetails())
    with pytest.raises(ValidationError, match="Input tag 'energy' found using 'stage' does not match"):
        StageRecord.model_validate({"name": "energy", "key": "", "seconds": 0, "details": {"stage": "energy"}})


def test_a_new_stage_has_figures_without_a_record_of_its_own() -> None:
    figures = {"latency_p99_ms": 1.25, "slowest_ms": float("inf")}
    record = StageRecord(name="energy", key="", seconds=0, details=FiguresDetails(stage="energy", figures=figures))
    assert StageRecord.model_validate_json(record.model_dump_json()) == record
    faults = [("energy", {"p99_ms": "fast"}, "valid number"), ("energy", None, "valid dictionary")]
    for stage, found, fault in (*faults, ("fuse", figures, "'fuse' has details of another form")):
        details = {"stage": stage, "figures": found}
        with pytest.raises(ValidationError, match=fault):
            StageRecord.model_validate({"name": stage, "key": "", "seconds": 0, "details": details})


@pytest.mark.parametrize("version", [1, 2, 4])
def test_another_version_is_refused_in_one_sentence(tmp_path: Path, version: int) -> None:
    document: dict[str, Any] = {"schema_version": version, "edgeformer": "0.1.0", "stages": [{"details": {"a": 1}}]}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    for read in (read_manifest, open_bundle):
        with raises("EF703", version, "0.1.0", "version 3", "build the bundle again") as refused:
            read(tmp_path)
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema_version": "3"}', '{"schema_version": 3}', "[" * 5000]
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with raises("EF702", tmp_path / "manifest.json", "build it again"):
        read_manifest(tmp_path)
