#!/usr/bin/env python3
"""Assemble CUDA toolkits that compile for aarch64 (Jetson) on this machine, in third_party/cuda/<release>.

    scripts/fetch_cuda_runtime.py [RELEASE ...]          (default: all)

13.0 is JetPack 7's CUDA and 12.6 is JetPack 6's. The compiler is the nvcc at hand; the CUDA runtime and its headers for
aarch64 come from wheels in the Python package registry, downloaded with pip and checked against pinned SHA-256. Nothing
is installed. A second call finds the toolkits there and does nothing.

The driver of JetPack 6 knows CUDA up to 12.6, and not the form of machine code that nvcc 13 writes. So 12.6's toolkit
takes its headers, its runtime (the shared one, which is on every JetPack 6) and its assembler, ptxas. PTX is text and
each release adds to it: nvcc's is labelled with the newest PTX that ptxas 12.6 takes, and ptxas refuses whatever else
is newer.

Exit code 0: the toolkits are there; 1: they are not, and the message says what to do.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wheels import FetchError, Wheel, fetch, is_published, publish

DESTINATION = Path(__file__).resolve().parent.parent / "third_party" / "cuda"
AARCH64, X86_64 = "manylinux_2_17_aarch64", "manylinux_2_5_x86_64"


@dataclass(frozen=True)
class Release:
    """What a toolkit is made of.

    Attributes:
        runtime: wheel with headers and runtime for aarch64.
        prefix: folder in it that has include/ and lib/.
        assembler: wheel with ptxas, where nvcc's own will not do.
        ptx: newest PTX that this ptxas takes.
    """

    runtime: Wheel
    prefix: str
    assembler: Wheel | None = None
    ptx: str = ""


RELEASES = {
    "13.0": Release(
        Wheel(
            "nvidia-cuda-runtime==13.0.96",
            "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
            AARCH64,
        ),
        "nvidia/cu13",
    ),
    "12.6": Release(
        Wheel(
            "nvidia-cuda-runtime-cu12==12.6.77",
            "6116fad3e049e04791c0256a9778c16237837c08b27ed8c8401e2e45de8d60cd",
            AARCH64,
        ),
        "nvidia/cuda_runtime",
        Wheel(
            "nvidia-cuda-nvcc-cu12==12.6.85",
            "d75d9d74599f4d7c0865df19ed21b739e6cb77a6497a3f73d6f61e8038a765e4",
            X86_64,
        ),
        "8.5",
    ),
}
# Parts of nvcc's own toolkit: programs, and the headers that belong to the compiler rather than to the runtime.
PROGRAMS = ("nvcc", "cudafe++", "fatbinary", "bin2c", "nvlink", "ptxas", "crt")
HEADERS = ("crt", "fatbinary_section.h", "nv")

# The wheel of 12.6 has the shared runtime alone: who asks for the static one gets that, by a linker script, and nothing
# here uses the device runtime, an archive that nvcc always names.
SHARED_ALONE = {"lib64/libcudart_static.a": b"INPUT(-lcudart)\n", "lib64/libcudadevrt.a": b"!<arch>\n"}

# nvcc reads it from beside itself; TOP is then the assembled toolkit.
PROFILE = """\
TOP              = $(_HERE_)/..
CICC_PATH        = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH            += $(CICC_PATH):$(_HERE_):
INCLUDES        +=  "-I$(TOP)/include" $(_SPACE_)
LIBRARIES        =+ $(_SPACE_) "-L$(TOP)/lib64"
"""

ASSEMBLER = """\
#!/bin/sh
# ptxas of CUDA @release@ for the PTX of a newer nvcc: see scripts/fetch_cuda_runtime.py.
for argument in "$@"; do
  case "$argument" in
    *.ptx) sed -i -E '1,20s/^([.]version) [0-9]+[.][0-9]+$/\\1 @ptx@/' "$argument" ;;
  esac
