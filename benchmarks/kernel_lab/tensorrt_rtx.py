"""Do TensorRT-RTX engines run on this GPU, with the plugin in them? It is made for GeForce RTX; others may be refused.

Asked in a process of its own (`kernel_lab.engines`), because TensorRT ends the process on some failures; whatever the
answer, it is recorded. A machine that has no TensorRT-RTX and cannot fetch it gets it in parts:
``python -m benchmarks.kernel_lab.tensorrt_rtx FOLDER 2`` makes them of an unpacked one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from benchmarks.kernel_lab import processes
from edgeformer.errors import InputError
from edgeformer.machine.backends import find_backend

__all__ = ["DROPPED", "PLAIN_ENGINE_RUNS", "REFUSED", "WRONG", "Answer", "ask", "joined_wheel", "parts_of"]

# Exit codes of `benchmarks.kernel_lab.engines`; not ones that Python or torch ends with.
WRONG = 80
"""An engine ran, and is wrong or failed."""
REFUSED = 81
"""No engine of the op ran, because TensorRT-RTX does not serve this machine or refuses them."""
PLAIN_ENGINE_RUNS = "a plain engine runs on this GPU and is right"
"""Said once TensorRT-RTX has shown that it serves this GPU: what fails behind it has no such excuse."""
DROPPED = "no time for: "
"""Begins the line of an engine that was not tried."""
Verdict = Literal["not asked", "refused", "wrong", "right"]
_VERDICTS: dict[int | None, Verdict] = {0: "right", WRONG: "wrong", REFUSED: "refused"}


@dataclass(frozen=True)
class Answer:
    """What became of it.

    Attributes:
        verdict: "wrong" where an engine of the op ran and is wrong or failed, or where its process died or hung after a
            plain engine had run; "refused" where no engine of the op could run for TensorRT-RTX's own reasons.
        steps: lines, the last of them the answer.
    """

    verdict: Verdict
    steps: list[str]

    @property
    def dropped(self) -> list[str]:
        """Engines that there was no time for."""
        return [step.removeprefix(DROPPED) for step in self.steps if step.startswith(DROPPED)]


def parts_of(packages: Path, count: int) -> list[Path]:
    """Pack a folder of packages as small as it gets and cut it, for transfers that take only so much at a time.

    Args:
        packages: the folder; the parts lie beside it.
        count: of parts, all of them of one size.

    Raises:
        InputError: the folder holds no tensorrt_rtx.
    """
    if not any(packages.glob("tensorrt_rtx*/__init__.py")):
        raise InputError(
            "EF102", f"{packages} holds no package tensorrt_rtx or tensorrt_rtx_bindings: unpack its wheels there"
        )
    with tempfile.TemporaryFile() as whole:
        # A wheel's own compression leaves the libraries half as large again.
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_LZMA) as archive:
            for path in sorted(packages.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    archive.write(path, path.relative_to(packages))
        size = -(-whole.tell() // count)
        whole.seek(0)
        parts = [packages.with_name(f"{packages.name}.part{number}") for number in range(count)]
        for part in parts:
            part.write_bytes(whole.read(size))
    return parts


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
                raise InputError(
                    "EF102", f"{part}: {error.strerror}; give the parts of the wheel in their order"
                ) from error
    packages = folder / "packages"
    try:
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(packages)
    except (zipfile.BadZipFile, OSError) as error:  # parts out of order give offsets before the start
        raise InputError(
            "EF102",
            f"{', '.join(map(str, parts))} joined are no wheel ({error}): give all parts of one, in their order",
        ) from error
    whole.unlink()
    return packages


def ask(parts: Sequence[Path], library: Path | None, seconds: float, *words: str) -> Answer:
    """Ask for engines of the op.

    Args:
        parts: of a wheel with ``tensorrt_rtx``; none: the installed one.
        library: the plugin library, if it was built with the plugin.
        seconds: to wait. No engine is begun after three quarters of them; what still runs at the end hangs.
        words: more of `benchmarks.kernel_lab.engines`' command line.
    """
    start, seconds = time.monotonic(), max(seconds, 1.0)
    with tempfile.TemporaryDirectory() as temporary:
        packages: list[Path] = []
        if parts:
            packages.append(joined_wheel(parts, Path(temporary)))
        elif find_backend("tensorrt_rtx") is None:
            text = "tensorrt_rtx is not installed and no --tensorrt-rtx-wheel-part was given: not asked"
            return Answer("not asked", [text])
        until = f"{start + 0.75 * seconds:.1f}"
        command = [sys.executable, "-m", "benchmarks.kernel_lab.engines", "--until", until, *words]
        if library is not None:
            command += ["--library", str(library)]
        # Files, so that what was said before a process is stopped is not lost.
        with (Path(temporary) / "output").open("w+") as output, (Path(temporary) / "errors").open("w+") as errors:
            code = _run(command, processes.environment(packages), output, errors, seconds)
            output.seek(0)
            errors.seek(0)
            steps = [line.strip() for line in output if line.strip()]
            tail = " | ".join(line.strip() for line in errors.readlines()[-4:] if line.strip())
    verdict = _VERDICTS.get(code)
    if verdict is None:
        verdict = "wrong" if PLAIN_ENGINE_RUNS in steps else "refused"
        end = f"stopped after {seconds:.0f} s" if code is None else f"the process ended with {code}"
        steps.append(f"{end}{f': {tail}' if tail else ''}")
    return Answer(verdict, steps)


def _run(
    command: list[str], environment: dict[str, str], output: IO[str], errors: IO[str], seconds: float
) -> int | None:
    """The exit code of a process, or None where it was stopped."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        processes.end(process)


def main() -> int:
    """Cut a folder of packages into parts."""
    parser = argparse.ArgumentParser(description="Cut a folder of unpacked packages into parts that travel.")
    parser.add_argument("packages", type=Path)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    try:
        for part in parts_of(arguments.packages, arguments.count):
            print(f"{part}: {part.stat().st_size / 2**20:.1f} MiB")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
