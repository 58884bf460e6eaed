"""What of a bundle may run: nothing without trust, and of what lies beside its files only what its manifest lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import StageRecord, staging
from edgeformer.bundle.details import EngineDetails
from edgeformer.bundle.files import ENGINE
from edgeformer.bundle.signature import sign_bundle
from edgeformer.machine import engine_code as module
from edgeformer.machine.engine_code import EngineCode, engine_code, library_to_open
from edgeformer.ops.library_files import LIBRARY_NAME
from edgeformer.records.engine import EngineReport, PluginEvidence
from tests.bundle.test_publish import make_manifest
from tests.bundle.test_signature import public_of, write_keys
from tests.raising import raises


def report(engine_sha256: str, embedded: bool) -> EngineReport:
    return EngineReport(
        tensorrt_version="1.7",
        parsed_layers=1,
        engine_layers=1,
        plugin=PluginEvidence(in_network=1, in_engine=1, source="test"),
        activation_bytes=None,
        weight_bytes=None,
        build_seconds=1.0,
        tensors=(),
        warnings=(),
        flavour="tensorrt_rtx",
        target="rtx-40",
        sm=89,
        engine_sha256=engine_sha256,
        engine_bytes=6,
        op_nodes=1,
        plugin_version="0.1.0",
        plugin_embedded=embedded,
        peak_host_bytes=1,
        profile={},
    )


def make_bundle(folder: Path, *, embedded: bool = False, listed: tuple[str, ...] = (LIBRARY_NAME,)) -> Path:
    """A bundle with an engine and libraries that are none; gives the engine's path."""
    with staging(folder) as work:
        for name in (ENGINE, *listed):
            (work.path / name).write_bytes(f"bundle's {name}".encode())
        details = EngineDetails(report=report(sha256_of_file(work.path / ENGINE), embedded))
        stage = StageRecord(name="engine", key="k", seconds=1, files=[ENGINE], details=details)
        work.publish(make_manifest(work, [stage]))
    return folder / ENGINE


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed library, which is none either."""
    library = tmp_path / "installed" / LIBRARY_NAME
    library.parent.mkdir()
    library.write_bytes(b"installed")
    monkeypatch.setattr(module, "candidate_paths", lambda: (library,))
    return library


def test_an_engine_of_a_bundle_needs_a_word(tmp_path: Path) -> None:
    engine = make_bundle(tmp_path / "bundle")
    with raises("EF671", engine, "trust_bundle=True", "key="):
        engine_code(engine, None)
    link = tmp_path / "linked.engine"
    link.symlink_to(engine)
    with raises("EF671", link):
        engine_code(link, None)
    assert engine_code(engine, None, trust_bundle=True) == EngineCode(engine.read_bytes(), False, None)


def test_a_signature_is_such_a_word(tmp_path: Path) -> None:
    engine, key = make_bundle(tmp_path / "bundle"), write_keys(tmp_path)
    with raises("EF774", tmp_path / "bundle"):
        engine_code(engine, None, key=public_of(key))
    sign_bundle(tmp_path / "bundle", key)
    library = engine.with_name(LIBRARY_NAME)
    expected = EngineCode(engine.read_bytes(), False, library)
    assert engine_code(engine, library, key=public_of(key)) == expected
    engine.write_bytes(b"another")
    with raises("EF704", engine):
        engine_code(engine, None, key=public_of(key))


@pytest.mark.parametrize("embedded", [False, True])
def test_host_code_is_what_the_manifest_says_was_embedded(tmp_path: Path, embedded: bool) -> None:
    engine = make_bundle(tmp_path / "bundle", embedded=embedded)
    assert engine_code(engine, None, trust_bundle=True).host_code is embedded
    # Of a bundle's engine the manifest decides, not the caller.
    assert engine_code(engine, None, trust_bundle=True, embedded_plugin=True).host_code is embedded


def test_host_code_of_an_engine_that_was_put_into_a_bundle(tmp_path: Path) -> None:
    """As one that was built on the device: the user who trusts the folder runs it, what is embedded in it does not."""
    engine = make_bundle(tmp_path / "bundle", embedded=True)
    other = engine.with_name("other.engine")
    other.write_bytes(b"built here")
    assert engine_code(other, None, trust_bundle=True).host_code is False
    key = write_keys(tmp_path)
    sign_bundle(tmp_path / "bundle", key)
    with raises("EF672", other):
        engine_code(other, None, key=public_of(key))


def test_files_of_no_bundle_are_the_users_word(tmp_path: Path) -> None:
    engine, library = tmp_path / "model.engine", tmp_path / "plugins.so"
    engine.write_bytes(b"engine")
    library.write_bytes(b"library")
    assert engine_code(engine, library) == EngineCode(b"engine", False, library)
    assert engine_code(engine, None, embedded_plugin=True).host_code is True
    with raises("EF774", engine):
        engine_code(engine, None, key=public_of(write_keys(tmp_path)))


def test_the_same_library_is_opened_where_it_is_installed(tmp_path: Path, installed: Path) -> None:
    """Without trust: nothing of the bundle is opened."""
    make_bundle(tmp_path / "bundle")
    library = tmp_path / "bundle" / LIBRARY_NAME
    installed.write_bytes(library.read_bytes())
    assert library_to_open(library) == installed


def test_another_library_of_a_bundle_needs_a_word(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    library = tmp_path / "bundle" / LIBRARY_NAME
    with raises("EF671", library):
        library_to_open(library)
    assert library_to_open(library, trust_bundle=True) == library
    library.write_bytes(b"another")
    with raises("EF704", library):
        library_to_open(library, trust_bundle=True)


@pytest.mark.parametrize("name", [LIBRARY_NAME, "libother.so"])
def test_a_library_that_is_not_listed_is_never_opened(tmp_path: Path, name: str) -> None:
    make_bundle(tmp_path / "bundle", listed=())
    library = tmp_path / "bundle" / name
    library.write_bytes(b"put there")
    with raises("EF672", library):
        library_to_open(library, trust_bundle=True)


REGISTERING = "libedgeformer_register_tensorrt_rtx.so"


def test_a_registering_library_stands_for_the_one_beside_it(tmp_path: Path, installed: Path) -> None:
    """Its own code is never run: what it would open in its folder is held to the rule of the plugin library."""
    make_bundle(tmp_path / "bundle", listed=(REGISTERING, LIBRARY_NAME))
    library = tmp_path / "bundle" / REGISTERING
    with raises("EF671", library.with_name(LIBRARY_NAME)):
        library_to_open(library)
    assert library_to_open(library, trust_bundle=True) == library.with_name(LIBRARY_NAME)
    library.write_bytes(b"changed, and not opened")
    assert library_to_open(library, trust_bundle=True) == library.with_name(LIBRARY_NAME)
    library.with_name(LIBRARY_NAME).write_bytes(b"changed")
    with raises("EF704", LIBRARY_NAME):
        library_to_open(library, trust_bundle=True)
    library.with_name(LIBRARY_NAME).write_bytes(installed.read_bytes())
    assert library_to_open(library) == installed
    library.with_name(LIBRARY_NAME).unlink()
    with raises("EF102", LIBRARY_NAME):
        library_to_open(library, trust_bundle=True)


def test_a_library_that_was_put_beside_a_registering_one_is_never_opened(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", listed=(REGISTERING,))
    (tmp_path / "bundle" / LIBRARY_NAME).write_bytes(b"put there")
    with raises("EF672", LIBRARY_NAME):
        library_to_open(tmp_path / "bundle" / REGISTERING, trust_bundle=True)
