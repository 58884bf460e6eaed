"""OpenSSL's development files for 64-bit Arm, which the cross builds of the runtime link. Standard library alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["TRIPLE", "NotThere", "cmake_options", "unpacked"]

TRIPLE = "aarch64-linux-gnu"


class NotThere(Exception):
    """Something that is needed is not there."""


def unpacked(folder: Path, *, fetch: bool = True) -> Path:
    """The ``usr`` of Debian's package, unpacked below ``folder``; nothing is installed.

    Args:
        folder: where it is, or is put.
        fetch: download it where it is not there.

    Raises:
        NotThere: it cannot be had; the message says what to do.
    """
    there = folder / "openssl"
    if not (there / "usr" / "lib" / TRIPLE / "libcrypto.a").is_file():
        if not fetch:
            raise NotThere(f"OpenSSL for Arm is not in {there}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                ["apt-get", "download", "libssl-dev:arm64"], cwd=folder, capture_output=True, text=True, check=False
            )
            reason = done.stderr.strip()
        except OSError as error:
            reason = str(error)
        packages = sorted(folder.glob("libssl-dev_*_arm64.deb"))
        if not packages:
            raise NotThere(
                f"libssl-dev for arm64 cannot be downloaded ({reason}): dpkg --add-architecture arm64 && apt-get update"
            )
        subprocess.run(["dpkg-deb", "-x", str(packages[-1]), str(there)], check=True)
    return there / "usr"


def cmake_options(usr: Path) -> list[str]:
    """What CMake has to be told to take it.

    Args:
        usr: as `unpacked` gives it.
    """
    return [
        f"-DOPENSSL_CRYPTO_LIBRARY={usr / 'lib' / TRIPLE / 'libcrypto.a'}",
        f"-DOPENSSL_INCLUDE_DIR={usr / 'include'}",
        # Debian keeps what differs between processors in a folder of its own.
        f"-DCMAKE_CXX_FLAGS=-isystem {usr / 'include' / TRIPLE}",
    ]
