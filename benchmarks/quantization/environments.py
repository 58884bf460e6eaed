"""An environment for each rival, made from the package registry that pip is set up for; this one is never changed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quantization.tools import TOOLS

__all__ = ["ENVIRONMENTS", "HERE", "Environment", "Unavailable", "python_of", "versions_of"]

HERE = ("edgeformer", "onnxruntime")
"""Tools that are in this environment."""


class Unavailable(Exception):
    """A tool could not be installed; the message says why."""


@dataclass(frozen=True)
class Environment:
    """What a tool needs.

    Attributes:
        packages: installed with what they depend on.
        alone: installed without: they ask for what a CPU does not have (CUDA builds of ONNX Runtime, CuPy).
        shares: whether it sees this environment's packages (torch above all) behind its own.
        shown: packages whose versions are told.
    """

    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()
    shares: bool = True
    shown: tuple[str, ...] = ()


ENVIRONMENTS: Mapping[str, Environment] = {
    "modelopt": Environment(
        packages=(
            *("onnx==1.21.0", "onnxruntime>=1.24.2,<1.25", "protobuf<7", "onnxconverter-common", "onnxslim>=0.1.76"),
            *("lief", "cppimport", "pulp<4", "omegaconf", "regex", "scipy", "safetensors", "ninja", "nvidia-ml-py"),
            *("tqdm", "PyYAML", "pydantic", "rich"),
        ),
        alone=("nvidia-modelopt==0.47.0",),
        shown=("nvidia-modelopt",),
    ),
    "quark": Environment(
        packages=(
            *("onnx>=1.21,<=1.22", "onnxruntime>=1.22.2,<1.29", "protobuf<7", "onnxslim", "zstandard", "plotly"),
            *("psutil", "scipy", "tqdm", "pydantic", "rich", "joblib", "pandas", "sentencepiece", "ninja", "evaluate"),
        ),
        alone=("amd-quark==0.13",),
        shown=("amd-quark",),
    ),
    "aimet": Environment(
        packages=(
            *("onnx<1.22", "onnxruntime<1.29", "protobuf<7", "onnxscript", "onnx_ir", "psutil", "jsonschema", "osqp"),
            *("bokeh", "hvplot", "pybind11", "PyYAML", "tqdm", "scikit-learn", "scipy", "pandas", "Jinja2"),
        ),
        alone=("onnx2torch", "aimet-onnx==2.42.0"),
        shown=("aimet-onnx",),
    ),
    "neural_compressor": Environment(
        packages=(
            *("numpy<2", "onnx==1.16.2", "onnxruntime==1.19.2", "scipy<1.14", "psutil", "py-cpuinfo", "pydantic"),
            *("prettytable", "sympy", "protobuf", "packaging", "coloredlogs", "transformers", "onnxruntime-extensions"),
        ),
        alone=("onnx-neural-compressor==1.0",),
        shares=False,
        shown=("onnx-neural-compressor",),
    ),
}

assert set(ENVIRONMENTS) | set(HERE) == set(TOOLS)


def python_of(tool: str, cache: Path) -> Path:
    """The Python that runs a tool's rows; its environment is made where it is not there yet.

    Args:
        tool: its name.
        cache: folder of the environments.

    Raises:
        Unavailable: a package cannot be installed here.
    """
    if tool in HERE:
        return Path(sys.executable)
    environment, folder = ENVIRONMENTS[tool], cache / tool
    python, done = folder / "bin" / "python", folder / "installed"
    asked = "\n".join((*environment.packages, *environment.alone))
    if done.exists() and done.read_text() == asked:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    if environment.shares:
        # Behind its own packages: a folder named in a .pth file is looked at last.
        own = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
        Path(own, "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, *environment.packages])
    if environment.alone:
        _run([*install, "--no-deps", *environment.alone])
    done.write_text(asked)
    return python


def versions_of(tool: str, python: Path) -> dict[str, str]:
    """Versions of a tool and of what it runs on."""
    own = ENVIRONMENTS[tool].shown if tool in ENVIRONMENTS else ("edgeformer",) * (tool == "edgeformer")
    script = "import importlib.metadata as m, sys; print(*[m.version(name) for name in sys.argv[1:]])"
    names = (*own, "onnxruntime", "onnx")
    return dict(zip(names, _run([str(python), "-c", script, *names]).split(), strict=True))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(lines[-1][:300] if lines else f"{command[0]} ended with {done.returncode}")
    return done.stdout


def main() -> None:
    """Make environments: ``python -m benchmarks.quantization.environments CACHE [TOOL...]``."""
    cache, *tools = sys.argv[1:]
    for tool in tools or ENVIRONMENTS:
        try:
            print(f"{tool}: {versions_of(tool, python_of(tool, Path(cache)))}", flush=True)
        except Unavailable as error:
            print(f"{tool}: cannot be installed: {error}", flush=True)


if __name__ == "__main__":
    main()
