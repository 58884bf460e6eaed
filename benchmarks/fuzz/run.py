#!/usr/bin/env python3
"""Give edgeformer hostile inputs by the thousand, and count what does not end as documented.

Each case runs in a process of its own, forked from one that has imported everything. Results go to a file, line by
line: started again with it, the run goes on where it was. Prints each bad case, then a table; ends with 1 if there
is one. A case is repeated with --only NUMBER, which keeps its input.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.fuzz.cases import KINDS, Case, make_case
from benchmarks.fuzz.seeds import CONFIGURATION, MODEL, Seeds, make_seeds

__all__ = ["Result", "main", "run_cases"]

ROOT = Path(__file__).resolve().parents[2]
# Seconds that a case may take, and bytes of address space.
SECONDS = 60.0
MEMORY = 8 << 30
# What the command line promises: README.md, docs/errors.md.
CODES = frozenset({0, 2, 3, 4})
LINES = 20
# Relative to the largest output. Fusing is judged at 1e-5; a near tie in routing may move more.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Result:
    """How a case ended.

    Attributes:
        number: of the case.
        kind: of its input.
        code: the exit code; None where the process died or hung.
        fault: what is wrong with that; None where nothing is.
        seconds: it took.
    """

    number: int
    kind: str
    code: int | None
    fault: str | None
    seconds: float


def run_cases(seeds: Seeds, numbers: Iterator[int] | range, seed: int, keep: Path | None = None) -> Iterator[Result]:
    """Run cases one after the other.

    Args:
        seeds: the valid inputs.
        numbers: of the cases.
        seed: of all random numbers.
        keep: a folder in which the inputs stay.
    """
    _import_everything()
    for number in numbers:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-")) if keep is None else keep / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            case = make_case(seeds, folder, number, seed)
            yield _run(case, folder)
        finally:
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)


def _import_everything() -> None:
    """What the commands import when they run, so that the forked processes need not."""
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import torch

    import edgeformer.cli.export
    import edgeformer.cli.fuse
    import edgeformer.cli.inspect
    import edgeformer.cli.quantize
    import edgeformer.graph.fuse
    import edgeformer.models
    import edgeformer.quantization  # noqa: F401

    # Its threads do not survive a fork.
    torch.set_num_threads(1)


def _run(case: Case, folder: Path) -> Result:
    begun = time.monotonic()
    output = folder / "output.txt"
    read, write = os.pipe()
    process = os.fork()
    if not process:
        os.close(read)
        _child(case, folder, output, write)
    os.close(write)
    # The pipe ends with the process and all that it started.
    ended = bool(select.select([read], [], [], SECONDS)[0])
    content = os.read(read, 1 << 16) if ended else b""
    os.close(read)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    # It has no group yet where the fork itself hangs.
    os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seconds = round(time.monotonic() - begun, 2)
    if not ended:
        return Result(case.number, case.kind, None, f"no end within {SECONDS:.0f} s", seconds)
    if not content:
        return Result(case.number, case.kind, None, f"the process died ({status})", seconds)
    code, fault = json.loads(content)
    return Result(case.number, case.kind, code, fault or _fault(code, output), seconds)


def _child(case: Case, folder: Path, output: Path, write: int) -> None:
    """Run a case, report its exit code and what is wrong beyond that, and end."""
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
        for number, path in ((1, output), (2, _messages(output))):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = _command(case.command)
        fault = _wrong_success(case) if code == 0 and case.made is not None else None
        os.write(write, json.dumps([code, fault]).encode())
    finally:
        os._exit(0)


def _command(words: list[str]) -> int:
    from edgeformer import cli
    from edgeformer.errors import EdgeformerError
    from edgeformer.models import create_model, load_checkpoint

    sys.argv = ["edgeformer", *words]
    try:
        if words[0] == "load_checkpoint":
            load_checkpoint(create_model(MODEL, **CONFIGURATION), words[1])
        else:
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except EdgeformerError as error:
        code = error.exit_code
        sys.stderr.write(f"{error}\n")
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _messages(output: Path) -> Path:
    """The file for standard error beside that for standard output, which may hold a summary of any length."""
    return output.with_name("messages.txt")


def _fault(code: int, output: Path) -> str | None:
    text = _messages(output).read_text(errors="replace")
    if "Traceback (most recent call last)" in text:
        return f"traceback: {text.strip().splitlines()[-1][:300]}"
    if code not in CODES:
        return f"exit code {code}: {text.strip()[-300:]}"
    if code and not text.strip():
        return f"exit code {code} without a message"
    if code and len(text.strip().splitlines()) > LINES:
        return f"a message of {len(text.strip().splitlines())} lines"
    return None


def _wrong_success(case: Case) -> str | None:
    """What is wrong with a model that a command made: it must compute what its source does, where that runs at all."""
    from edgeformer.errors import EdgeformerError
    from edgeformer.runtime import OnnxSession

    assert case.source is not None
    assert case.made is not None
    try:
        with OnnxSession(case.source, optimization="none") as session:
            feeds = {
                name: np.random.default_rng(0)
                .standard_normal([size if isinstance(size, int) else 2 for size in info.shape])
                .astype(info.dtype)
                for name, info in session.inputs.items()
            }
            expected = session.run(feeds)
    except (EdgeformerError, ValueError, TypeError, MemoryError):
        return None  # the source runs nowhere
    try:
        with OnnxSession(case.made, optimization="none") as session:
            found = session.run(feeds)
    except EdgeformerError as error:
        return f"made a model that does not run: {error}"[:300]
    for name, values in expected.items():
        if name not in found:
            return f"the output {name!r} is gone"
        wide, other = np.asarray(values, np.float64), np.asarray(found[name], np.float64)
        if wide.shape != other.shape:
            return f"the output {name!r} has the shape {other.shape} instead of {wide.shape}"
        if not np.isfinite(wide).all() or not wide.size:
            continue
        difference = float(np.abs(wide - other).max() / max(np.abs(wide).max(), 1e-30))
        if not difference <= TOLERANCE:
            return f"the output {name!r} differs by {difference:.2e}"
    return None


def _known(path: Path, seed: int) -> dict[int, Result]:
    """The results of an earlier run with the same seed; a line that was cut off is left out."""
    found: dict[int, Result] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError, TypeError):
                document = json.loads(line)
                if document.pop("seed") == seed:
                    found[document["number"]] = Result(**document)
    return found


def main() -> None:
    """Run, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="number of cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="seeds and results")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run this case, keep its input, show what it prints")
    arguments = parser.parse_args()
    seeds = make_seeds(arguments.folder / "seeds")
    if arguments.only is not None:
        for result in run_cases(seeds, range(arguments.only, arguments.only + 1), arguments.seed, arguments.folder):
            for name in ("output.txt", "messages.txt"):
                print((arguments.folder / str(result.number) / name).read_text(errors="replace"))
            print(result)
            sys.exit(result.fault is not None)
    path = arguments.folder / "results.jsonl"
    results = _known(path, arguments.seed)
    todo = (number for number in range(arguments.inputs) if number not in results)
    with path.open("a", buffering=1) as file:
        for result in run_cases(seeds, todo, arguments.seed):
            results[result.number] = result
            file.write(json.dumps({"seed": arguments.seed, **asdict(result)}) + "\n")
            if result.fault is not None:
                print(f"{result.number} {result.kind}: {result.fault}", flush=True)
    bad = [result for result in results.values() if result.fault is not None]
    print(f"\n{len(results)} inputs, {len(bad)} handled badly\n")
    for kind in KINDS:
        codes = collections.Counter(str(result.code) for result in results.values() if result.kind == kind)
        slowest = max((result.seconds for result in results.values() if result.kind == kind), default=0)
        print(f"{kind:<11} exit codes {dict(sorted(codes.items()))}, slowest {slowest:.1f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
