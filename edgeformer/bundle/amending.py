"""What is found out of a finished bundle, written into its manifest: all else stays, and is as its hashes say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeformer.artifacts import locked, write_bytes
from edgeformer.bundle.files import MANIFEST, SIGNATURE
from edgeformer.bundle.manifest import StageRecord, read_manifest
from edgeformer.bundle.signature import signer
from edgeformer.errors import InputError

__all__ = ["is_signed", "record_stage"]


def is_signed(bundle: Path) -> bool:
    """Whether a bundle has a signature, which a change of its manifest would make void."""
    return (bundle / SIGNATURE).is_file()


def record_stage(
    bundle: Path, record: StageRecord, *, key: Path | None = None, passphrase: Callable[[], str] | None = None
) -> None:
    """Put a stage's record into a bundle's manifest, in the place of an older one of that name.

    The manifest is replaced in one rename. Of a signed bundle the signature goes first and the new one comes last, so
    that whatever happens in between it is signed as it is, or not signed.

    Args:
        bundle: the bundle's folder.
        record: of a stage that has no files.
        key: PEM file of the Ed25519 private key that signs it again; needed where it is signed.
        passphrase: asked where the key is encrypted; None refuses such a key.

    Raises:
        InputError: no bundle, or one that is signed and no key is given, or the file is no such key.
        EnvironmentFault: the package cryptography is not installed.
        OSError: the manifest or the signature cannot be written.
        ValueError: the stage has files.
    """
    if record.files:
        raise ValueError(f"the stage {record.name!r} has files: only a build publishes those")
    sign = None if key is None else signer(key, passphrase)
    bundle = bundle.resolve()
    # Held by whoever publishes a bundle in this folder, too.
    with locked(bundle.parent):
        manifest = read_manifest(bundle)
        if is_signed(bundle) and sign is None:
            raise InputError(
                "EF917",
                f"{bundle} is signed, and a change of its manifest would make the signature void: give the private "
                "key (--sign) to sign it again",
            )
        stages = [stage for stage in manifest.stages if stage.name != record.name]
        amended = manifest.model_copy(update={"stages": [*stages, record]})
        content = (amended.model_dump_json(indent=2) + "\n").encode()
        if sign is not None:
            (bundle / SIGNATURE).unlink(missing_ok=True)
        write_bytes(bundle / MANIFEST, content)
        if sign is not None:
            write_bytes(bundle / SIGNATURE, sign(content))
