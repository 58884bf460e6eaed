"""The correctness suite's small shapes under NVIDIA's compute-sanitizer.

In processes of their own, side by side; torch's allocator is told not to cache, so that every buffer is an allocation
of its exact size and an access just behind it is seen.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.kernel_lab import processes

__all__ = ["TOOLS", "Finding", "find_sanitizer", "run_tools"]

TOOLS = ("memcheck", "racecheck", "synccheck")
# Not one that Python or torch ends with.
_FOUND_ERRORS = 86
_DROPPED = "no time for: "
# "ERROR SUMMARY: 0 errors" of memcheck and synccheck, "RACECHECK SUMMARY: 0 hazards displayed (...)".
_CLEAN = re.compile(r"SUMMARY: 0 (errors|hazards)")
_CHECKED = re.compile(r"^[1-9]\d* cases checked", re.MULTILINE)


def find_sanitizer() -> str | None:
    """NVIDIA's compute-sanitizer, or None."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    for candidate in (shutil.which("compute-sanitizer"), f"{home}/bin/compute-sanitizer"):
        if candidate and Path(candidate).is_file():
            return candidate
    return None


@dataclass(frozen=True)
class Finding:
    """What one tool says: a fault, empty if there is none, and the problems that it had no time for."""

    fault: str
    dropped: tuple[str, ...] = ()


def run_tools(library: Path, seconds: float, tool: str) -> dict[str, Finding]:
    """What each tool found.

    Args:
        library: the plugin library.
        seconds: that all of them may take. The program under test begins no case after three quarters of them; what
            still runs at the end is stopped, which is a fault.
        tool: compute-sanitizer's path.
    """
    environment = {**processes.environment(), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    start = time.monotonic()
    program = [sys.executable, "-m", "benchmarks.kernel_lab.sanitizers", "--library", str(library)]
    # A moment, not a duration: under a sanitizer the import of torch alone takes long.
    program += ["--until", f"{start + 0.75 * seconds:.1f}"]
    options = ["--error-exitcode", str(_FOUND_ERRORS)]
    usage = subprocess.run([tool, "--help"], capture_output=True, text=True, check=False)
    if "--kernel-name" in usage.stdout + usage.stderr:
        options += ["--kernel-name", "kns=edgeformer"]  # torch's fill and copy kernels are not under test
    with contextlib.ExitStack() as files:
        running = {}
        for name in TOOLS:
            # A file, not a pipe: nobody reads one tool's output while another is waited for.
            output = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
            process = subprocess.Popen(
                [tool, "--tool", name, *options, *program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            files.callback(processes.end, process)  # whatever ends the wait for it
            running[name] = (process, output)
        return {
            name: _verdict(process, output, max(start + seconds - time.monotonic(), 1.0))
            for name, (process, output) in running.items()
        }


def _verdict(process: subprocess.Popen[bytes], file: IO[str], seconds: float) -> Finding:
    try:
        process.wait(timeout=seconds)
        finished = True
    except subprocess.TimeoutExpired:
        processes.end(process)
        finished = False
    file.seek(0)
    output = file.read()
    if not finished:
        return Finding(f"not finished after its share of the time; the end of its output: {_end(output)}")
    if process.returncode != 0:
        return Finding(f"exit code {process.returncode}: {_end(output)}")
    # An exit code of 0 alone proves nothing: racecheck's warnings have it, and so has a tool that watched no program.
    if _CHECKED.search(output) and _CLEAN.search(output):
        return Finding("", tuple(re.findall(rf"^{_DROPPED}(.*)$", output, re.MULTILINE)))
    return Finding(f"no errors, and no clean summary either: {_end(output)}")


def _end(output: str) -> str:
    return " | ".join(output.strip().splitlines()[-12:])


def main() -> int:
    """The program under the sanitizer: every type and variant on small shapes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="moment of the monotonic clock")
    arguments = parser.parse_args()

    from benchmarks.kernel_lab import correctness
    from benchmarks.kernel_lab.backend import CudaBackend
    from edgeformer.ops.library import load_library

    backend, library = CudaBackend(), load_library(arguments.library)
    checked = 0
    for problem in correctness.awkward_problems():
        if time.monotonic() > arguments.until:
            print(f"{_DROPPED}{problem.name}")
            continue
        for case in correctness.check(problem, backend, library):
            checked += 1
            if case.fault:
                print(f"{case.name} {case.input_type} {case.variant} lepe={case.lepe_kernel}: {case.fault}")
                return 1
            if time.monotonic() > arguments.until:
                print(f"{_DROPPED}the rest of {problem.name}")
                break
    print(f"{checked} cases checked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
