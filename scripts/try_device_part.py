#!/usr/bin/env python3
"""Run what a bundle brings to a Jetson on 64-bit Arm's Python, under qemu-user: device.pyz and the script finish.

    scripts/try_device_part.py [BUNDLE]

Debian's Python for Arm is unpacked into the build folder, and the packages for it are fetched as
scripts/fetch_device_packages.py does. Then `finish` has to say that a folder is no bundle (EF701), and of BUNDLE, one
for a Jetson, that this machine has not its GPU (EF604): all of the packages are loaded by then, the compiled ones too.
Where that cannot be done, the script ends with 4 and says what is missing.

Needed: Debian's qemu-user-static and libc6-arm64-cross, apt with arm64 (dpkg --add-architecture arm64 && apt-get
update; nothing is installed), pip.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fetch_device_packages
from openssl_for_arm import TRIPLE, NotThere
from wheels import FetchError

from edgeformer.pipeline.device_part import device_packages, write_device_part, write_finish_script

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
QEMU = "qemu-aarch64-static"
TOOLS = {QEMU: "qemu-user-static", "dpkg-deb": "dpkg", "apt-get": "apt", "apt-cache": "apt"}
"""Programs that are needed, and the Debian packages that they come from."""
# What Python and the compiled packages link, besides the cross compiler's libc.
LIBRARIES = (
    "libbz2-1.0",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "zlib1g",
)


def arm_python(folder: Path) -> tuple[Path, str]:
    """A script that runs Debian's Python for Arm, and its version, such as ``3.11``.

    Args:
        folder: for what is fetched and made.

    Raises:
        NotThere: it cannot be had.
    """
    listed = subprocess.run(
        ["apt-cache", "depends", "python3-minimal:arm64"], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"python(3\.\d+)-minimal", listed)
    libc = Path("/usr") / TRIPLE / "lib"
    if found is None or not libc.is_dir():
        raise NotThere(f"no Python for arm64 in apt's lists, or no {libc} (Debian: libc6-arm64-cross)")
    version = found[1]
    root = folder / "root"
    program = root / "usr" / "bin" / f"python{version}"
    if not program.is_file():
        names = [f"python{version}-minimal", f"libpython{version}-minimal", f"libpython{version}-stdlib", *LIBRARIES]
        folder.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "download", *(f"{name}:arm64" for name in names)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotThere(f"{shlex.join(command)}: {done.stderr.strip()}")
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
        (root / "lib").mkdir(exist_ok=True)
        (root / "lib" / "ld-linux-aarch64.so.1").symlink_to(libc / "ld-linux-aarch64.so.1")
    libraries = os.pathsep.join(map(str, (root / "lib" / TRIPLE, root / "usr" / "lib" / TRIPLE, libc)))
    wrapper = folder / "python"
    words = [QEMU, "-L", str(root), "-E", f"LD_LIBRARY_PATH={libraries}", str(program)]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper, version


def finish(python: Path, script: Path, cache: Path) -> str:
    """The code of the error that `finish` ends with on Arm.

    Raises:
        SystemExit: it ends otherwise.
    """
    environment = {**os.environ, "PYTHON": str(python), "PYTHONPATH": "", "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([str(script)], env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"^error (EF\d+): .*", done.stderr, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{script} on Arm ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    print(f"{script.parent.name}: {found[0]}")
    return found[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, make, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="a bundle for a Jetson to run the script of, too")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "device_part", help="for what is made")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    try:
        if missing := [f"{tool} (Debian: {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]:
            raise NotThere(f"not installed: {', '.join(missing)}")
        python, version = arm_python(folder)
        fetch_device_packages.fetch_packages("aarch64", version)
    except (NotThere, FetchError) as reason:
        print(f"not run: {reason}", file=sys.stderr)
        return 4
    name = f"cp{version.replace('.', '')}"
    packages = {name: device_packages("aarch64")[name]}
    with tempfile.TemporaryDirectory() as temporary:
        cases = [(Path(temporary, "empty"), "EF701")]
        cases[0][0].mkdir()
        if options.bundle is not None:
            cases.append((Path(temporary, "bundle"), "EF604"))
            shutil.copytree(options.bundle, cases[1][0], ignore=shutil.ignore_patterns("device.pyz", "finish"))
        for place, expected in cases:
            # Made here, since a bundle brings the packages for the Pythons of JetPack.
            script = place / "finish"
            write_device_part(place / "device.pyz", packages)
            write_finish_script(script)
            if (place / "manifest.json").exists():
                list_anew(place)
            if (code := finish(python, script, folder / "cache")) != expected:
                raise SystemExit(f"expected {expected}, got {code}")
    return 0


def list_anew(bundle: Path) -> None:
    """Let the manifest list the files as they are now."""
    from edgeformer.artifacts import sha256_of_file
    from edgeformer.bundle import FileRecord, read_manifest

    manifest = read_manifest(bundle)
    files = {
        name: FileRecord(sha256=sha256_of_file(bundle / name), size=(bundle / name).stat().st_size)
        for name in manifest.files
    }
    text = manifest.model_copy(update={"files": files}).model_dump_json(indent=2)
    (bundle / "manifest.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
