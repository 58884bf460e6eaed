"""A stage that is written into a finished bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer import artifacts
from edgeformer.bundle import StageRecord, open_bundle, read_manifest
from edgeformer.bundle import amending as module
from edgeformer.bundle.amending import is_signed, record_stage
from edgeformer.bundle.details import FiguresDetails
from edgeformer.bundle.signature import check_signature, sign_bundle
from tests.bundle.test_publish import _publish
from tests.bundle.test_signature import public_of, write_keys
from tests.raising import raises


def stage(value: float, name: str = "timing") -> StageRecord:
    details = FiguresDetails(stage=name, figures={"latency_ms": value})
    return StageRecord(name=name, key="0", seconds=1.0, details=details)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    _publish(tmp_path / "bundle", "one")
    return tmp_path / "bundle"


def test_all_else_stays_as_it_was(bundle: Path) -> None:
    before = open_bundle(bundle)
    others = {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != "manifest.json"}
    record_stage(bundle, stage(1.0))
    record_stage(bundle, stage(2.0, "other"))
    record_stage(bundle, stage(3.0))
    after = open_bundle(bundle)
    assert [one.name for one in after.stages] == [*(one.name for one in before.stages), "other", "timing"]
    assert after.stage("timing") == stage(3.0)
    assert after.model_copy(update={"stages": before.stages}) == before
    assert {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != "manifest.json"} == others


def test_a_link_to_a_bundle_stays(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(bundle)
    record_stage(link, stage(1.0))
    assert link.is_symlink()
    assert read_manifest(bundle).stage("timing") is not None


def test_a_signed_bundle_is_left_alone_without_its_key(bundle: Path, tmp_path: Path) -> None:
    key = write_keys(tmp_path)
    assert not is_signed(bundle)
    sign_bundle(bundle, key)
    assert is_signed(bundle)
    before = (bundle / "manifest.json").read_bytes()
    with raises("EF917", bundle, "--sign"):
        record_stage(bundle, stage(1.0))
    assert (bundle / "manifest.json").read_bytes() == before
    check_signature(bundle, public_of(key))


def test_a_signed_bundle_is_signed_again(bundle: Path, tmp_path: Path) -> None:
    key = write_keys(tmp_path)
    sign_bundle(bundle, key)
    record_stage(bundle, stage(1.0), key=key)
    check_signature(bundle, public_of(key))
    assert open_bundle(bundle).stage("timing") == stage(1.0)
    with raises("EF772"):
        record_stage(bundle, stage(2.0), key=public_of(key))
    check_signature(bundle, public_of(key))


@pytest.mark.parametrize("fails_at", [0, 1])
def test_what_a_crash_leaves_is_signed_as_it_is_or_not_signed(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    key = write_keys(tmp_path)
    sign_bundle(bundle, key)
    real, calls = artifacts.write_bytes, iter(range(2))

    def write_bytes(path: Path, data: bytes) -> None:
        if next(calls) == fails_at:
            raise OSError("the disk is full")
        real(path, data)

    monkeypatch.setattr(module, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="full"):
        record_stage(bundle, stage(1.0), key=key)
    assert not is_signed(bundle)
    open_bundle(bundle)
    sign_bundle(bundle, key)
    check_signature(bundle, public_of(key))


def test_a_stage_with_files_is_for_a_build(bundle: Path) -> None:
    with pytest.raises(ValueError, match="files"):
        record_stage(bundle, StageRecord(name="a", key="0", seconds=0.0, files=["fused.onnx"]))


def test_no_bundle(tmp_path: Path) -> None:
    with raises("EF701", tmp_path / "none"):
        record_stage(tmp_path / "none", stage(1.0))
