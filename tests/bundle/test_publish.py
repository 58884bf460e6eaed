"""The bundle: published whole, verified by hash, reused stage by stage."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeformer.artifacts import MARKER
from edgeformer.bundle import (
    ApplicationRecord,
    Manifest,
    ModelRecord,
    StageRecord,
    Staging,
    TargetRecord,
    open_bundle,
    read_manifest,
    stage_key,
    staging,
)
from tests.raising import raises


def make_manifest(work: Staging, stages: list[StageRecord]) -> Manifest:
    return Manifest(
        edgeformer="0",
        created="2026-01-01T00:00:00+00:00",
        libraries={},
        model=ModelRecord(source="onnx", name="m"),
        precision="fp32",
        target=TargetRecord(
            name="t",
            description="a machine",
            sm=86,
            cpu="x86_64",
            flavour="tensorrt_rtx",
            tensorrt_minimum="1",
            tensorrt_below="2",
            memory_gb=8,
            built="anywhere",
        ),
        batch=[1, 1, 1],
        inputs=[],
        outputs=[],
        application=ApplicationRecord(task="features", labels=None, image=None),
        stages=stages,
        accuracy={},
        files=work.file_records(),
    )


def _publish(target: Path, content: str, key: str = "k", complete: Callable[[Path], None] | None = None) -> None:
    with staging(target) as work:
        (work.path / "a.txt").write_text(content)
        manifest = make_manifest(work, [StageRecord(name="s", key=key, seconds=1.5, files=["a.txt"])])
        work.publish(manifest, complete=complete)


def test_publish_then_replace(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")
    assert (target / "a.txt").read_text() == "one"
    _publish(target, "two")
    assert (target / "a.txt").read_text() == "two"
    assert open_bundle(target).files["a.txt"].size == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_the_signature_goes_with_the_manifest_that_it_is_of(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")
    (target / "manifest.sig").write_bytes(b"of the older one")
    _publish(target, "two")
    assert not (target / "manifest.sig").exists()


def test_the_page_on_a_manifest_goes_with_it_and_somebodys_page_stays(tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def complete(folder: Path) -> None:
        listed = json.loads((folder / "manifest.json").read_text())["files"]
        (folder / "report.html").write_text(f'<meta name="edgeformer-manifest" content="{"0" * 64}">{[*listed]}')

    for _ in range(2):
        _publish(target, "one", complete=complete)
        assert (target / "report.html").read_text().endswith("['a.txt']")
    _publish(target, "two")
    assert not (target / "report.html").exists()
    (target / "report.html").write_text("mine")
    with raises("EF708", target / "report.html"):
        _publish(target, "three")
    assert [(target / name).read_text() for name in ("a.txt", "report.html")] == ["two", "mine"]


def test_replacing_without_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without renameat2: two renames, and the same result."""
    target = tmp_path / "bundle"
    _publish(target, "one")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    _publish(target, "two")
    assert (target / "a.txt").read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    """Without renameat2 there is a moment in which the older bundle stands aside; the next build puts it back."""
    target = tmp_path / "bundle"
    aside = tmp_path / ".bundle.staging-abcd_123.older"
    _publish(target, "one", key="k1")
    target.rename(aside)
    with staging(target) as work:
        assert (target / "a.txt").read_text() == "one"
        assert work.reusable("s", "k1") is not None
    shutil.copytree(target, aside)
    _publish(target, "two")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_link_to_the_bundle_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    _publish(tmp_path / "link", "one")
    _publish(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "two"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_build_leaves_the_older_bundle(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")

    def fail() -> None:
        with staging(target) as work:
            (work.path / "a.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert open_bundle(target).files["a.txt"].size == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_killed_build_leaves_the_older_bundle_and_is_cleaned_up_later(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from edgeformer.bundle import staging
        with staging(Path(sys.argv[1])) as work:
            (work.path / "a.txt").write_text("half")
            print("ready", flush=True)
            time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    # While it runs, another build leaves its folder alone.
    _publish(target, "two")
    assert len(list(tmp_path.glob(".bundle.staging-*"))) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert open_bundle(target)
    assert (target / "a.txt").read_text() == "two"
    _publish(target, "three")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_stage_is_reused_when_its_key_and_files_match(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one", key="k1")
    with staging(target) as work:
        assert work.reusable("s", "other") is None
        assert work.reusable("absent", "k1") is None
        record = work.reusable("s", "k1")
        assert record is not None
        assert record.reused
        assert record.seconds == 1.5
        assert (work.path / "a.txt").read_text() == "one"
    (target / "a.txt").write_text("tampered")
    with staging(target) as work:
        assert work.reusable("s", "k1") is None
        assert [entry.name for entry in work.path.iterdir()] == [MARKER]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"name": "app", "short_name": "app", "start_url": "/"}',
        '{"schema_version": 1, "edgeformer": "0.1.0"}',
        '{"schema_version": 2, "edgeformer": "0.1.0"}',
        '{"schema_version": 3, "edgeformer": "0.1.0"}',
        "[" * 100_000,
    ],
)
def test_a_folder_with_another_manifest_is_refused(tmp_path: Path, content: str) -> None:
    """A web app, a browser extension, a bundle of another version: nobody can tell what would be lost."""
    target = tmp_path / "app"
    (target / "src").mkdir(parents=True)
    (target / "src" / "precious.txt").write_text("mine")
    (target / "manifest.json").write_text(content)
    with raises("EF705", target), staging(target):
        pass
    assert (target / "src" / "precious.txt").read_text() == "mine"
    assert (target / "manifest.json").read_text() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["app"]


def test_a_manifest_that_is_a_link_is_no_bundles(tmp_path: Path) -> None:
    _publish(tmp_path / "bundle", "one")
    target = tmp_path / "folder"
    target.mkdir()
    (target / "manifest.json").symlink_to(tmp_path / "bundle" / "manifest.json")
    (target / "a.txt").write_text("mine")
    with raises("EF705", target), staging(target):
        pass
    assert (target / "a.txt").read_text() == "mine"


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with raises("EF705", tmp_path), staging(tmp_path):
        pass
    assert (tmp_path / "precious.txt").read_text() == "mine"
    with raises("EF705", tmp_path / "precious.txt"), staging(tmp_path / "precious.txt"):
        pass


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    _publish(tmp_path / "bundle", "one")
    assert open_bundle(tmp_path / "bundle")


def test_a_folder_made_while_the_bundle_was_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with raises("EF705", target), staging(target) as work:
        target.mkdir()
        (target / "precious.txt").write_text("mine")
        work.publish(make_manifest(work, []))
    assert (target / "precious.txt").read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_manifest_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with raises("EF702", tmp_path / "manifest.json"):
        read_manifest(tmp_path)


def test_a_bundle_without_a_mark_is_known_by_its_manifest(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")
    (target / MARKER).unlink()
    _publish(target, "two")
    assert (target / "a.txt").read_text() == "two"


@pytest.mark.parametrize("exchange", [True, False])
def test_what_others_put_into_a_bundle_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    target = tmp_path / "bundle"
    _publish(target, "one")
    (target / "notes.txt").write_text("mine")
    (target / ".hidden").write_text("mine, too")
    (target / "folder" / "empty").mkdir(parents=True)
    (target / "folder" / "deep.bin").write_bytes(b"123")
    (target / "folder" / "deep.bin").chmod(0o600)
    (target / "link").symlink_to("nowhere")
    for content in ("two", "three"):
        _publish(target, content)
        assert (target / "a.txt").read_text() == content
        assert (target / "notes.txt").read_text() == "mine"
        assert (target / ".hidden").read_text() == "mine, too"
        assert (target / "folder" / "empty").is_dir()
        assert (target / "folder" / "deep.bin").read_bytes() == b"123"
        assert (target / "folder" / "deep.bin").stat().st_mode & 0o777 == 0o600
        assert (target / "link").readlink() == Path("nowhere")
        assert list(open_bundle(target).files) == ["a.txt"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_file_of_others_with_a_name_of_the_new_bundle_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with staging(target) as work:
        (work.path / "b.txt").write_text("one")
        work.publish(make_manifest(work, []))
    (target / "a.txt").write_text("mine")
    with raises("EF708", target / "a.txt"):
        _publish(target, "two")
    assert (target / "a.txt").read_text() == "mine"
    assert (target / "b.txt").read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_pipe_in_a_bundle_is_noticed_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")
    (target / "folder").mkdir()
    os.mkfifo(target / "folder" / "pipe")
    with raises("EF708", target / "folder" / "pipe"), staging(target):
        pass
    assert stat.S_ISFIFO((target / "folder" / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    "name",
    [".bundle.previous", ".bundle.staging-abcd1234", ".bundle.staging-abcd1234.older", ".bundle.a.edgeformer-partial"],
)
def test_folders_of_others_with_our_names_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious.txt").write_text("mine")
    _publish(tmp_path / "bundle", "one")
    _publish(tmp_path / "bundle", "two")
    assert (tmp_path / name / "precious.txt").read_text() == "mine"


def test_a_link_loop_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with raises("EF102", tmp_path / "loop"), staging(tmp_path / "loop"):
        pass
    assert (tmp_path / "loop").is_symlink()


def test_the_longest_name_works(tmp_path: Path) -> None:
    target = tmp_path / ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 127)  # 254 bytes
    _publish(target, "one")
    _publish(target, "two")
    assert [entry.name for entry in tmp_path.iterdir()] == [target.name]
    with raises("EF102", "name too long"), staging(tmp_path / ("b" * 256)):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with raises("EF102", tmp_path), staging(tmp_path / "bundle"):
        pass


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises("EF102", tmp_path / "file"), staging(tmp_path / "file" / "bundle"):
        pass


@pytest.mark.parametrize(
    ("damage", "code", "named"),
    [
        (lambda path: (path / "a.txt").unlink(), "EF704", "a.txt: missing"),
        (lambda path: (path / "a.txt").write_text("x"), "EF704", "a.txt: changed"),
        (lambda path: (path / "a.txt").write_text("ONE"), "EF704", "a.txt: changed"),
        (lambda path: (path / "manifest.json").write_text("{}"), "EF702", "manifest.json"),
        (lambda path: (path / "manifest.json").write_text("{"), "EF702", "manifest.json"),
        (lambda path: (path / "manifest.json").unlink(), "EF701", "manifest.json"),
    ],
)
def test_damage_is_found(tmp_path: Path, damage: Callable[[Path], object], code: str, named: str) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")
    damage(target)
    with raises(code, target, named):
        open_bundle(target)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "..", "sub/file"])
def test_manifest_cannot_reach_outside(tmp_path: Path, name: str) -> None:
    target = tmp_path / "bundle"
    _publish(target, "one")
    content = json.loads((target / "manifest.json").read_text())
    content["files"][name] = {"sha256": "0", "size": 0}
    (target / "manifest.json").write_text(json.dumps(content))
    with raises("EF702", name, "plain file name"):
        open_bundle(target)


@pytest.mark.parametrize("name", ["../precious.txt", "{tmp}/precious.txt", "", ".", "..", "a/b", "a\\b", "a\0b"])
def test_a_stages_files_cannot_reach_outside(tmp_path: Path, name: str) -> None:
    """A build takes over and removes the files that an older manifest names: they are plain names."""
    target = tmp_path / "bundle"
    _publish(target, "one", key="k1")
    (tmp_path / "precious.txt").write_text("mine")
    content = json.loads((target / "manifest.json").read_text())
    content["stages"][0]["files"] = [name.format(tmp=tmp_path)]
    (target / "manifest.json").write_text(json.dumps(content))
    with raises("EF705", target), staging(target):
        pass
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_missing_bundle(tmp_path: Path) -> None:
    with raises("EF701", tmp_path / "nothing", "edgeformer build"):
        read_manifest(tmp_path / "nothing")


def test_stage_key_depends_on_every_input() -> None:
    base = stage_key("fuse", model="a", draws=3)
    assert base == stage_key("fuse", draws=3, model="a")
    assert (
        len({base, stage_key("fuse", model="b", draws=3), stage_key("fuse", model="a", draws=4), stage_key("x")}) == 4
    )
    with pytest.raises(TypeError):
        stage_key("fuse", model=object())


def test_missing_folders_are_made_and_go_where_nothing_is_published(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "bundle"

    def fail() -> None:
        with staging(target):
            assert target.parent.is_dir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    _publish(target, "one")
    assert (target / "a.txt").read_text() == "one"
