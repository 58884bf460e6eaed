#!/usr/bin/env python3
"""Plant bugs in the kernels, one at a time, and show that the tests find every one of them.

The bugs stand in plugins/tests/mutations/. Each is compiled as host C++ with sanitizers, linked with the rest of the
emulated library and run on the tests of plugins/tests/bi_level_routing_attention/one_kernel_test.cpp that it names. The
kernels as they are must pass all of them.

    scripts/mutate_kernels.py [--build FOLDER] [--jobs N] [PATTERN]

PATTERN is a regular expression for the names of the bugs to plant; all without it. Needs a build tree with the C++
tests. Exit code 0: every bug was found; 1: one survived, or a test failed without any; 2: they could not be planted.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "plugins"
KERNELS = PLUGINS / "bi_level_routing_attention"
TESTS = PLUGINS / "tests"
SUITE = TESTS / "bi_level_routing_attention" / "one_kernel_test.cpp"

sys.dont_write_bytecode = True
sys.path.insert(0, str(TESTS))
from mutations import MUTATIONS, Mutation  # noqa: E402

SECONDS_PER_RUN = 300


class CannotPlant(Exception):
    """A mutation does not fit the sources, or does not compile."""


@dataclass(frozen=True)
class Sanitizers:
    """One way to build: the variant of plugins/tests/CMakeLists.txt whose libraries are linked.

    Attributes:
        variant: suffix of the libraries' names.
        flags: what they are compiled and linked with.
    """

    variant: str
    flags: tuple[str, ...]


MEMORY = Sanitizers("_sanitized", ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"))
THREADS = Sanitizers("_thread_sanitized", ("-fsanitize=thread",))

ENVIRONMENT = {
    "GTEST_BRIEF": "1",
    "GTEST_FAIL_FAST": "1",
    "ASAN_OPTIONS": "detect_leaks=0",
    "TSAN_OPTIONS": "halt_on_error=1",
}

# What found a bug, by what the test program wrote.
FINDINGS = (
    (r"AddressSanitizer: ([\w-]+)", "AddressSanitizer: {}"),
    (r"ThreadSanitizer: ([\w -]+)", "ThreadSanitizer: {}"),
    (r"runtime error: (.{1,60})", "UndefinedBehaviorSanitizer: {}"),
    (r"emulation: ([^(\n]{1,70})", "emulation: {}"),
    (r"\[  FAILED  \] OneKernel\.(\w+)", "numbers: {}"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "default", help="build tree (build/default)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="bugs at a time (the cores)")
    parser.add_argument("pattern", nargs="?", default="", help="regular expression for names of bugs")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if re.search(options.pattern, mutation.name)]
    try:
        return run(chosen, options.build, options.jobs)
    except CannotPlant as error:
        print(f"mutate_kernels: {error}", file=sys.stderr)
        return 2


def run(mutations: Sequence[Mutation], build: Path, jobs: int) -> int:
    started = time.monotonic()
    if not mutations:
        raise CannotPlant("no bug has such a name; plugins/tests/mutations/ lists them")
    # Before anything is compiled: a list that no longer fits the sources fails at once.
    texts = {mutation: mutated(mutation) for mutation in mutations}
    targets = [f"test_support{sanitizers.variant}" for sanitizers in (MEMORY, THREADS)]
    call(["cmake", "--build", str(build), "--parallel", str(jobs), "--target", *targets])
    with tempfile.TemporaryDirectory(prefix="mutate_kernels") as name, ThreadPoolExecutor(jobs) as pool:
        laboratory = Laboratory(build, Path(name))
        healthy = list(pool.map(laboratory.check_healthy, (MEMORY, THREADS)))
        if any(healthy):
            print("\n".join(finding for finding in healthy if finding), file=sys.stderr)
            print("mutate_kernels: the tests fail without any bug", file=sys.stderr)
            return 1
        survivors = 0
        findings = pool.map(lambda mutation: laboratory.finding(mutation, texts[mutation]), mutations)
        for mutation, finding in zip(mutations, findings, strict=True):
            survivors += finding is None
            print(f"{mutation.name:78s} {finding or 'SURVIVED'}", flush=True)
    print(f"{len(mutations) - survivors} of {len(mutations)} bugs found in {time.monotonic() - started:.0f} s")
    return 1 if survivors else 0


def mutated(mutation: Mutation) -> str:
    """The text of the file with the bug in it."""
    text = (KERNELS / mutation.file).read_text()
    count = text.count(mutation.old)
    if count != 1:
        raise CannotPlant(
            f"{mutation.name}: its text occurs {count} times in {mutation.file}, not once; adapt "
            "plugins/tests/mutations/ to the kernel as it is now"
        )
    return text.replace(mutation.old, mutation.new)


def call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotPlant(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


class Laboratory:
    """Compiles, links and runs the tests with one file replaced.

    Args:
        build: build tree with the emulated libraries.
        folder: an empty folder to work in.
    """

    def __init__(self, build: Path, folder: Path):
        self.libraries = build / "plugins" / "tests"
        self.folder = folder
        self.compiler = os.environ.get("CXX", "c++")

    def check_healthy(self, sanitizers: Sanitizers) -> str | None:
        """Compiles the tests; returns why they fail with the kernels as they are, or nothing."""
        self.compile(sanitizers, SUITE, self.suite(sanitizers), PLUGINS)
        program = self.folder / f"healthy{sanitizers.variant}"
        self.link(sanitizers, program, [])
        return self.run(program, "*")

    def finding(self, mutation: Mutation, text: str) -> str | None:
        """What finds the bug; None: nothing does."""
        sanitizers = THREADS if mutation.race else MEMORY
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        sources = folder / KERNELS.name
        shutil.copytree(KERNELS, sources)
        (sources / mutation.file).write_text(text)
        changed = folder / "changed.o"
        try:
            self.compile(sanitizers, sources / mutation.compiled, changed, folder)
            self.link(sanitizers, folder / "tests", [changed])
        except CannotPlant as error:
            raise CannotPlant(f"{mutation.name}: {error}") from None
        finding = self.run(folder / "tests", mutation.tests)
        shutil.rmtree(folder)
        return finding

    def suite(self, sanitizers: Sanitizers) -> Path:
        return self.folder / f"one_kernel_test{sanitizers.variant}.o"

    def compile(self, sanitizers: Sanitizers, source: Path, target: Path, plugins: Path) -> None:
        # The stand-ins for CUDA's headers come first, and the changed kernels before the others.
        includes = [f"-I{folder}" for folder in (TESTS / "emulation", plugins, TESTS, PLUGINS)]
        # Warnings are for the sources as they are.
        flags = ["-x", "c++", "-std=c++17", "-O1", "-w", *sanitizers.flags]
        call([self.compiler, *flags, *includes, "-c", str(source), "-o", str(target)])

    def link(self, sanitizers: Sanitizers, program: Path, objects: Sequence[Path]) -> None:
        # Objects come before libraries, which then give only what is still missing.
        names = ("test_support", "emulated_kernels", "emulator")
        libraries = [self.libraries / f"lib{name}{sanitizers.variant}.a" for name in names]
        files = [*objects, self.suite(sanitizers), *libraries]
        call([self.compiler, *sanitizers.flags, *map(str, files), "-lgtest_main", "-lgtest", "-o", str(program)])

    def run(self, program: Path, tests: str) -> str | None:
        try:
            done = subprocess.run(
                [str(program), f"--gtest_filter=OneKernel.{tests}"],
                env=os.environ | ENVIRONMENT,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS_PER_RUN,
            )
        except subprocess.TimeoutExpired:
            raise CannotPlant(f"OneKernel.{tests} ran longer than {SECONDS_PER_RUN} s") from None
        if done.returncode == 0:
            if "[  PASSED  ] 0 tests" in done.stdout:
                raise CannotPlant(f"there is no test OneKernel.{tests}")
            return None
        output = done.stdout + done.stderr
        for pattern, description in FINDINGS:
            found = re.search(pattern, output)
            if found:
                return description.format(found.group(1).strip())
        return f"exit code {done.returncode}: {output[-200:]}"


if __name__ == "__main__":
    sys.exit(main())
