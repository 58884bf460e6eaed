"""What a run leaves: plain dataclasses, written as JSON with the standard library and read back with pydantic.

The machine that measures need not have pydantic; the one that renders checks every field.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "SCHEMA",
    "Case",
    "Ceilings",
    "Machine",
    "Phase",
    "Report",
    "Timing",
    "load_report",
    "save_report",
]

SCHEMA = 1
"""Raised whenever a field changes its meaning."""


@dataclass(frozen=True)
class Machine:
    """Where it ran.

    Attributes:
        name: of the GPU.
        compute_capability: times ten.
        multiprocessors: of the GPU.
        memory_bytes: of the GPU.
        l2_bytes: second-level cache.
        max_shared_bytes: shared memory that a block can have.
        sm_clock_mhz: its highest clock, where the driver says it.
        versions: of driver, CUDA, torch, Triton, Python, nvcc, and edgeformer's commit.
    """

    name: str
    compute_capability: int
    multiprocessors: int
    memory_bytes: int
    l2_bytes: int
    max_shared_bytes: int
    sm_clock_mhz: float | None
    versions: dict[str, str]


@dataclass
class Phase:
    """One step of the run.

    Attributes:
        name: of the step.
        status: how it ended; "skipped" and "failed" have a note.
        seconds: it took.
        note: what was found, or why it was skipped or failed.
        dropped: what the time budget left no room for.
    """

    name: str
    status: Literal["passed", "failed", "skipped"]
    seconds: float
    note: str = ""
    dropped: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add to the note."""
        self.note = "; ".join(part for part in (self.note, text) if part)

    def fail(self, text: str) -> None:
        """The step has failed, perhaps not for the first time."""
        self.status = "failed"
        self.say(text)


@dataclass(frozen=True)
class Case:
    """One comparison with the float64 reference.

    Attributes:
        name: shape and content of the input.
        input_type: of qkv.
        output_type: of the output.
        variant: attention kernel.
        lepe_kernel: side of the fused convolution; 0: none.
        relative_error: ``|out - reference| / |reference|``, Euclidean norms; None where nothing was comparable.
        worst_error: largest ``|out - reference|`` in units of the reference's root mean square.
        tolerance: that ``relative_error`` must not exceed.
        routing_rows: regions whose list was compared.
        routing_exact: of them, those equal to the reference's in every place.
        fault: what is wrong; empty if nothing is.
    """

    name: str
    input_type: str
    output_type: str
    variant: str
    lepe_kernel: int
    relative_error: float | None
    worst_error: float | None
    tolerance: float
    routing_rows: int
    routing_exact: int
    fault: str


@dataclass(frozen=True)
class Ceilings:
    """What this GPU was measured to do, in the same run.

    Attributes:
        copy_bytes_per_second: a large device-to-device copy, bytes read plus bytes written.
        fp16_flops: a large FP16 matrix product, FLOP/s.
        int8_ops: a large INT8 matrix product, OP/s; None where torch offers none.
        exponentials_per_second: computed, not measured: 16 a clock and multiprocessor at the highest clock; None where
            the clock is not known.
        loaded_clock_mhz: of the multiprocessors, read while matrix products run; None where the driver does not say it.
    """

    copy_bytes_per_second: float
    fp16_flops: float
    int8_ops: float | None
    exponentials_per_second: float | None
    loaded_clock_mhz: float | None = None


@dataclass(frozen=True)
class Timing:
    """One measurement.

    Attributes:
        shape: its name in the table of shapes.
        batch: images.
        implementation: "fused", or a baseline.
        input_type: of qkv.
        graph: whether calls were replayed from a CUDA graph, or launched one by one from Python.
        variant: attention kernel of "fused"; empty: the library's choice, which ``chosen`` names, or a baseline.
        chosen: the kernel that ran; empty for a baseline.
        lepe: how LePE was computed: "none", "fused", or "conv" (torch's convolution and an addition).
        programmatic_launch: whether kernels could start before the one before had ended.
        median_us: of a call, microseconds.
        low_us: 10th percentile.
        high_us: 90th percentile.
        rounds: timed.
        input_sets: that a round rotates over, one call each.
    """

    shape: str
    batch: int
    implementation: str
    input_type: str
    graph: bool
    variant: str
    chosen: str
    lepe: Literal["none", "fused", "conv"]
    programmatic_launch: bool
    median_us: float
    low_us: float
    high_us: float
    rounds: int
    input_sets: int


@dataclass
class Report:
    """Everything that one run found.

    Attributes:
        kind: "measurement" on a GPU; "rehearsal" without one, whose timings are made up.
        started: UTC, ISO 8601.
        command: the command line.
        budget_seconds: that the run had.
        machine: where it ran.
        phases: its steps, in order.
        cases: of the comparison with the reference.
        ceilings: what the GPU can do; None if they were not reached.
        timings: all measurements.
        tensorrt_rtx: what came of running a TensorRT-RTX engine, step by step.
        schema_version: of this format.
    """

    kind: Literal["measurement", "rehearsal"]
    started: str
    command: str
    budget_seconds: float
    machine: Machine
    phases: list[Phase] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    ceilings: Ceilings | None = None
    timings: list[Timing] = field(default_factory=list)
    tensorrt_rtx: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA

    @property
    def failed(self) -> bool:
        """Whether any step failed."""
        return any(phase.status == "failed" for phase in self.phases)


def save_report(report: Report, path: Path) -> None:
    """Write ``report`` to ``path``, in one rename: a run that is killed leaves what the step before had written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def load_report(path: Path) -> Report:
    """Read and check a report.

    Raises:
        ValueError: it is damaged, or of another schema.
    """
    from pydantic import TypeAdapter, ValidationError

    text = path.read_text(encoding="utf-8")
    try:
        found: Any = json.loads(text)
        if not isinstance(found, dict) or found.get("schema_version") != SCHEMA:
            raise ValueError(f"{path} is not a report of schema {SCHEMA}: measure again")
        return TypeAdapter(Report).validate_json(text, strict=True, extra="forbid")
    except (ValidationError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
