#!/usr/bin/env python3
"""Compile the runtime and its examples for 64-bit Arm on an x86-64 machine, and run them under qemu-user.

They run on ONNX Runtime for Arm, on a small network that this script makes, and on a bundle if one is given. Their
results are compared with those of ONNX Runtime on this machine. Where that cannot be done, the script ends with 4 and
says what is missing.

Needed: CMake; Debian's g++-aarch64-linux-gnu and qemu-user-static; OpenSSL for Arm (dpkg --add-architecture arm64 &&
apt-get update; the package itself is unpacked into the build folder); pip, for ONNX Runtime.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from openssl_for_arm import TRIPLE, NotThere, cmake_options, unpacked

__all__ = ["build", "main", "missing_tools", "run_on_arm"]

ROOT = Path(__file__).resolve().parents[1]
QEMU = "qemu-aarch64-static"
COMPILER = f"{TRIPLE}-g++"
TOOLS = {
    "cmake": "cmake",
    COMPILER: f"g++-{TRIPLE}",
    QEMU: "qemu-user-static",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
"""Programs that are needed, and the Debian packages that they come from."""

CORTEX_A72 = """BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
"""A core of /proc/cpuinfo, as Linux on Arm has it."""


def missing_tools() -> list[str]:
    """The programs that are needed and not installed, with their packages."""
    return [f"{tool} (Debian: {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]


def _run(*command: str | Path, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _onnx_runtime(folder: Path) -> Path:
    """ONNX Runtime's library for Arm, of the version that is installed here."""
    wheels = folder / "wheels"
    wanted = f"onnxruntime=={version('onnxruntime')}"
    pip = [sys.executable, "-m", "pip", "download", wanted, "--platform", "manylinux_2_28_aarch64"]
    if not list(wheels.glob("onnxruntime-*aarch64.whl")):
        done = subprocess.run(
            [*pip, "--only-binary=:all:", "--no-deps", "--dest", str(wheels)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise NotThere(f"{wanted} for Arm cannot be downloaded: {done.stderr.strip()}")
    (wheel,) = wheels.glob("onnxruntime-*aarch64.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if re.search(r"capi/libonnxruntime\.so\.[\d.]+$", name))
        return Path(archive.extract(name, folder / "onnxruntime"))


def build(folder: Path, jobs: int) -> Path:
    """Compile and install the runtime, then the examples against what was installed.

    Args:
        folder: for everything that is made.
        jobs: compilers that run at once.

    Returns:
        The installation; the examples are in ``folder / "examples"``.

    Raises:
        NotThere: something that is needed is not there.
    """
    openssl = cmake_options(unpacked(folder))
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'cmake' / 'toolchains' / 'aarch64-linux.cmake'}"
    prefix = folder / "installed"
    common = [
        toolchain,
        "-DEDGEFORMER_WITHOUT_CUDA=ON",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
    ]
    runtime = ["-DEDGEFORMER_BUILD_TESTS=OFF", *openssl]
    tree = folder / "runtime"
    _run("cmake", "-S", ROOT, "-B", tree, *common, *runtime)
    _run("cmake", "--build", tree, "--parallel", str(jobs), "--target", "edgeformer_runtime", "edgeformer_run")
    for component in ("runtime", "development"):
        _run("cmake", "--install", tree, "--component", component)
    examples = folder / "examples"
    _run(
        "cmake",
        "-S",
        ROOT / "examples" / "runtime",
        "-B",
        examples,
        *common,
        f"-DCMAKE_PREFIX_PATH={prefix}",
        "-DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=BOTH",
    )
    _run("cmake", "--build", examples, "--parallel", str(jobs))
    return prefix


def _system(folder: Path) -> Path:
    """What programs for Arm find at ``/lib`` and ``/proc/cpuinfo``.

    ONNX Runtime reads the latter as it is opened. Older versions of QEMU show the x86-64 machine's there, on which it
    crashes.
    """
    system = folder / "system"
    (system / "proc").mkdir(parents=True, exist_ok=True)
    if not (system / "lib").is_symlink():
        (system / "lib").symlink_to(Path("/usr") / TRIPLE / "lib")
    processors = (f"processor\t: {index}\n{CORTEX_A72}" for index in range(os.cpu_count() or 1))
    (system / "proc" / "cpuinfo").write_text("\n".join(processors))
    return system


def run_on_arm(folder: Path, *command: str | Path) -> str:
    """What a program for Arm prints; a program's failure ends the script.

    Args:
        folder: that `build` was given.
        command: the program and its arguments.
    """
    environment = {"EDGEFORMER_ONNXRUNTIME_LIBRARY": str(_onnx_runtime(folder))}
    return _run(QEMU, "-L", _system(folder), *command, environment=environment)


def _small_network(path: Path) -> Path:
    """A matrix product and a softmax, with fixed random weights."""
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(48, 10)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["shares"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 48])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["n", 10])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _compare(folder: Path, prefix: Path, model: Path, graph: Path) -> float:
    """The largest difference between the two processors, relative to the largest value.

    Args:
        folder: that `build` was given.
        prefix: the installation.
        model: what edgeformer-run is given.
        graph: the ONNX file that it runs.
    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 2 for size in given.shape]
    array: NDArray[np.float32] = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    np.save(folder / "array.npy", array)
    outputs = folder / "outputs"
    print(run_on_arm(folder, prefix / "bin" / "edgeformer-run", model, folder / "array.npy", "-o", outputs), end="")
    name = session.get_outputs()[0].name
    expected = session.run([name], {given.name: array})[0]
    return float(np.abs(np.load(outputs / f"{name}.npy") - expected).max() / np.abs(expected).max())


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, run, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?", help="a bundle to run, too")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "cross_runtime", help="for what is made")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers that run at once")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    try:
        if missing := missing_tools():
            raise NotThere(f"not installed: {', '.join(missing)}")
        prefix = build(folder, options.jobs)
        network = _small_network(folder / "small.onnx")
        print(run_on_arm(folder, prefix / "bin" / "edgeformer-run", network), end="")
    except NotThere as reason:
        print(f"not run: {reason}", file=sys.stderr)
        return 4
    models = [(network, network)]
    if options.bundle is not None:
        bundle = options.bundle.absolute()
        models.append((bundle, bundle / "typed.onnx"))
        examples = folder / "examples"
        print(run_on_arm(folder, examples / "embed", bundle), end="")
        print(run_on_arm(folder, examples / "many_threads", bundle, "4", "2", "2"), end="")
    for model, graph in models:
        difference = _compare(folder, prefix, model, graph)
        print(f"{model}: max |diff| / max |ref| {difference:.2g} between Arm and this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
