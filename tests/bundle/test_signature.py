"""Signatures: they hold for the signer's key and the bytes that were signed, and for nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from edgeformer.bundle.signature import check_signature, is_trusted, sign_bundle
from tests.bundle.test_publish import _publish
from tests.raising import raises


def write_keys(folder: Path, name: str = "signing", passphrase: bytes | None = None, kind: str = "ed25519") -> Path:
    """A pair of keys as OpenSSL writes them: NAME.pem and NAME.pub.pem; gives the private one's path."""
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = folder / f"{name}.pem"
    private.write_bytes(key.private_bytes(pem, pkcs8, encryption))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub.pem").write_bytes(public)
    return private


def public_of(private: Path) -> Path:
    return private.with_name(f"{private.stem}.pub.pem")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    _publish(tmp_path / "bundle", "one")
    return tmp_path / "bundle"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_keys(tmp_path)


def test_a_signature_holds_until_the_manifest_changes(bundle: Path, key: Path) -> None:
    assert sign_bundle(bundle, key) == bundle / "manifest.sig"
    assert len((bundle / "manifest.sig").read_bytes()) == 64
    check_signature(bundle, public_of(key))
    assert is_trusted(bundle, key=public_of(key))
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with raises("EF773", bundle, public_of(key), "manifest.json"):
        check_signature(bundle, public_of(key))


def test_a_key_that_did_not_sign_beats_trust_bundle(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, key)
    other = public_of(write_keys(tmp_path, "other"))
    with raises("EF773", other):
        is_trusted(bundle, trust_bundle=True, key=other)


def test_a_key_is_not_replaced_by_its_signature(bundle: Path, key: Path) -> None:
    content = key.read_bytes()
    key.rename(bundle / "manifest.sig")
    with raises("EF131", bundle / "manifest.sig", "key"):
        sign_bundle(bundle, bundle / "manifest.sig")
    assert (bundle / "manifest.sig").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"x" * 64, b"x" * 63])
def test_a_damaged_signature_does_not_hold(bundle: Path, key: Path, content: bytes) -> None:
    (bundle / "manifest.sig").write_bytes(content)
    with raises("EF773", bundle):
        check_signature(bundle, public_of(key))


def test_without_a_word_nobody_is_trusted(bundle: Path, key: Path) -> None:
    sign_bundle(bundle, key)
    assert not is_trusted(bundle)
    assert is_trusted(bundle, trust_bundle=True)


def test_a_bundle_that_is_not_signed(bundle: Path, key: Path) -> None:
    with raises("EF774", bundle, "edgeformer sign"):
        check_signature(bundle, public_of(key))


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: Path) -> None:
    (bundle / "a.txt").write_text("two")
    with raises("EF704", "a.txt"):
        sign_bundle(bundle, key)
    assert not (bundle / "manifest.sig").exists()


def test_an_encrypted_key_asks_for_its_passphrase(bundle: Path, tmp_path: Path) -> None:
    key = write_keys(tmp_path, passphrase=b"open")
    sign_bundle(bundle, key, passphrase=lambda: "open")
    check_signature(bundle, public_of(key))
    with raises("EF772", key, "passphrase"):
        sign_bundle(bundle, key, passphrase=lambda: "wrong")
    with raises("EF772", key, "encrypted"):
        sign_bundle(bundle, key)


def test_files_that_are_no_such_keys(bundle: Path, tmp_path: Path, key: Path) -> None:
    text, large = tmp_path / "text.pem", tmp_path / "large.pem"
    text.write_text("no key")
    large.write_bytes(b"x" * 70000)
    curve = write_keys(tmp_path, "curve", kind="ec")
    for private in (text, large, curve, public_of(key)):
        with raises("EF772", private):
            sign_bundle(bundle, private)
    for public in (text, large, public_of(curve), key):
        with raises("EF772", public):
            check_signature(bundle, public)
    for missing in (tmp_path / "gone.pem", tmp_path):
        with raises("EF102", missing):
            check_signature(bundle, missing)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_the_keys_and_checks_the_signature(bundle: Path, tmp_path: Path) -> None:
    """As docs/security.md says; the command line signs."""
    private, public = tmp_path / "signing.pem", tmp_path / "signing.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    words = [sys.executable, "-m", "edgeformer", "sign", str(bundle), "--key", str(private)]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert result.stdout == f"signed: {bundle / 'manifest.sig'}\n"
    check_signature(bundle, public)
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    words += ["-in", str(bundle / "manifest.json"), "-sigfile", str(bundle / "manifest.sig")]
    checked = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "Verified Successfully" in checked.stdout
