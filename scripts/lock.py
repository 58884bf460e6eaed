"""Lock the packages that scripts/setup installs: every version, transitive ones too, with the hashes of its files.

    scripts/lock.py             after a change in pyproject.toml: what is locked stays as far as it fits
    scripts/lock.py --upgrade   take the newest versions

One set of files serves Python 3.10 to 3.13 on x86-64 and Arm (markers choose). Needs uv (pip install uv) and the package
registry. Afterwards run scripts/test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "scripts" / "lock"
# All that scripts/setup installs but torch; torch alone; the CUDA libraries that torch's build from PyPI needs and its
# CPU build does not; what a device with a GPU adds.
SETUP, TORCH, CUDA, DEVICE = (FOLDER / f"{name}.txt" for name in ("setup", "torch", "cuda", "device"))
EXTRAS = {"setup": ("test", "rtx"), "device": ("tensorrt", "gpu")}
OLDEST_PYTHON = "3.10"
# The CUDA tools that pyproject.toml names are no part of torch.
OWN_TOOLS = ("nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm")
CUDA_LIBRARY = re.compile(r"(nvidia-|cuda-|triton==)")
# PyTorch's CPU builds, which are not on PyPI: pip takes one where its configuration names a place that has it.
CPU_BUILDS = {
    "torch==2.13.0": {
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": (
            "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
        ),
    },
}
HEADER = "# Made by scripts/lock.py from pyproject.toml. Do not edit.\n"


def entries(text: str) -> list[str]:
    """The requirements of a file in pip's form, each with its hashes, without comments."""
    lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return re.split(r"\n(?=\S)", lines)


def compiled(requirements: str, pinned: str, options: list[str]) -> str:
    """What uv makes of requirements, given what was locked before."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("lock: no uv (pip install uv)")
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "requirements.in", Path(folder) / "requirements.txt"
        source.write_text(requirements)
        output.write_text(pinned)
        command = [uv, "pip", "compile", str(source), "--universal", "--python-version", OLDEST_PYTHON]
        command += ["--no-python-downloads", "--quiet", "--generate-hashes", "--no-annotate", "--no-header"]
        subprocess.run([*command, *options, "--output-file", str(output)], cwd=ROOT, check=True, stdout=-3)
        return output.read_text()


def with_cpu_builds(entry: str) -> str:
    """An entry with the hashes of the CPU builds of that version."""
    name = entry.split()[0]
    builds = CPU_BUILDS.get(name)
    if builds is None:
        sys.exit(f"lock: CPU_BUILDS has no {name}: add the SHA-256 of PyTorch's CPU wheels of that version")
    return " \\\n".join([entry, *(f"    --hash=sha256:{digest}" for digest in builds.values())])


def written(path: Path, found: list[str]) -> None:
    path.write_text(HEADER + "\n".join(found) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(found)} packages")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    project = re.search(
        r'^requires = \["(scikit-build-core.*?)"\]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert project is not None
    pinned = "".join(path.read_text() for path in (SETUP, TORCH, CUDA) if path.exists())
    wanted = f".[{','.join(EXTRAS['setup'])}]\n{project[1]}\n"
    found = [entry for entry in entries(compiled(wanted, pinned, upgrade)) if not entry.startswith(".")]
    torch = [entry for entry in found if entry.startswith("torch==")]
    cuda = [entry for entry in found if CUDA_LIBRARY.match(entry) and not entry.startswith(OWN_TOOLS)]
    written(SETUP, [entry for entry in found if entry not in torch + cuda])
    written(TORCH, [with_cpu_builds(entry) for entry in torch])
    written(CUDA, cuda)
    pinned = SETUP.read_text() + (DEVICE.read_text() if DEVICE.exists() else "")
    device = compiled(f".[{','.join(EXTRAS['device'])}]\n", pinned, upgrade)
    written(DEVICE, [entry for entry in entries(device) if not entry.startswith(".")])


if __name__ == "__main__":
    main()
