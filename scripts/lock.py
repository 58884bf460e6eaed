"""Lock the packages that scripts/setup installs: every version, transitive ones too, with the hashes of its files.

    scripts/lock.py             after a change in pyproject.toml: what is locked stays as far as it fits
    scripts/lock.py --upgrade   take the newest versions

One set of files serves all Pythons that pyproject.toml names, on x86-64 and Arm (markers choose). Each package stands
in one file; `locked.sh` installs them. Needs uv (pip install uv) and the package registry. Afterwards run scripts/test.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "scripts" / "lock"
# The files in the order in which they are installed; each holds what the ones before it do not. Torch and the CUDA
# libraries are taken out of "setup": where there is a CPU build of torch (torch_cpu.txt), it takes the place of both.
GROUPS = ("build", "core", "setup", "device")
FILES = ("build", "core", "setup", "torch", "cuda", "device")
# What builds the packages that NVIDIA and pycuda publish as source alone.
SOURCE_BUILDS = ("setuptools", "wheel")
# What the tests need that scripts/try_pythons runs.
SMOKE_TESTS = ("psutil", "pytest")
# NVIDIA's tools that pyproject.toml names are no part of torch.
OWN_TOOLS = ("nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm", "nvidia-ml-py")
CUDA_LIBRARY = re.compile(r"nvidia-|cuda-|triton==")
# PyTorch's CPU builds. PyPI has none: pip finds one where its configuration names a place that has it. They have a file
# of their own, since pip prefers files whose hashes an index tells it beforehand.
CPU_BUILDS = {
    "torch==2.13.0+cpu": {
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": (
            "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
        ),
    },
}
# Between an entry's version and its hashes.
SEPARATOR = " \\\n    "
HEADER = "# Made by scripts/lock.py from pyproject.toml. Do not edit.\n"


def pyproject() -> dict[str, Any]:
    """pyproject.toml. Python 3.10 has no reader of its own; pytest and mypy bring one there."""
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    found: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text())
    return found


def pythons() -> list[str]:
    """The Pythons that pyproject.toml names, such as "3.10"; the oldest first."""
    found = re.findall(r"Python :: (3\.\d+)$", "\n".join(pyproject()["project"]["classifiers"]), re.MULTILINE)
    return sorted(found, key=lambda version: int(version.partition(".")[2]))


def entries(text: str) -> list[str]:
    """The requirements of a file in pip's form, each with its hashes, without comments."""
    lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return re.split(r"\n(?=\S)", lines)


def name_of(entry: str) -> str:
    """The package that an entry pins."""
    return entry.partition("==")[0]


def wanted() -> dict[str, str]:
    """What each of GROUPS has to hold, as requirements."""
    build = "\n".join([*pyproject()["build-system"]["requires"], *SOURCE_BUILDS])
    core = "\n".join([".", *SMOKE_TESTS])
    return {"build": build, "core": core, "setup": ".[test,rtx,video,loadgen]", "device": ".[tensorrt,gpu,bench]"}


def compiled(requirements: str, pinned: str, options: list[str]) -> list[str]:
    """What uv makes of requirements, given what was locked before: an entry for each package."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("lock: no uv (pip install uv)")
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "requirements.in", Path(folder) / "requirements.txt"
        source.write_text(requirements + "\n")
        output.write_text(pinned)
        command = [uv, "pip", "compile", str(source), "--universal", "--python-version", pythons()[0]]
        command += ["--no-python-downloads", "--quiet", "--generate-hashes", "--no-annotate", "--no-header"]
        command += [*options, "--output-file", str(output)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return [entry for entry in entries(output.read_text()) if not entry.startswith(".")]


def cpu_build(torch: str) -> str:
    """The entry of torch's CPU builds, given the version of "torch==..."."""
    hashes = CPU_BUILDS.get(f"{torch}+cpu")
    if hashes is None:
        sys.exit(f"lock: CPU_BUILDS has no {torch}+cpu: add the SHA-256 of PyTorch's CPU wheels of that version")
    return SEPARATOR.join([f"{torch}+cpu", *(f"--hash=sha256:{digest}" for digest in hashes.values())])


def file_of(entry: str, groups: dict[str, set[str]]) -> str:
    """The file that an entry belongs to, given the packages of each group."""
    name = name_of(entry)
    group = next(group for group in GROUPS if name in groups[group])
    if group != "setup":
        return group
    if name == "torch":
        return "torch"
    return "cuda" if CUDA_LIBRARY.match(entry) and name not in OWN_TOOLS else "setup"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    before = "".join((FOLDER / f"{name}.txt").read_text() for name in FILES if (FOLDER / f"{name}.txt").exists())
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    # All at once, so that the groups agree; then what each of them takes of it.
    found = compiled("\n".join(wanted().values()), before, upgrade)
    pinned = "\n".join(found) + "\n"
    groups = {name: {name_of(entry) for entry in compiled(text, pinned, [])} for name, text in wanted().items()}
    files = {name: [entry for entry in found if file_of(entry, groups) == name] for name in FILES}
    files["torch_cpu"] = [cpu_build(files["torch"][0].split()[0])]
    for name, own in files.items():
        path = FOLDER / f"{name}.txt"
        path.write_text(HEADER + "\n".join(own) + "\n")
        print(f"{path.relative_to(ROOT)}: {len(own)} entries")


if __name__ == "__main__":
    main()
