#!/usr/bin/env python3
"""Check the machine code in the plugin library, for every GPU architecture in it.

No kernel may spill or use local memory; registers and static shared memory stay within `RULES`, so that the intended
number of blocks fits a multiprocessor; tensor-core kernels hold the instructions that they are about: HMMA or IMMA,
asynchronous copies and 16-byte stores. A kernel without a rule is a failure.

    scripts/check_sass.py [LIBRARY]          (default: build/default/libedgeformer_plugins.so)

Needs cuobjdump and nvdisasm of CUDA 13 or newer: those of the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm,
which scripts/setup installs, or any in PATH. Exit code 0: all is well; 1: it is not, one line for each finding.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LIBRARY = ROOT / "build" / "default" / "libedgeformer_plugins.so"

# 32-bit registers of a multiprocessor, and the unit in which a thread gets them: the same from SM 7.5 to 12.1.
REGISTERS = 65536
REGISTER_UNIT = 8
# What CUDA keeps for itself in the shared memory of a block, from SM 9.0 on listed with the kernel's own.
RESERVED_SHARED = 1024
# The first GPUs with the tensor-core instructions and the asynchronous copies that the kernels use.
TENSOR_CORES_FROM = 80


@dataclass(frozen=True)
class Demand:
    """An instruction that a kernel must hold.

    Attributes:
        what: for people.
        mnemonic: regular expression for the whole of it.
        since: the first GPU that has it, compute capability times ten.
    """

    what: str
    mnemonic: str
    since: int = 0


@dataclass(frozen=True)
class Rule:
    """What is demanded of the kernels whose demangled name matches.

    Attributes:
        kernel: regular expression for the name with its template arguments, as c++filt prints it.
        threads: largest block it is launched with.
        blocks: blocks of that size that are to be resident in a multiprocessor, as far as registers decide.
        shared: largest static shared memory, bytes; what a launch adds is planned on the host and tested there.
        demands: instructions it must hold.
    """

    kernel: str
    threads: int
    blocks: int
    shared: int = 0
    demands: tuple[Demand, ...] = ()

    @property
    def registers(self) -> int:
        """Most registers a thread may have for ``blocks`` blocks to fit."""
        return min(REGISTERS // (self.threads * self.blocks) // REGISTER_UNIT * REGISTER_UNIT, 255)

    @property
    def uses_tensor_cores(self) -> bool:
        """Whether tensor-core instructions belong into it."""
        return any(demand.since == TENSOR_CORES_FROM for demand in self.demands)


# Programmatic dependent launch: a kernel that starts early must wait for what it reads, and one that others follow
# must let them start.
WAITS = Demand("wait for the kernel before", r"ACQBULK", 90)
SIGNALS = Demand("start of the kernel after", r"PREEXIT", 90)
VECTOR_LOADS = Demand("16-byte load", r"LDG\.E(\..*)?\.128(\..*)?")
# mma.sync of m16n8k16, and m16n8k32 for INT8.
FP16 = Demand("FP16 tensor-core instruction", r"HMMA\.16816\.F32", TENSOR_CORES_FROM)
BF16 = Demand("BF16 tensor-core instruction", r"HMMA\.16816\.F32\.BF16", TENSOR_CORES_FROM)
INT8 = Demand("INT8 tensor-core instruction", r"IMMA\.16832\.S8\.S8(\..*)?", TENSOR_CORES_FROM)
COPIES = Demand("16-byte asynchronous copy", r"LDGSTS\.E\.BYPASS(\..*)?\.128(\..*)?", TENSOR_CORES_FROM)
VECTOR_STORES = Demand("16-byte store", r"STG\.E(\..*)?\.128(\..*)?", TENSOR_CORES_FROM)
TILE = (WAITS, COPIES, VECTOR_STORES)

RULES = (
    Rule(r"RegionMeanKernel<.*, 1>", threads=128, blocks=8, demands=(SIGNALS,)),
    Rule(r"RegionMeanKernel<.*>", threads=128, blocks=8, demands=(SIGNALS, VECTOR_LOADS)),
    Rule(r"RoutingKernel<.*>", threads=512, blocks=1, demands=(WAITS, SIGNALS)),
    Rule(r"AttentionKernel<.*>", threads=256, blocks=2, demands=(WAITS,)),
    # The blocks of the tensor-core kernels have as many warps as their head size lets a multiprocessor hold, or fewer,
    # and then it holds more of them.
    *(
        Rule(rf"(Gather|Resident)Kernel<{type_name}, {head_dim}\b.*>", threads, blocks=1, demands=(*TILE, *products))
        for type_name, products in {"__half": (FP16,), "__nv_bfloat16": (BF16,), "signed char": (INT8, FP16)}.items()
        for head_dim, threads in {32: 512, 64: 384, 128: 256}.items()
    ),
)
FORBIDDEN = {r"LDL(\..*)?": "loads from local memory", r"STL(\..*)?": "stores to local memory"}
TENSOR_CORES = r"[HI]MMA\..*"


@dataclass
class Kernel:
    """One kernel for one architecture."""

    registers: int = -1
    stack: int = -1
    shared: int = -1
    local: int = -1
    instructions: Counter[str] = field(default_factory=Counter)

    def count(self, pattern: str) -> int:
        """How many instructions match, as a whole."""
        return sum(number for name, number in self.instructions.items() if re.fullmatch(pattern, name))


Kernels = dict[tuple[int, str], Kernel]


class ToolError(Exception):
    """The library cannot be examined."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="?", type=Path, default=LIBRARY)
    library = parser.parse_args().library
    try:
        kernels = read_library(library)
    except ToolError as error:
        print(f"check_sass: {error}", file=sys.stderr)
        return 1
    problems = check(kernels)
    print("\n".join(summary(kernels)))
    for problem in problems:
        print(f"check_sass: {problem}", file=sys.stderr)
    architectures = sorted({sm for sm, _ in kernels})
    print(
        f"{len(kernels)} kernels for SM {', '.join(map(str, architectures))}: "
        + (f"{len(problems)} findings" if problems else "no spills, within the limits, with the instructions they need")
    )
    return 1 if problems else 0


