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
from edgeformer.ops.library_files import LIBRARY_NAME, RTX_ALIAS_NAME
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
    assert engine_code(engine, None, trust_bundle=True) == EngineCode(engine.read_bytes(), False, None, None)


def test_a_signature_is_such_a_word(tmp_path: Path) -> None:
    engine, key = make_bundle(tmp_path / "bundle"), write_keys(tmp_path)
    with raises("EF774", tmp_path / "bundle"):
        engine_code(engine, None, key=public_of(key))
    sign_bundle(tmp_path / "bundle", key)
    library = engine.with_name(LIBRARY_NAME)
    expected = EngineCode(engine.read_bytes(), False, library, None)
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
    assert engine_code(engine, library) == EngineCode(b"engine", False, library, None)
    assert engine_code(engine, None, embedded_plugin=True).host_code is True
    with raises("EF774", engine):
        engine_code(engine, None, key=public_of(write_keys(tmp_path)))


def test_the_same_library_is_opened_where_it_is_installed(tmp_path: Path, installed: Path) -> None:
    """Without trust: nothing of the bundle is opened."""
    make_bundle(tmp_path / "bundle", listed=(LIBRARY_NAME, RTX_ALIAS_NAME))
    library = tmp_path / "bundle" / LIBRARY_NAME
    installed.write_bytes(library.read_bytes())
    assert library_to_open(library) == (installed, None)
    alias = installed.with_name(RTX_ALIAS_NAME)
    alias.touch()
    assert library_to_open(library) == (installed, alias)


def test_another_library_of_a_bundle_needs_a_word(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    library = tmp_path / "bundle" / LIBRARY_NAME
    with raises("EF671", library):
        library_to_open(library)
    assert library_to_open(library, trust_bundle=True) == (library, None)
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


@pytest.mark.parametrize("listed", [False, True])
def test_the_helper_library_of_a_bundle_has_to_be_listed(tmp_path: Path, listed: bool, installed: Path) -> None:
    make_bundle(tmp_path / "bundle", listed=(LIBRARY_NAME, *([RTX_ALIAS_NAME] if listed else [])))
    library = tmp_path / "bundle" / LIBRARY_NAME
    alias = library.with_name(RTX_ALIAS_NAME)
    if not listed:
        alias.write_bytes(b"put there")
    assert library_to_open(library, trust_bundle=True) == (library, alias if listed else None)
    alias.write_bytes(b"changed")
    if listed:
        with raises("EF704", alias):
            library_to_open(library, trust_bundle=True)
    own = installed.with_name(RTX_ALIAS_NAME)
    own.touch()
    assert library_to_open(library, trust_bundle=True) == (library, own)


REGISTERING = "libedgeformer_register_tensorrt_rtx.so"


def test_a_registering_library_is_opened_where_it_is_installed(tmp_path: Path, installed: Path) -> None:
    make_bundle(tmp_path / "bundle", listed=(REGISTERING,))
    library = tmp_path / "bundle" / REGISTERING
    with raises("EF671", library):
        library_to_open(library)
    own = installed.with_name(REGISTERING)
    own.write_bytes(library.read_bytes())
    assert library_to_open(library) == (own, None)


@pytest.mark.parametrize("beside", [LIBRARY_NAME, RTX_ALIAS_NAME])
def test_what_a_registering_library_opens_beside_it_has_to_be_listed(tmp_path: Path, beside: str) -> None:
    make_bundle(tmp_path / "bundle", listed=(REGISTERING, beside))
    library = tmp_path / "bundle" / REGISTERING
    assert library_to_open(library, trust_bundle=True)[0] == library
    library.with_name(beside).write_bytes(b"changed")
    with raises("EF704", library.with_name(beside)):
        library_to_open(library, trust_bundle=True)
    make_bundle(tmp_path / "unlisted", listed=(REGISTERING,))
    planted = tmp_path / "unlisted" / beside
    planted.write_bytes(b"put there")
    with raises("EF672", planted):
        library_to_open(planted.with_name(REGISTERING), trust_bundle=True)
