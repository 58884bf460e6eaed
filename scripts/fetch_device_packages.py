#!/usr/bin/env python3
"""Fetch the Python packages that edgeformer needs on a device, for the bundles that are finished there.

    scripts/fetch_device_packages.py [--cpu aarch64] [--python 3.10 --python 3.12]

Wheels go to third_party/device/CPU/cp3XX; from then on, `edgeformer build` for such a device puts them into the bundle,
and the device needs no network. They are the versions that scripts/lock has, checked against its hashes. Without
--python: those of the JetPacks for aarch64, every Python that pyproject.toml names for x86_64.

Exit code 0: the wheels are there; 1: they are not, and the message says why.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from wheels import FetchError, clean_environment, find_pip, is_published, publish

ROOT = Path(__file__).resolve().parents[1]
LOCKED = tuple(ROOT / "scripts" / "lock" / name for name in ("core.txt", "build.txt"))
DESTINATION = ROOT / "third_party" / "device"
JETPACKS = ROOT / "edgeformer" / "machine" / "jetpack.json"
# What edgeformer imports to finish and to run a bundle, with what these need in turn.
PACKAGES = (
    *("annotated-types", "click", "markdown-it-py", "mdurl", "numpy", "pillow", "pydantic", "pydantic-core"),
    *("pygments", "rich", "typing-extensions", "typing-inspection"),
)
# Newest first: pip takes a wheel of any of them.
PLATFORMS = ("manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
MARKER = re.compile(r"python_full_version (<|>=|==) '(3\.\d+)'")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", choices=("aarch64", "x86_64"), default="aarch64", help="the device's processor")
    parser.add_argument("--python", action="append", metavar="3.N", help="a Python of the device; repeatable")
    options = parser.parse_args()
    try:
        for python in options.python or pythons(options.cpu):
            fetch_packages(options.cpu, python)
    except FetchError as error:
        print(f"fetch_device_packages: {error}", file=sys.stderr)
        return 1
    return 0


def pythons(cpu: str) -> list[str]:
    """The Pythons that devices with a processor have."""
    if cpu == "aarch64":
        found = {jetpack["python"] for jetpack in json.loads(JETPACKS.read_text())["jetpacks"]} - {None}
    else:
        found = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()))
    return sorted(found, key=lambda version: int(version.split(".")[1]))


def requirements(python: str) -> str:
    """The locked packages for a Python, each with its hashes, without markers: pip evaluates those for this Python."""
    chosen = []
    for entry in re.split(r"\n(?=[a-z])", "\n".join(path.read_text().rstrip() for path in LOCKED)):
        head, _, hashes = entry.partition(" \\\n")
        requirement, _, marker = head.partition(" ; ")
        if requirement.partition("==")[0] in PACKAGES and holds(marker, python):
            chosen.append(f"{requirement} \\\n{hashes}")
    missing = set(PACKAGES) - {entry.partition("==")[0] for entry in chosen}
    if missing:
        raise FetchError(f"{LOCKED[0].parent} pins no {', '.join(sorted(missing))} for Python {python}")
    return "\n".join(chosen) + "\n"


def holds(marker: str, python: str) -> bool:
    """Whether a marker of the lock file holds for a Python."""
    minor = int(python.split(".")[1])
    for operator, version in MARKER.findall(marker):
        limit = int(version.split(".")[1])
        if not {"<": minor < limit, ">=": minor >= limit, "==": minor == limit}[operator]:
            return False
    return True


def fetch_packages(cpu: str, python: str) -> None:
    """Put the wheels for one Python in place.

    Raises:
        FetchError: they cannot be had.
    """
    destination = DESTINATION / cpu / f"cp{python.replace('.', '')}"
    wanted = requirements(python)
    if is_published(destination, wanted):
        return
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "requirements.txt")
        listed.write_text(wanted)
        wheels = Path(folder, "wheels")
        wheels.mkdir()
        command = [*find_pip(Path(folder)), "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--disable-pip-version-check", "--quiet", "--python-version", python, "--implementation", "cp"]
        command += [word for name in PLATFORMS for word in ("--platform", f"{name}_{cpu}")]
        done = subprocess.run(
            [*command, "--dest", str(wheels), "--requirement", str(listed)],
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
        )
        if done.returncode != 0:
            raise FetchError(f"pip could not download the packages for Python {python}:\n{done.stderr.strip()}")
        publish(destination, wanted, {path.name: path.read_bytes() for path in wheels.iterdir()})
    print(f"packages for Python {python} on {cpu}: {destination}")


if __name__ == "__main__":
    sys.exit(main())