done
exec "${0%/*}/ptxas-@release@" "$@"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help=f"one of {', '.join(RELEASES)}")
    names = parser.parse_args().releases or list(RELEASES)
    try:
        for name in names:
            if name not in RELEASES:
                raise FetchError(f"release {name!r}: known are {', '.join(RELEASES)}")
            assemble(name)
    except FetchError as error:
        print(
            f"fetch_cuda_runtime: {error}\n"
            "To cross-compile with a CUDA toolkit of your own that has targets/aarch64-linux, set CUDACXX to its nvcc.",
            file=sys.stderr,
        )
        return 1
    return 0


def assemble(name: str) -> None:
    """Make ``third_party/cuda/<name>``.

    Raises:
        FetchError: a wheel or nvcc is not to be had.
    """
    release = RELEASES[name]
    toolkit = find_toolkit()
    destination = DESTINATION / name
    wheels = [wheel for wheel in (release.runtime, release.assembler) if wheel is not None]
    stamp = "".join(wheel.stamp for wheel in wheels) + f"nvcc of {toolkit}\n"
    if is_published(destination, stamp):
        return
    links = {f"bin/{program}": toolkit / "bin" / program for program in PROGRAMS}
    links |= {f"include/{header}": find_header(toolkit, header) for header in HEADERS}
    links["nvvm"] = toolkit / "nvvm"
    programs = {}
    with tempfile.TemporaryDirectory() as folder:
        files = members(fetch(release.runtime, Path(folder)), release.prefix)
        if release.assembler is not None:
            wheel = fetch(release.assembler, Path(folder))
            programs[f"bin/ptxas-{name}"] = members(wheel, "nvidia/cuda_nvcc")["bin/ptxas"]
            script = ASSEMBLER.replace("@release@", name).replace("@ptx@", release.ptx)
            programs["bin/ptxas"] = script.encode()
            del links["bin/ptxas"]
    files = {path: files[path] for path in files if re.match(r"include/.*|lib64/lib[^/]*$", path)}
    files = {**SHARED_ALONE, **files, "bin/nvcc.profile": PROFILE.encode()}
    # What a linker looks for.
    for path in [path for path in files if re.search(r"\.so\.\d+$", path)]:
        links[re.sub(r"\.\d+$", "", path)] = Path(PurePosixPath(path).name)
    publish(destination, stamp, files, programs=programs, links=links)
    print(f"CUDA {name} for aarch64: {destination}")


def find_toolkit() -> Path:
    """The toolkit of the nvcc at hand, as nvcc itself says."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if nvcc is None:
        raise FetchError("no nvcc: install a CUDA toolkit (13.0 for Jetson Thor), or set CUDACXX")
    command = [nvcc, "--dryrun", "-c", "x.cu"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    top = re.search(r"^#\$ TOP=(.+)$", process.stderr, re.MULTILINE)
    if top is None:
        raise FetchError(f"'{' '.join(command)}' does not say where its toolkit is")
    return Path(top[1]).resolve()


def find_header(toolkit: Path, name: str) -> Path:
    """A header, or a folder of headers, that belongs to the compiler."""
    for folder in ("include", "include/cccl"):
        path = toolkit / folder / name
        if path.exists():
            return path.resolve()
    raise FetchError(f"{toolkit}/include has no {name}: is the toolkit complete?")


def members(wheel: Path, prefix: str) -> dict[str, bytes]:
    """The files below ``prefix`` in a wheel, by their path from there; ``lib`` is named ``lib64``, as in a toolkit."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if not name.endswith("/") and path.is_relative_to(prefix) and ".." not in path.parts:
                inside = path.relative_to(prefix).as_posix()
                found[re.sub(r"^lib/", "lib64/", inside)] = archive.read(name)
    if not found:
        raise FetchError(f"{wheel.name} holds nothing in {prefix}")
    return found


if __name__ == "__main__":
    sys.exit(main())
