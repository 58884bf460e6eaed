"""Does a TensorRT-RTX engine run on this GPU? It is made for GeForce RTX; a data-centre GPU may be refused.

Asked in a process of its own, because TensorRT ends the process on some failures; whatever the answer, it is recorded.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgeformer.errors import InputError
from kernel_lab.build import ROOT

__all__ = ["ask", "joined_wheel"]

_SIDE = 1024


def joined_wheel(parts: Sequence[Path], folder: Path) -> Path:
    """Unpack a wheel, or a zip of installed packages, that was cut into parts (in order) to travel; gives the folder.

    Raises:
        InputError: a part is missing, or the whole is no zip file.
    """
    whole = folder / "joined.zip"
    with whole.open("wb") as target:
        for part in parts:
            try:
                target.write(part.read_bytes())
            except OSError as error:
                raise InputError(f"{part}: {error.strerror}; give the parts of the wheel in their order") from error
    packages = folder / "packages"
    try:
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(packages)
    except (zipfile.BadZipFile, OSError) as error:  # parts out of order give offsets before the start
        raise InputError(
            f"{', '.join(map(str, parts))} joined are no wheel ({error}): give all parts of one, in their order"
        ) from error
    whole.unlink()
    return packages


def ask(parts: Sequence[Path], library: Path | None, seconds: float) -> list[str]:
    """The steps that were taken, the last of them the answer.

    Args:
        parts: of a wheel with ``tensorrt_rtx``; none: the installed one.
        library: the plugin library, if it was built with the plugin.
        seconds: to wait.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = [str(ROOT), str(ROOT / "scripts")]
        if parts:
            path.insert(0, str(joined_wheel(parts, Path(temporary))))
        elif importlib.util.find_spec("tensorrt_rtx") is None:
            return ["tensorrt_rtx is not installed and no --tensorrt-rtx-wheel-part was given: not asked"]
        command = [sys.executable, "-m", "kernel_lab.tensorrt_rtx"]
        if library is not None:
            command += ["--library", str(library)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=max(seconds, 1.0), env=environment
            )
        except subprocess.TimeoutExpired:
            return [f"no answer after {seconds:.0f} s"]
    steps = [line for line in result.stdout.splitlines() if line.strip()]
    if result.returncode:
        tail = " | ".join(result.stderr.strip().splitlines()[-4:])
        steps.append(f"the process ended with {result.returncode}: {tail}")
    return steps


def main() -> None:
    """Build a small engine for this GPU, run it and compare; each step is a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", type=Path)
    arguments = parser.parse_args()

    import tensorrt_rtx as trt
    import torch

    print(f"tensorrt_rtx {trt.__version__} imported")
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    source = network.add_input("x", trt.float32, (_SIDE,))
    layer = network.add_elementwise(source, source, trt.ElementWiseOperation.SUM)
    activation = network.add_activation(layer.get_output(0), trt.ActivationType.RELU)
    activation.get_output(0).name = "y"
    network.mark_output(activation.get_output(0))
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        print("no engine: the builder refuses (its message is above, on standard error)")
        return
    print(f"engine of {plan.nbytes} bytes built")
    runtime = trt.Runtime(logger)
    if arguments.library is not None:
        loaded = runtime.get_plugin_registry().load_library(str(arguments.library))
        print("plugin library loaded" if loaded is not None else "plugin library refused by the registry")
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        print("the engine does not deserialize on this GPU")
        return
    context = engine.create_execution_context()
    if context is None:
        print("no execution context on this GPU")
        return
    x = torch.randn(_SIDE, device="cuda")
    y = torch.full_like(x, float("nan"))
    context.set_tensor_address("x", x.data_ptr())
    context.set_tensor_address("y", y.data_ptr())
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    if not context.execute_async_v3(stream.cuda_stream):
        print("the engine does not run on this GPU")
        return
    stream.synchronize()
    right = torch.equal(y, (2 * x).relu())
    print("the engine runs on this GPU" + (" and is right" if right else ", and its output is wrong"))


if __name__ == "__main__":
    main()
