#!/usr/bin/env python3
"""Get all that a bundle brings to a Jetson: the libraries, cross-compiled, and the Python packages.

    scripts/cross_device.py [--preset jetson-orin] [--no-fetch] [--jobs N]

The CUDA runtime, OpenSSL and the packages for Arm are fetched into third_party/ where they are not there; then CMake's
preset builds the plugin library, those that register the plugins, and the runtime library in build/PRESET, where
`edgeformer build --target jetson-...` finds them. `edgeformer build` runs this itself, with --no-fetch, where a library
is missing and the cross compiler is there. Presets: jetson-orin (JetPack 6) and jetson (JetPack 7, DGX OS).

Needed: CMake, nvcc 13, Debian's g++-aarch64-linux-gnu. Exit code 0: all is there; 1: something is not, and the message
says what.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from openssl_for_arm import TRIPLE, NotThere, cmake_options, unpacked

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
PRESETS = {"jetson-orin": "12.6", "jetson": "13.0"}
"""CMake's presets, and the CUDA that each compiles for."""
TOOLS = {"cmake": "cmake", "nvcc": "the CUDA toolkit, 13.0 or newer", f"{TRIPLE}-g++": f"g++-{TRIPLE}"}
# What CMake would fetch by itself.
NO_FETCHING = ("-DEDGEFORMER_FETCH_TENSORRT_HEADERS=OFF", "-DEDGEFORMER_FETCH_RUNTIME_HEADERS=OFF")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="jetson-orin", help="what to compile for")
    parser.add_argument("--no-fetch", action="store_true", help="take what is there, and fetch nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers that run at once")
    options = parser.parse_args(arguments)
    try:
        if missing := [f"{tool} ({package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]:
            raise NotThere(f"not installed: {', '.join(missing)}")
        if not options.no_fetch:
            for script in (["fetch_cuda_runtime.py", PRESETS[options.preset]], ["fetch_device_packages.py"]):
                run(sys.executable, ROOT / "scripts" / script[0], *script[1:])
        build(options.preset, options.jobs, fetch=not options.no_fetch)
    except NotThere as reason:
        print(f"cross_device: {reason}", file=sys.stderr)
        return 1
    return 0


def build(preset: str, jobs: int, *, fetch: bool) -> None:
    """Configure and build a preset; without OpenSSL for Arm there is no runtime library, and a line says so.

    Raises:
        NotThere: the CUDA runtime for Arm is not there, or the build failed.
    """
    toolkit = ROOT / "third_party" / "cuda" / PRESETS[preset] / "bin" / "nvcc"
    if not toolkit.exists() and "CUDACXX" not in os.environ:
        raise NotThere(f"no CUDA {PRESETS[preset]} for Arm: scripts/fetch_cuda_runtime.py {PRESETS[preset]}")
    more = [] if fetch else list(NO_FETCHING)
    try:
        more += cmake_options(unpacked(ROOT / "third_party" / "arm", fetch=fetch))
    except NotThere as reason:
        print(f"cross_device: no runtime library: {reason}", file=sys.stderr)
    # CMake tries to run what it compiled for Arm; the shell takes it for a script, which leaves a file where it stands.
    folder = ROOT / "build" / preset
    folder.mkdir(parents=True, exist_ok=True)
    run("cmake", "-S", ROOT, "--preset", preset, "-B", folder, *more, folder=folder)
    run("cmake", "--build", folder, "--parallel", str(jobs), folder=folder)


def run(*command: str | Path, folder: Path = ROOT) -> None:
    """Run a program in a folder; what it says goes to standard error.

    Raises:
        NotThere: it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, stdout=2, check=False)
    if done.returncode != 0:
        raise NotThere(f"{' '.join(words)} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
