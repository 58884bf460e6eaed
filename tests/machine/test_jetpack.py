"""The table of JetPacks, and which of them a machine has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeformer.machine import jetpack
from edgeformer.machine.jetpack import find_release, list_jetpacks, lowest_tensorrt, tensorrt_without_jetpack


def release(monkeypatch: pytest.MonkeyPatch, path: Path, text: str | None) -> None:
    """Make this machine have this /etc/nv_tegra_release."""
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(jetpack, "_RELEASE_FILE", path)


def test_the_table_is_whole() -> None:
    document = json.loads(Path(jetpack.__file__).with_name("jetpack.json").read_text())
    assert set(document) == {"schema_version", "l4t_source", "jetpacks", "tensorrt_without_jetpack"}
    assert document["l4t_source"]
    assert document["tensorrt_without_jetpack"]["source"]
    known = [l4t for one in list_jetpacks() for l4t in one.l4t]
    assert len(set(known)) == len(known)
    for one in list_jetpacks():
        assert one.source
        assert one.l4t
        assert set(one.sms) <= {87, 110}
    # Oldest first.
    assert known == sorted(known, key=lambda l4t: [int(part) for part in l4t.split(".")])


def test_what_each_jetpack_brings() -> None:
    brings = {one.name: (one.tensorrt, one.cuda, one.python, one.sms) for one in list_jetpacks()}
    for name in ("6.1", "6.2", "6.2.1", "6.2.2", "6.2.3"):
        assert brings[name] == ("10.3", "12.6", "3.10", (87,))
    for name in ("7.0", "7.1"):
        assert brings[name] == ("10.13", "13.0", "3.12", (110,))
    assert brings["7.2"] == ("10.16", "13.2", "3.12", (87, 110))
    assert brings["7.2.2"] == ("11.4.1", None, None, (87, 110))
    assert list_jetpacks()[0].contents == "TensorRT 10.3, CUDA 12.6, Python 3.10"
    unknown = next(one for one in list_jetpacks() if one.name == "7.2.1")
    assert unknown.contents == "versions not known"


def test_no_jetpack_brings_what_is_listed_as_without() -> None:
    brought = {".".join(one.tensorrt.split(".")[:2]) for one in list_jetpacks() if one.tensorrt}
    assert tensorrt_without_jetpack() == ("11.0", "11.1", "11.2", "11.3", "11.5")
    assert brought.isdisjoint(tensorrt_without_jetpack())


def test_the_lowest_tensorrt_of_a_module() -> None:
    assert (lowest_tensorrt(), lowest_tensorrt(87), lowest_tensorrt(110)) == ("10.3", "10.3", "10.13")
    with pytest.raises(LookupError, match="SM 72"):
        lowest_tensorrt(72)


def test_another_machine_is_no_jetson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release(monkeypatch, tmp_path / "none", None)
    assert find_release() is None


@pytest.mark.parametrize(
    ("text", "l4t", "name", "too_old"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3", "6.2", False),
        ("# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic\n# KERNEL_VARIANT: oot\n", "36.4.7", "6.2.1", False),
        ("# R38 (release), REVISION: 2.0, GCID: 1, BOARD: generic", "38.2.0", "7.0", False),
        ("# R39 (release), REVISION: 2.2, GCID: 1", "39.2.2", "7.2.2", False),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "36.3.0", None, True),
        ("# R35 (release), REVISION: 6.4, GCID: 1", "35.6.4", None, True),
        ("# R36 (release), REVISION: 4.10, GCID: 1", "36.4.10", None, False),
        ("# R40 (release), REVISION: 1.0, GCID: 1", "40.1.0", None, False),
        ("", "", None, False),
        ("something else", "", None, False),
    ],
)
def test_the_release_of_a_jetson(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, l4t: str, name: str | None, too_old: bool
) -> None:
    release(monkeypatch, tmp_path / "nv_tegra_release", text)
    found = find_release()
    assert found is not None
    assert (found.l4t, found.jetpack and found.jetpack.name, found.too_old) == (l4t, name, too_old)


def test_a_release_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release(monkeypatch, tmp_path, None)  # a folder
    found = find_release()
    assert found is not None
    assert (found.l4t, found.jetpack, found.too_old) == ("", None, False)
