"""The signature of a bundle: ``manifest.sig``, Ed25519 over the bytes of ``manifest.json``, which hashes all files.

Keys are PEM files as OpenSSL makes them (``docs/security.md``), so that OpenSSL alone can make the keys and check the
signature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.artifacts import write_bytes
from edgeformer.bundle.files import MANIFEST, SIGNATURE
from edgeformer.bundle.manifest import open_bundle
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.outputs import check_not_an_input

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["check_signature", "is_trusted", "sign_bundle", "signer"]

_LARGEST_KEY = 1 << 16
_MAKE_KEY = "openssl genpkey -algorithm ed25519 -out signing.pem"
_MAKE_PUBLIC = "openssl pkey -in signing.pem -pubout -out signing.pub.pem"


def sign_bundle(bundle: Path, key: Path, *, passphrase: Callable[[], str] | None = None) -> Path:
    """Sign a bundle whose files are all as its manifest says.

    Args:
        bundle: the bundle's folder.
        key: PEM file of an Ed25519 private key.
        passphrase: asked where the key is encrypted; None refuses such a key.

    Returns:
        The signature's file; an older one is replaced.

    Raises:
        InputError: no bundle or a damaged one, or the file is no such key, or the signature would replace it.
        EnvironmentFault: the package cryptography is not installed.
        OSError: the signature cannot be written.
    """
    target = bundle / SIGNATURE
    check_not_an_input(target, [("key", key)])
    sign = signer(key, passphrase)
    open_bundle(bundle)
    write_bytes(target, sign((bundle / MANIFEST).read_bytes()))
    return target


def signer(key: Path, passphrase: Callable[[], str] | None = None) -> Callable[[bytes], bytes]:
    """What makes the signature of a manifest from its bytes.

    Args:
        key: PEM file of an Ed25519 private key.
        passphrase: asked where the key is encrypted; None refuses such a key.

    Raises:
        InputError: the file is no such key.
        EnvironmentFault: the package cryptography is not installed.
    """
    return _private_key(key, passphrase).sign


def check_signature(bundle: Path, key: Path) -> None:
    """Check the signature of a bundle's manifest. Its files are checked by `open_bundle`.

    Args:
        bundle: the bundle's folder.
        key: PEM file of the signer's Ed25519 public key.

    Raises:
        InputError: the file is no such key, or the bundle is not signed, or not with this key, or was changed since.
        EnvironmentFault: the package cryptography is not installed.
    """
    public = _public_key(key)
    from cryptography.exceptions import InvalidSignature

    try:
        signature = (bundle / SIGNATURE).read_bytes()
    except OSError as error:
        raise InputError(
            "EF774",
            f"{bundle} is not signed ({SIGNATURE}: {error.strerror}): ask whoever made it to run "
            f"`edgeformer sign {bundle.name} --key signing.pem`, or leave out --key",
        ) from None
    try:
        public.verify(signature, (bundle / MANIFEST).read_bytes())
    except InvalidSignature:
        raise InputError(
            "EF773",
            f"{bundle}: its signature does not hold for the key {key}: another key signed it, or {MANIFEST} was "
            "changed since. Run nothing of it; get the bundle, or the key, from its maker again",
        ) from None


def is_trusted(bundle: Path, *, trust_bundle: bool = False, key: Path | None = None) -> bool:
    """Whether code that came with a bundle may run: the user vouches for it, or its signature does.

    Args:
        bundle: the bundle's folder.
        trust_bundle: the user says that its maker is trusted.
        key: the maker's public key; the signature has to hold for it, whatever ``trust_bundle`` says.

    Raises:
        InputError: there is a key, and the signature does not hold for it (see `check_signature`).
        EnvironmentFault: there is a key, and the package cryptography is not installed.
    """
    if key is not None:
        check_signature(bundle, key)
        return True
    return trust_bundle


def _private_key(path: Path, passphrase: Callable[[], str] | None) -> Ed25519PrivateKey:
    load = _cryptography().load_pem_private_key
    content = _read(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = load(content, None)
    except TypeError:  # it is encrypted
        if passphrase is None:
            raise _no_key(path, "is encrypted, and there is nobody to ask for its passphrase") from None
        try:
            key = load(content, passphrase().encode())
        except Exception:  # a wrong passphrase raises ValueError or what OpenSSL makes of it
            raise _no_key(path, "cannot be decrypted with this passphrase") from None
    except Exception as error:  # ValueError, UnsupportedAlgorithm and what else parsing can meet
        raise _no_key(path, f"is not a PEM private key ({_line(error)})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "is a key of another algorithm than Ed25519")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    load = _cryptography().load_pem_public_key
    content = _read(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if b"PRIVATE KEY-----" in content:
        raise InputError(
            "EF772", f"{path} is a private key, which stays with its owner: give the public one: {_MAKE_PUBLIC}"
        )
    try:
        key = load(content)
    except Exception as error:  # ValueError, UnsupportedAlgorithm and what else parsing can meet
        raise InputError(
            "EF772", f"{path} is not a PEM public key ({_line(error)}): get it from the bundle's maker: {_MAKE_PUBLIC}"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("EF772", f"{path} is a key of another algorithm than Ed25519: {_MAKE_PUBLIC}")
    return key


def _no_key(path: Path, reason: str) -> InputError:
    return InputError("EF772", f"{path} {reason}: make a key with `{_MAKE_KEY}`")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError("EF102", f"{path}: there is no such key file")
        with path.open("rb") as file:
            content = file.read(_LARGEST_KEY + 1)
    except OSError as error:
        raise InputError("EF102", f"{path}: the key cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST_KEY:
        raise InputError("EF772", f"{path} is too large for a PEM key, which takes a few hundred bytes")
    return content


def _cryptography() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise EnvironmentFault("EF601", f"signatures need cryptography ({error}): pip install cryptography") from error
    return serialization
