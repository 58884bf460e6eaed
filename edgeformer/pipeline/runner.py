"""Runs the stages of a bundle: reuse, time, verdicts and records. It knows no stage; those are in `stages`."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgeformer.artifacts import sha256_of_bytes, sha256_of_file
from edgeformer.bundle import Details, StageRecord, Staging, stage_key
from edgeformer.errors import GateMissed
from edgeformer.pipeline.observer import Observer
from edgeformer.progress import Progress
from edgeformer.records.terms import Verdict
from edgeformer.supervision.limits import stage

__all__ = ["Judged", "Runner", "libraries"]

# Whatever of these changes can change what a stage makes.
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxscript", "onnx-graphsurgeon", "polygraphy", "torch")


@dataclass(frozen=True)
class Judged:
    """What a stage's work came to.

    Attributes:
        verdict: of its gate; ``not judged`` where no gate applies.
        gate: the gate's figures and limits, for people.
        note: what else there is to say.
        details: what the manifest keeps.
    """

    verdict: Verdict = "not judged"
    gate: str | None = None
    note: str | None = None
    details: Details | None = None


class Runner:
    """Runs stages on the bundle in ``work``, one after the other.

    Attributes:
        work: the bundle in the making.
        records: one for each stage that was run, reused or skipped.
    """

    def __init__(self, work: Staging, observer: Observer | None = None) -> None:
        self.work = work
        self.records: list[StageRecord] = []
        self._observer = observer or Observer()

    def run(
        self,
        name: str,
        files: list[str],
        make: Callable[[], Judged],
        inputs: Mapping[str, Any],
        *,
        always: bool = False,
    ) -> None:
        """Take a stage from the older bundle, or run it and record it.

        Args:
            name: the stage.
            files: the files it makes, by name.
            make: does the work.
            inputs: all that the result depends on besides edgeformer's code and the libraries; hashes for files.
            always: run it even where an older bundle has it, since the result depends on more than ``inputs``.

        Raises:
            GateMissed: the stage missed its gate, now or when it was run.
        """
        key = self.key(name, inputs)
        record = None if always else self.work.reusable(name, key)
        if record is None:
            self._observer.started(name)
            begun = time.monotonic()
            with stage(name):
                judged = make()
            record = StageRecord(
                name=name,
                key=key,
                seconds=round(time.monotonic() - begun, 3),
                files=files,
                gate=judged.gate,
                verdict=judged.verdict,
                note=judged.note,
                details=judged.details,
            )
        self._record(record)
        if record.verdict == "missed":
            raise GateMissed("EF801", f"stage {name} missed its gate: {record.gate}; nothing was published")

    @staticmethod
    def key(name: str, inputs: Mapping[str, Any]) -> str:
        """The key of a stage, by which `run` knows it again; arguments as there."""
        return stage_key(name, code=_code_sha256(), libraries=libraries(), **inputs)

    def skip(self, name: str, reason: str, details: Details | None = None) -> None:
        """Record that a stage is not run, and why."""
        self._record(StageRecord(name=name, key="", seconds=0.0, verdict="not run", note=reason, details=details))

    def progress(self, stage: str) -> Progress:
        """What a stage reports its progress to."""
        return lambda text, done, total: self._observer.progressed(stage, text, done, total)

    def path(self, name: str) -> Path:
        """Where the bundle's file ``name`` lies while the stages run."""
        return self.work.path / name

    def sha256(self, name: str) -> str:
        """Hash of the bundle's file ``name``."""
        return sha256_of_file(self.path(name))

    def _record(self, record: StageRecord) -> None:
        self._observer.finished(record)
        self.records.append(record)


@cache
def _code_sha256() -> str:
    """Hash of all of edgeformer's own sources: another version of the code makes its stages anew."""
    package = Path(__file__).parents[1]
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".json") and path.is_file())
    return sha256_of_bytes(
        *(part for path in files for part in (str(path.relative_to(package)).encode(), path.read_bytes()))
    )


@cache
def libraries() -> dict[str, str]:
    """Versions of the installed libraries that a stage's result can depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
