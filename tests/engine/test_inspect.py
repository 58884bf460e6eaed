from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.artifacts import sha256_of_bytes
from edgeformer.engine.builder import BatchProfile, EngineBuild, build_engine, write_engine
from edgeformer.engine.inspect import inspect_engine
from edgeformer.engine.targets import get_target
from tests.raising import raises

from .conftest import linear_model


@pytest.fixture(scope="module")
def build() -> EngineBuild:
    return build_engine(linear_model(), target=get_target("rtx-40"), batch=BatchProfile.parse("1:2:4"))


def test_engine_with_its_report(build: EngineBuild, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    write_engine(build, path)
    facts = inspect_engine(path)
    assert facts.report == build.report
    assert facts.tensorrt_version == build.report.tensorrt_version
    assert (facts.flavour, facts.notes) == ("tensorrt_rtx", ())


def test_header_alone_gives_the_version(build: EngineBuild) -> None:
    facts = inspect_engine(build.serialized)
    assert facts.size_bytes == len(build.serialized)
    assert facts.sha256 == sha256_of_bytes(build.serialized)
    assert facts.tensorrt_version is not None
    assert build.report.tensorrt_version.startswith(facts.tensorrt_version + ".")
    assert (facts.flavour, facts.report) == ("tensorrt_rtx", None)


def test_engine_without_a_report_says_so(build: EngineBuild, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(build.serialized)
    facts = inspect_engine(tmp_path / "model.engine")
    assert facts.report is None
    assert facts.notes == ("there is no report model.engine.json beside it, so its layers and shapes are not known",)


def test_report_of_another_engine_is_not_believed(build: EngineBuild, tmp_path: Path) -> None:
    write_engine(build, tmp_path / "a")
    (tmp_path / "a").write_bytes(b"another engine, of some other TensorRT")
    facts = inspect_engine(tmp_path / "a")
    assert (facts.report, facts.flavour, facts.tensorrt_version) == (None, None, None)
    assert facts.notes == (
        "the report a.json beside it is of another engine",
        "the header is of an unknown kind, so it was not interpreted",
    )


def test_damaged_report_is_said(build: EngineBuild, tmp_path: Path) -> None:
    write_engine(build, tmp_path / "a")
    (tmp_path / "a.json").write_text("{")
    assert inspect_engine(tmp_path / "a").notes == ("a.json beside it is not the report of an engine build",)


@pytest.mark.parametrize("length", [4, 20, 31, 1000, -1])
def test_truncated_engine_is_damaged(build: EngineBuild, length: int) -> None:
    cut = build.serialized[:length]
    with raises("EF630", f"{len(cut)} bytes"):
        inspect_engine(cut)


def test_engine_with_more_behind_it_is_damaged(build: EngineBuild) -> None:
    with raises("EF630", f"{len(build.serialized) + 1} bytes", len(build.serialized)):
        inspect_engine(build.serialized + b"\0")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with raises("EF102", tmp_path / "gone", "No such file"):
        inspect_engine(tmp_path / "gone")
    with raises("EF630", "empty"):
        inspect_engine(b"")
