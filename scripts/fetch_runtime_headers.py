#!/usr/bin/env python3
"""Fetch the C and C++ headers that the runtime is compiled with into third_party/, where the system has none.

- nlohmann-json, from its wheel in the Python package registry: third_party/nlohmann_json/include
- ONNX Runtime's C interface, which no wheel holds, from Debian's package, which any archive of Debian has:
  third_party/onnxruntime/include. EDGEFORMER_DEBIAN_MIRROR names one, else those of apt are asked

Both are checked against pinned SHA-256s, and just the headers are taken out of them. Nothing is installed. A second
call finds the headers there and does nothing.

Exit code 0: the headers are there; 1: some could not be fetched, and the message says what to do.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from wheels import FetchError, Wheel, fetch, is_published, publish

THIRD_PARTY = Path(__file__).resolve().parent.parent / "third_party"
JSON_WHEEL = Wheel("nlohmann-json==3.12.0", "5f6132720fb25d0d70bf0742f8397b49a540dcc193e7312a914f6aa49f054810")
JSON_PREFIX = PurePosixPath("nlohmann_json/include")
# Its place in an archive of Debian, and its hash: whatever archive it comes from.
DEBIAN_PACKAGE = (
    "pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb",
    "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08",
)
# The archive to take it from, such as https://mirror.example/debian; else those that apt is set up for.
MIRROR_VARIABLE = "EDGEFORMER_DEBIAN_MIRROR"
DEBIAN_PREFIX = PurePosixPath("usr/include/onnxruntime")
_SECONDS = 60


def main() -> int:
    faults = []
    for fetch_one in (fetch_json, fetch_onnxruntime):
        try:
            fetch_one()
        except FetchError as error:
            faults.append(str(error))
    for fault in faults:
        print(f"fetch_runtime_headers: {fault}", file=sys.stderr)
    if faults:
        print(
            "Install nlohmann-json3-dev and libonnxruntime-dev, or run scripts/fetch_runtime_headers.py again with the "
            "package registries in reach.",
            file=sys.stderr,
        )
    return 1 if faults else 0


def fetch_json() -> None:
    """nlohmann-json's headers.

    Raises:
        FetchError: they cannot be had.
    """
    destination = THIRD_PARTY / "nlohmann_json" / "include"
    if is_published(destination, JSON_WHEEL.stamp):
        return
    with tempfile.TemporaryDirectory() as folder:
        headers = headers_from_wheel(fetch(JSON_WHEEL, Path(folder)))
    publish(destination, JSON_WHEEL.stamp, headers)
    print(f"nlohmann-json headers: {len(headers)} files in {destination}")


def fetch_onnxruntime() -> None:
    """ONNX Runtime's C header and those that belong to it.

    Raises:
        FetchError: they cannot be had.
    """
    place, sha256 = DEBIAN_PACKAGE
    destination, stamp = THIRD_PARTY / "onnxruntime" / "include", f"{place} sha256:{sha256}\n"
    if is_published(destination, stamp):
        return
    headers = headers_from_package(download_from_any(archives(), place, sha256))
    publish(destination, stamp, headers)
    print(f"ONNX Runtime headers: {len(headers)} files in {destination}")


def archives() -> list[str]:
    """The archives of Debian that this machine uses, as URLs; the one that the environment variable names alone."""
    if chosen := os.environ.get(MIRROR_VARIABLE):
        return [chosen]
    try:
        command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:  # no apt
        return []
    return sorted({url for url in listed.split() if url.startswith(("http://", "https://"))})


def download_from_any(urls: list[str], place: str, sha256: str) -> bytes:
    """The file at ``place`` of the first archive that has it.

    Raises:
        FetchError: none has; the message says what each answered.
    """
    faults = []
    for url in urls:
        try:
            return download(f"{url.rstrip('/')}/{place}", sha256)
        except FetchError as error:
            faults.append(str(error))
    asked = "; ".join(faults) or "apt names no archive"
    raise FetchError(f"ONNX Runtime's header: {asked}. Set {MIRROR_VARIABLE} to the URL of an archive of Debian")


def download(url: str, sha256: str) -> bytes:
    """The file at ``url``.

    Raises:
        FetchError: it cannot be downloaded, or is another file than the pinned one.
    """
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except OSError as error:
        raise FetchError(f"{url} could not be downloaded: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise FetchError(f"{url} has SHA-256 {digest}, not the pinned {sha256}: it is not used")
    return content


def headers_from_wheel(wheel: Path) -> dict[str, bytes]:
    """nlohmann-json's headers by their path in an include folder."""
    with zipfile.ZipFile(wheel) as archive:
        headers = {
            str(path.relative_to(JSON_PREFIX)): archive.read(str(path))
            for path in map(PurePosixPath, archive.namelist())
            if path.is_relative_to(JSON_PREFIX) and path.suffix == ".hpp" and ".." not in path.parts
        }
    if "nlohmann/json.hpp" not in headers:
        raise FetchError(f"{wheel.name} holds no nlohmann/json.hpp in {JSON_PREFIX}")
    return headers


def headers_from_package(package: bytes) -> dict[str, bytes]:
    """ONNX Runtime's headers in a Debian package, by file name."""
    members = {name: content for name, content in archive_members(package) if name.startswith("data.tar")}
    if len(members) != 1:
        raise FetchError("the package of libonnxruntime-dev holds no data.tar")
    headers = {}
    with tarfile.open(fileobj=io.BytesIO(next(iter(members.values())))) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            # Plain names in one folder: no path from the archive reaches the file system.
            if member.isfile() and PurePosixPath(*path.parts) == DEBIAN_PREFIX / path.name and path.suffix == ".h":
                file = archive.extractfile(member)
                assert file is not None
                headers[path.name] = file.read()
    if "onnxruntime_c_api.h" not in headers:
        raise FetchError(f"the package of libonnxruntime-dev holds no onnxruntime_c_api.h in {DEBIAN_PREFIX}")
    return headers


def archive_members(archive: bytes) -> list[tuple[str, bytes]]:
    """Name and content of each member of an ``ar`` archive, which is what a Debian package is."""
    magic, header = b"!<arch>\n", 60
    if not archive.startswith(magic):
        raise FetchError("the package of libonnxruntime-dev is no ar archive")
    members, start = [], len(magic)
    while start + header <= len(archive):
        name = archive[start : start + 16].decode().strip().rstrip("/")
        size = int(archive[start + 48 : start + 58])
        members.append((name, archive[start + header : start + header + size]))
        start += header + size + size % 2
    return members


if __name__ == "__main__":
    sys.exit(main())
