"""``edgeformer sign``: sign a bundle, so that others can tell that it is yours and as you made it."""

from __future__ import annotations

from pathlib import Path

import click

from edgeformer.cli._common import common_options, console, print_json
from edgeformer.cli._options import output_path


@click.command("sign")
@click.argument("bundle", type=output_path)
@click.option("--key", type=output_path, required=True, help="Your Ed25519 private key, a PEM file.")
@common_options
def command(bundle: Path, key: Path, as_json: bool) -> None:
    """Sign a bundle with your private key.

    First the files are checked against their hashes. The signature, manifest.sig, covers the manifest and with it every
    file that the manifest lists; whoever has your public key checks it with 'edgeformer verify BUNDLE --key FILE'.

    OpenSSL makes the keys: 'openssl genpkey -algorithm ed25519 -out signing.pem' the private one, which stays with you,
    and 'openssl pkey -in signing.pem -pubout -out signing.pub.pem' the public one, which you give away.
    """
    from edgeformer.bundle.signature import sign_bundle

    def passphrase() -> str:
        answer: str = click.prompt(f"passphrase of {key}", hide_input=True, err=True)
        return answer

    signature = sign_bundle(bundle, key, passphrase=passphrase)
    if as_json:
        print_json({"bundle": str(bundle), "signature": str(signature)})
    else:
        console.print(f"signed: {signature}", soft_wrap=True)
