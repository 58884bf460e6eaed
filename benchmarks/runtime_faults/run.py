#!/usr/bin/env python3
"""Plant each fault, and measure how long the runtime takes to say so in Python, C and C++.

No GPU is needed, and none is used: driver and TensorRT are stand-ins, so that what a real library takes to be opened is
not in the figures. Each figure is the fastest of several fresh processes, from the call that loads to its message.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runtime_faults.faults import FAULTS, Fault, environment_of, make_bundle
from edgeformer.ops.library_files import BUILD_COMMAND, RUNTIME, development_builds

__all__ = ["Answer", "Machine", "compile_programs", "doubles_of", "main"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LANGUAGES = ("python", "c", "c++")


@dataclass(frozen=True)
class Answer:
    """What a program said of a bundle.

    Attributes:
        message: of its failure, or "ran".
        milliseconds: that it took.
        done: what the stand-in for TensorRT did, in order: "deserialized", "enqueued".
    """

    message: str
    milliseconds: float
    done: tuple[str, ...]


def doubles_of(library: Path) -> Path | None:
    """The folder of the stand-ins in the build tree of a runtime library; None if they are not built."""
    folder = library.parent / "runtime" / "tests" / "tensorrt_doubles"
    names = ("libcuda.so.1", "libtensorrt_rtx.so.1", "libnvinfer.so.11")
    return folder if all((folder / name).is_file() for name in names) else None


def compile_programs(library: Path, folder: Path) -> dict[str, list[str]]:
    """The commands that load a bundle, by language.

    Args:
        library: the runtime library.
        folder: where the programs are put.

    Raises:
        subprocess.CalledProcessError: a program does not compile.
    """
    flags = [f"-I{ROOT / 'runtime' / 'include'}", f"-I{ROOT / 'plugins'}", "-Wall", "-Wextra", "-Werror", "-O1"]
    link = [f"-L{library.parent}", "-ledgeformer", f"-Wl,-rpath,{library.parent}"]
    c, cpp = str(folder / "load_c"), str(folder / "load_cpp")
    subprocess.run(
        ["cc", "-std=c99", "-D_POSIX_C_SOURCE=199309L", *flags, str(HERE / "load.c"), "-o", c, *link], check=True
    )
    subprocess.run(["c++", "-std=c++17", *flags, str(HERE / "load.cpp"), "-o", cpp, *link], check=True)
    return {"python": [sys.executable, str(HERE / "load.py")], "c": [c], "c++": [cpp]}


class Machine:
    """Programs that load bundles, on a machine of stand-ins."""

    def __init__(self, library: Path, doubles: Path, folder: Path) -> None:
        """Compile the programs.

        Args:
            library: the runtime library.
            doubles: the folder of the stand-ins.
            folder: an empty folder for programs, bundles and logs.
        """
        self._library = library
        self._doubles = doubles
        self._folder = folder
        self._commands = compile_programs(library, folder)

    def ask(self, language: str, bundle: Path, fault: Fault) -> Answer:
        """Have a program load a bundle on the machine that has this fault."""
        log = self._folder / "log.txt"
        log.unlink(missing_ok=True)
        environment = {
            **_without_ours(os.environ),
            **environment_of(self._doubles, log, fault.flavour, fault.environment),
            "EDGEFORMER_RUNTIME_LIBRARY": str(self._library),
            "PYTHONPATH": str(ROOT),
        }
        command = [*self._commands[language], str(bundle), str(fault.images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        milliseconds, _, message = done.stdout.partition("\n")
        noted = log.read_text().split() if log.exists() else []
        return Answer(message.removesuffix("\n"), float(milliseconds), tuple(noted))

    def plant(self, name: str, fault: Fault, engine_bytes: int = 4096) -> Path:
        """A bundle with a fault; the same folder for each, so that messages have the same path."""
        bundle = self._folder / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        make_bundle(bundle, fault.flavour, engine_bytes)
        fault.plant(bundle)
        return bundle


def _without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(("EDGEFORMER_", "FAKE_"))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5, help="processes for each figure (default: 5)")
    parser.add_argument("--engine-mb", type=float, default=6.25, help="size of the engine (default: the demo's, 6.25)")
    options = parser.parse_args(arguments)
    libraries = development_builds(RUNTIME)
    doubles = doubles_of(libraries[0]) if libraries else None
    if doubles is None:
        print(f"the runtime library or its stand-ins are not built: {BUILD_COMMAND}", file=sys.stderr)
        return 4
    print(f"engine of {options.engine_mb:g} MB; milliseconds until the message, fastest of {options.repeat}")
    print(f"{'fault':28}{'code':8}" + "".join(f"{language:>9}" for language in LANGUAGES))
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(libraries[0], doubles, Path(folder))
        for name, fault in FAULTS.items():
            bundle = machine.plant(name, fault, round(options.engine_mb * 1e6))
            taken = [
                min(machine.ask(language, bundle, fault).milliseconds for _ in range(options.repeat))
                for language in LANGUAGES
            ]
            print(f"{name:28}{fault.code:8}" + "".join(f"{milliseconds:9.2f}" for milliseconds in taken))
    return 0


if __name__ == "__main__":
    sys.exit(main())
