"""What of an engine's files may run on this machine: the engine, the plugin library in it, the library beside it.

An engine is code, and so is a plugin library. Whoever names one to `edgeformer.runtime.EngineSession` says with it that
the file may run, unless it is part of a bundle: bundles are passed on, so they need a word for it
(`edgeformer.bundle.signature.is_trusted`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeformer.artifacts import sha256_of_bytes, sha256_of_file
from edgeformer.bundle.details import EngineDetails
from edgeformer.bundle.files import MANIFEST
from edgeformer.bundle.manifest import Manifest, read_manifest
from edgeformer.bundle.signature import is_trusted
from edgeformer.errors import InputError
from edgeformer.ops.library_files import candidate_paths, registered_by

__all__ = ["UNTRUSTED", "EngineCode", "engine_code", "library_to_open"]

UNTRUSTED = "untrusted, give --trust-bundle or --key"


@dataclass(frozen=True)
class EngineCode:
    """An engine that may run, and what may run with it.

    Attributes:
        content: the serialized engine: what was checked, whatever becomes of its file.
        host_code: whether code in it may run on the CPU, which a plugin library embedded in it is.
        library: the plugin library to open; None for none.
    """

    content: bytes
    host_code: bool
    library: Path | None


def engine_code(
    engine: Path,
    plugin_library: Path | None,
    *,
    trust_bundle: bool = False,
    key: Path | None = None,
    embedded_plugin: bool = False,
) -> EngineCode:
    """Read an engine and settle what of it may run; nothing is run or loaded yet.

    Args:
        engine: the engine file.
        plugin_library: the library with its plugins, where there is one.
        trust_bundle: run what a bundle brings: the user trusts its maker.
        key: public key of the maker of the bundle; its signature has to hold, and the manifest to list the files.
        embedded_plugin: the engine of no bundle has a plugin library embedded in it, which may run. Of a bundle's
            engine the manifest says so.

    Raises:
        InputError: a file is missing; or it is part of a bundle, and the bundle is not trusted, or the file is not what
            the manifest lists, or the signature does not hold.
        EnvironmentFault: a key was given, and the package cryptography is not installed.
    """
    for path in (engine, *([] if plugin_library is None else [plugin_library])):
        if not path.is_file():
            raise InputError("EF102", f"{path}: there is no such file")
    content = engine.read_bytes()
    host_code = embedded_plugin
    if _bundle_of(engine) is None:
        if key is not None:
            raise InputError("EF774", f"{engine} is in no bundle, so it has no signature to check: leave out the key")
    else:
        manifest = _trusted_manifest(engine, trust_bundle, key)
        listed = _check_listed(engine, manifest, sha256_of_bytes(content), needed=key is not None)
        host_code = listed and manifest is not None and _embeds_plugin(manifest, sha256_of_bytes(content))
    if plugin_library is None:
        return EngineCode(content, host_code, None)
    return EngineCode(content, host_code, library_to_open(plugin_library, trust_bundle=trust_bundle, key=key))


def library_to_open(library: Path, *, trust_bundle: bool = False, key: Path | None = None) -> Path:
    """Which file to open for a plugin library.

    The installed library where it is the same, byte for byte: then nothing of a bundle is opened at all. Another one is
    opened where it lies if it is in no bundle, or in one that is trusted and lists it. A library that registers the
    plugins as it is opened stands for the plugin library beside it: it is for programs that cannot load that one.

    Args:
        library: the library that is wanted.
        trust_bundle: as for `engine_code`.
        key: as for `engine_code`.

    Raises:
        InputError: there is no such library; or it is part of a bundle that is not trusted, or is not what the manifest
            lists.
        EnvironmentFault: a key was given, and the package cryptography is not installed.
    """
    library = registered_by(library)
    if not library.is_file():
        raise InputError("EF102", f"{library}: there is no such file")
    digest = sha256_of_file(library)
    for own in candidate_paths():
        if own.is_file() and sha256_of_file(own) == digest:
            return own
    if _bundle_of(library) is not None:
        _check_listed(library, _trusted_manifest(library, trust_bundle, key), digest, needed=True)
    return library


def _bundle_of(path: Path) -> Path | None:
    """The folder of the bundle that a file is part of, where links lead to, too; None if it is in none."""
    for folder in (path.absolute().parent, path.resolve().parent):
        if (folder / MANIFEST).exists():
            return folder
    return None


def _trusted_manifest(path: Path, trust_bundle: bool, key: Path | None) -> Manifest | None:
    """The manifest of a file's bundle, which is trusted; None if it cannot be read and trust does not need it."""
    bundle = _bundle_of(path)
    assert bundle is not None
    if not is_trusted(bundle, trust_bundle=trust_bundle, key=key):
        raise InputError(
            "EF671",
            f"{path} is part of a bundle, and running it runs its maker's code: if you trust whoever made it, give "
            "trust_bundle=True (--trust-bundle); if it is signed, the maker's public key as key= (--key)",
        )
    if key is not None:
        return read_manifest(bundle)
    try:
        return read_manifest(bundle)
    except InputError:
        return None  # a manifest of something else; the user vouches for what is here


def _check_listed(path: Path, manifest: Manifest | None, digest: str, *, needed: bool) -> bool:
    """Whether the manifest lists a file with this hash; a file that is listed with another is refused."""
    record = None if manifest is None else manifest.files.get(path.name)
    if record is None:
        if needed:
            raise InputError(
                "EF672",
                f"{path} lies in a bundle and its manifest does not list it: it came from elsewhere, and is not "
                "opened. If you put it there, name it in a folder of its own",
            )
        return False
    if record.sha256 != digest:
        raise InputError("EF704", f"{path}: changed since the build (SHA-256 differs from the manifest's)")
    return True


def _embeds_plugin(manifest: Manifest, digest: str) -> bool:
    """Whether the build put a plugin library into this very engine, as it was asked to."""
    details = manifest.details(EngineDetails)
    report = None if details is None else details.report
    return report is not None and report.plugin_embedded and report.engine_sha256 == digest