def read_library(library: Path) -> Kernels:
    """Every kernel of every architecture in ``library``, by architecture and demangled name."""
    if not library.is_file():
        raise ToolError(f"{library} does not exist: cmake --preset default && cmake --build --preset default")
    kernels: Kernels = {}
    read_resources(run_tool("--dump-resource-usage", library), kernels)
    read_instructions(run_tool("--dump-sass", library), kernels)
    if not kernels:
        raise ToolError(f"{library} holds no machine code for any GPU")
    return demangled(kernels)


def read_resources(lines: Iterable[str], kernels: Kernels) -> None:
    """Take in what ``cuobjdump --dump-resource-usage`` says."""
    sm, name = 0, ""
    for line in lines:
        if match := re.match(r"arch = sm_(\d+)", line):
            sm = int(match[1])
        elif match := re.match(r"\s*Function (\S+):$", line):
            name = match[1]
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+) ", line):
            kernel = kernels.setdefault((sm, name), Kernel())
            kernel.registers, kernel.stack, kernel.shared, kernel.local = map(int, match.groups())


def read_instructions(lines: Iterable[str], kernels: Kernels) -> None:
    """Take in what ``cuobjdump --dump-sass`` says."""
    instruction = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)")
    sm = 0
    counter: Counter[str] = Counter()
    for line in lines:
        if match := instruction.match(line):
            counter[match[1]] += 1
        elif match := re.match(r"arch = sm_(\d+)", line):
            sm = int(match[1])
        elif match := re.match(r"\s*Function : (\S+)$", line):
            counter = kernels.setdefault((sm, match[1]), Kernel()).instructions


def demangled(kernels: Kernels) -> Kernels:
    """The same kernels under the names that they have in the source: without return type, scope and parameters."""
    mangled = sorted({name for _, name in kernels})
    process = subprocess.run(
        [require_tool("c++filt", "binutils")], input="\n".join(mangled), capture_output=True, text=True, check=True
    )
    names = dict(zip(mangled, map(short_name, process.stdout.splitlines()), strict=True))
    return {(sm, names[name]): kernel for (sm, name), kernel in kernels.items()}


def short_name(signature: str) -> str:
    """``MeanKernel<float>`` of ``void edgeformer::x::(anonymous namespace)::MeanKernel<float>(x::Arguments)``."""
    text = signature.replace("(anonymous namespace)::", "").removeprefix("void ")
    depth = 0
    start = 0
    for index, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return text[start:index]
        if character == ":" and depth == 0:
            start = index + 1
    return text[start:]


