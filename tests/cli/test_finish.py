"""``edgeformer finish`` as it is typed: from within the bundle, with a key, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeformer.bundle import open_bundle
from edgeformer.bundle.signature import sign_bundle
from tests.pipeline.conftest import fp16_bundle as fp16_bundle
from tests.pipeline.conftest import nano_onnx as nano_onnx
from tests.pipeline.conftest import rtx_bundle as rtx_bundle


def finish(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeformer", "finish", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_from_within_the_bundle_which_is_another_folder_afterwards(rtx_bundle: Path) -> None:
    done = finish(rtx_bundle, ".", "--json", "--workspace", "64")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bundle"] == "."
    assert {stage["name"] for stage in document["stages"]} > {"device", "engine", "engine-parity"}
    manifest = open_bundle(rtx_bundle)
    assert document["files"] == json.loads(manifest.model_dump_json())["files"]
    (engine,) = (stage for stage in document["stages"] if stage["name"] == "engine")
    assert engine["details"]["report"]["workspace_bytes"] == 64 << 20


def test_a_signature_vouches_for_the_bundle_and_goes(rtx_bundle: Path, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    encoding = serialization.Encoding.PEM
    private, public = tmp_path / "signing.pem", tmp_path / "signing.pub.pem"
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    refused = finish(tmp_path, "bundle", "--key", str(public))
    assert refused.returncode == 2
    assert "error EF774" in refused.stderr
    assert "model.engine" not in open_bundle(rtx_bundle).files
    sign_bundle(rtx_bundle, private)
    done = finish(tmp_path, "bundle", "--key", str(public))
    assert done.returncode == 0, done.stderr
    assert "the signature was of the bundle as it came: sign it again" in done.stdout
    assert "edgeformer verify bundle --trust-bundle" in done.stdout
    assert not (rtx_bundle / "manifest.sig").exists()


def test_what_is_no_bundle(tmp_path: Path) -> None:
    done = finish(tmp_path, "nothing", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "EF701"
