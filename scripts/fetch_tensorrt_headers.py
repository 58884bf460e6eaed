#!/usr/bin/env python3
"""Fetch TensorRT's C++ headers from the Python package registry into third_party/tensorrt/include.

The TensorRT wheels carry no headers. The wheel of kernel-lens 2.0.1 does (TensorRT 10.14.1); it is downloaded with
pip, checked against a pinned SHA-256, and just the headers are taken out of it. Nothing is installed. A second call
finds the headers there and does nothing.

Exit code 0: the headers are there; 1: they could not be fetched, and the message says what to do.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from wheels import FetchError, Wheel, fetch, is_published, publish

WHEEL = Wheel("kernel-lens==2.0.1", "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0")
PREFIX = PurePosixPath("kernel_lens/include/tensorrt")
DESTINATION = Path(__file__).resolve().parent.parent / "third_party" / "tensorrt" / "include"


def main() -> int:
    if is_published(DESTINATION, WHEEL.stamp):
        return 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            headers = headers_from_wheel(fetch(WHEEL, Path(folder)))
        publish(DESTINATION, WHEEL.stamp, headers)
    except FetchError as error:
        print(
            f"fetch_tensorrt_headers: {error}\n"
            "Install TensorRT and set TENSORRT_ROOT to it, or run scripts/fetch_tensorrt_headers.py again with the "
            "package registry in reach.",
            file=sys.stderr,
        )
        return 1
    print(f"TensorRT headers: {len(headers)} files in {DESTINATION}")
    return 0


def headers_from_wheel(wheel: Path) -> dict[str, bytes]:
    """The wheel's TensorRT headers by file name."""
    with zipfile.ZipFile(wheel) as archive:
        paths = [PurePosixPath(name) for name in archive.namelist()]
        # Plain names in one folder: no path from the archive reaches the file system.
        wanted = [path for path in paths if path.parent == PREFIX and path.suffix == ".h"]
        headers = {path.name: archive.read(str(path)) for path in wanted}
    if "NvInferRuntime.h" not in headers:
        raise FetchError(f"{wheel.name} holds no TensorRT headers in {PREFIX}")
    return headers


if __name__ == "__main__":
    sys.exit(main())