def check(kernels: Kernels, rules: tuple[Rule, ...] = RULES) -> list[str]:
    """One line for each thing that is wrong."""
    found: dict[str, list[int]] = {}
    for (sm, name), kernel in sorted(kernels.items()):
        for problem in check_kernel(sm, name, kernel, rules):
            found.setdefault(f"{name}: {problem}", []).append(sm)
    problems = [f"{problem} (SM {', '.join(map(str, where))})" for problem, where in found.items()]
    used = {rule_for(name, rules) for _, name in kernels}
    for rule in rules:
        if rule not in used:
            problems.append(f"no kernel matches the rule {rule.kernel}: remove the rule, or find out where they went")
    return problems


def rule_for(name: str, rules: tuple[Rule, ...]) -> Rule | None:
    """The first rule that covers a kernel."""
    return next((rule for rule in rules if re.fullmatch(rule.kernel, name)), None)


def check_kernel(sm: int, name: str, kernel: Kernel, rules: tuple[Rule, ...]) -> Iterator[str]:
    """What is wrong with one kernel."""
    rule = rule_for(name, rules)
    if rule is None:
        yield "no rule covers it: add one to RULES in scripts/check_sass.py"
        return
    if kernel.registers < 0 or not kernel.instructions:
        yield "its registers or its instructions are not listed: this cuobjdump prints them in another form"
        return
    for what in ("stack", "local"):
        if getattr(kernel, what):
            yield f"{getattr(kernel, what)} bytes of {what} memory, none allowed"
    for pattern, meaning in FORBIDDEN.items():
        if number := kernel.count(pattern):
            yield f"{number} {meaning}: it spills, or indexes an array by a run-time value"
    if kernel.registers > rule.registers:
        yield (
            f"{kernel.registers} registers a thread; at most {rule.registers} let {rule.blocks} blocks of "
            f"{rule.threads} threads share a multiprocessor"
        )
    shared = kernel.shared - (RESERVED_SHARED if sm >= 90 else 0)
    if shared > rule.shared:
        yield f"{shared} bytes of static shared memory; the limit is {rule.shared}"
    for demand in rule.demands:
        if sm >= demand.since and not kernel.count(demand.mnemonic):
            yield f"no {demand.what} ({demand.mnemonic})"
    expected = rule.uses_tensor_cores and sm >= TENSOR_CORES_FROM
    if not expected and (number := kernel.count(TENSOR_CORES)):
        yield f"{number} tensor-core instructions where none belong"


def summary(kernels: Kernels) -> Iterator[str]:
    """A table: for each rule the most registers on each architecture."""
    architectures = sorted({sm for sm, _ in kernels})
    width = max(len(rule.kernel) for rule in RULES)
    yield f"{'most registers a thread':{width}}  limit " + " ".join(f"{sm:>5}" for sm in architectures)
    for rule in RULES:
        held = [(sm, kernel.registers) for (sm, name), kernel in kernels.items() if rule_for(name, RULES) is rule]
        most = (max((number for sm, number in held if sm == each), default=0) for each in architectures)
        yield f"{rule.kernel:{width}}  {rule.registers:>5} " + " ".join(f"{number or '-':>5}" for number in most)


def run_tool(option: str, library: Path) -> Iterator[str]:
    """The lines that cuobjdump prints."""
    cuobjdump, nvdisasm = (require_tool(name, f"nvidia-cuda-{name}") for name in ("cuobjdump", "nvdisasm"))
    environment = {**os.environ, "NVDISASM_PATH": str(Path(nvdisasm).parent)}
    process = subprocess.Popen(
        [cuobjdump, option, str(library)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        last = line if line.strip() else last
        yield line.rstrip("\n")
    if process.wait() != 0:
        raise ToolError(f"'{cuobjdump} {option} {library}' failed: {last.strip()}")


def require_tool(name: str, package: str) -> str:
    """Path of a program, from a Python package where it is installed, else from PATH."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return str(file.locate())
    found = shutil.which(name)
    if found is None:
        raise ToolError(
            f"{name} was not found: install the package {package}, or put a CUDA toolkit that has it into PATH"
        )
    return found


if __name__ == "__main__":
    if Path(sys.prefix) != VENV and (VENV / "bin" / "python").exists():
        os.execv(VENV / "bin" / "python", [str(VENV / "bin" / "python"), *sys.argv])
    sys.exit(main())
