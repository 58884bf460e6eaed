"""The machines an engine can be built for: the table `targets.json`, its schema, and the target `local`."""

from __future__ import annotations

import difflib
import platform
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.machine.backends import (
    BACKEND_RANGES,
    Flavour,
    find_backend,
    missing_backend,
    probe_backend,
    require_backend,
    version_tuple,
)
from edgeformer.machine.devices import find_gpus
from edgeformer.machine.jetpack import list_jetpacks, lowest_tensorrt
from edgeformer.records.terms import Precision

__all__ = [
    "LOCAL",
    "Buildable",
    "Figure",
    "Gain",
    "Peaks",
    "Sources",
    "Target",
    "TypeRule",
    "can_build",
    "check_embedding",
    "get_target",
    "list_targets",
    "list_type_rules",
    "require_imported",
]

LOCAL = "local"
Gain = Literal["accelerates", "shrinks", "unlisted", "refused"]
_TABLE = Path(__file__).with_name("targets.json")
# The compute capabilities that TensorRT-RTX 1.7 builds for (trt.ComputeCapability). A new release may add some.
_RTX_SMS = (75, 80, 86, 89, 120, 121)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Record):
    """A peak figure and where it was read."""

    value: float = Field(gt=0)
    source: str = Field(min_length=1)


class Peaks(_Record):
    """Peak figures of a target; ``None`` where no reliable source was at hand.

    Attributes:
        dram_gb_s: DRAM bandwidth, 1e9 bytes a second.
        fp16_tflops: dense FP16 tensor-core rate with FP32 accumulation, 1e12 operations a second.
        int8_tops: dense INT8 tensor-core rate, 1e12 operations a second.
    """

    dram_gb_s: Figure | None
    fp16_tflops: Figure | None
    int8_tops: Figure | None


class Sources(_Record):
    """Where a target's figures were read, apart from its peaks.

    Attributes:
        compute_capability: of its compute capabilities.
        memory: of its memory; ``None`` where that is absent.
        tensorrt_minimum: of the lowest version that works, where that is not the table of JetPacks or the flavour's.
    """

    compute_capability: str = Field(min_length=1)
    memory: str | None
    tensorrt_minimum: str | None = None


class Target(_Record):
    """One machine to build for, or several that one engine serves.

    Attributes:
        name: the name on the command line.
        description: for people.
        sm: compute capability times ten, such as 87; the lowest of several.
        sms: all of them, lowest first: the engine runs on each. Filled in from ``sm`` if left out.
        cpu: processor architecture of the machine that runs the engine, as ``platform.machine()`` names it.
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        tensorrt_minimum: lowest version of the flavour that works. If left out: on machines that have a JetPack the
            lowest that one brings, on others the lowest of the flavour.
        tensorrt_below: first version that is not known to; if left out, the flavour's.
        kernels: what the plugin library has for it by default: ``machine code``, or ``PTX``, which the driver compiles
            when it first loads the library.
        memory_gb: memory the GPU can use, GB; ``None`` where no source was at hand.
        built: ``anywhere``: ahead of time, no GPU needed; ``on-device``: only where the GPU is.
        note: what whoever runs the engine has to know; empty for most.
        sources: where these figures were read.
        peaks: peak figures.
    """

    name: str
    description: str
    sm: int = Field(ge=50, le=999)
    sms: tuple[int, ...]
    cpu: Literal["x86_64", "aarch64"]
    flavour: Flavour
    tensorrt_minimum: str
    tensorrt_below: str
    kernels: Literal["machine code", "PTX"] = "machine code"
    memory_gb: float | None = Field(gt=0)
    built: Literal["anywhere", "on-device"]
    note: str = ""
    sources: Sources
    peaks: Peaks

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, record: Any) -> Any:
        if not isinstance(record, dict) or record.get("flavour") not in BACKEND_RANGES:
            return record
        minimum, below = BACKEND_RANGES[record["flavour"]]
        sm = record.get("sm")
        if record["flavour"] == "tensorrt" and any(sm in jetpack.sms for jetpack in list_jetpacks()):
            minimum = lowest_tensorrt(sm)
        return {"sms": (sm,), "tensorrt_minimum": minimum, "tensorrt_below": below, **record}

    @model_validator(mode="after")
    def _is_consistent(self) -> Target:
        if version_tuple(self.tensorrt_minimum) >= version_tuple(self.tensorrt_below):
            raise ValueError(f"{self.name}: tensorrt_minimum must be below tensorrt_below")
        if self.sms != tuple(sorted(set(self.sms))) or self.sms[:1] != (self.sm,):
            raise ValueError(f"{self.name}: sms must be ascending and begin with sm")
        if len(self.sms) > 1 and self.built == "on-device":
            raise ValueError(f"{self.name}: an engine that is built on the device is for one SM")
        if (self.memory_gb is None) != (self.sources.memory is None):
            raise ValueError(f"{self.name}: memory_gb and its source go together")
        return self

    @property
    def compute_capability(self) -> str:
        """Compute capability as NVIDIA writes it, such as ``8.7``; several with commas."""
        return ", ".join(f"{sm // 10}.{sm % 10}" for sm in self.sms)


class TypeRule(_Record):
    """What a flavour of TensorRT makes of a quantized precision.

    Attributes:
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        precision: the precision.
        sms_from: compute capability, times ten, from which on this holds, up to that of the next rule for the same two.
        gain: ``accelerates``: arithmetic in the type; ``shrinks``: smaller weights, arithmetic in FP16; ``unlisted``:
            arithmetic in the type that NVIDIA does not list; ``refused``: it does not build.
        why: in words.
        source: where that was read.
    """

    flavour: Flavour
    precision: Precision
    sms_from: int
    gain: Gain
    why: str = Field(min_length=1)
    source: str = Field(min_length=1)


class _Table(_Record):
    schema_version: Literal[1]
    targets: tuple[Target, ...]
    types: tuple[TypeRule, ...]


class Buildable(_Record):
    """Whether an engine can be built here, which is also its truth value. ``reason`` says why not; empty if it can."""

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ok


@cache
def _table() -> _Table:
    return _Table.model_validate_json(_TABLE.read_text(encoding="utf-8"))


def list_targets() -> tuple[Target, ...]:
    """Every target of the table, in its order, without `LOCAL`, which depends on the machine."""
    return _table().targets


def list_type_rules() -> tuple[TypeRule, ...]:
    """What TensorRT makes of each quantized precision, the lowest compute capability first."""
    return _table().types


def get_target(name: str) -> Target:
    """The target called ``name``; ``local`` is the first GPU of this machine.

    Raises:
        InputError: no such target; the message names close ones, and all of them.
        EnvironmentFault: ``name`` is ``local`` and this machine has no GPU that TensorRT can use.
    """
    if name == LOCAL:
        return _local_target()
    known = {target.name: target for target in list_targets()}
    if name in known:
        return known[name]
    names = [*known, LOCAL]
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise InputError("EF603", f"unknown target '{name}': {hint}Targets: {', '.join(names)}")


def _local_target() -> Target:
    survey = find_gpus()
    if not survey.gpus:
        raise EnvironmentFault(
            "EF604",
            f"target 'local' needs a GPU in this machine, and there is none: {survey.problem}. "
            f"Name the machine to build for instead, one of: {', '.join(target.name for target in list_targets())}",
        )
    gpu = survey.gpus[0]
    cpu = platform.machine()
    if cpu not in ("x86_64", "aarch64"):
        raise EnvironmentFault(
            "EF604",
            f"target 'local': there is no TensorRT for the processor '{cpu}', only for x86_64 and aarch64",
        )
    # TensorRT tunes on the GPU it builds for, so it comes first where both are installed.
    flavour: Flavour = "tensorrt"
    if find_backend("tensorrt") is None and find_backend("tensorrt_rtx") is not None and gpu.sm in _RTX_SMS:
        flavour = "tensorrt_rtx"
    minimum, below = BACKEND_RANGES[flavour]
    driver = "the CUDA driver of this machine"
    return Target(
        name=LOCAL,
        description=gpu.name,
        sm=gpu.sm,
        cpu="aarch64" if cpu == "aarch64" else "x86_64",
        flavour=flavour,
        tensorrt_minimum=minimum,
        tensorrt_below=below,
        sms=(gpu.sm,),
        memory_gb=round(gpu.memory_bytes / 1e9, 1),
        built="on-device" if flavour == "tensorrt" else "anywhere",
        sources=Sources(compute_capability=driver, memory=driver),
        peaks=Peaks(dram_gb_s=None, fp16_tflops=None, int8_tops=None),
    )


def can_build(target: Target, *, raise_error: bool = False) -> Buildable:
    """Whether this machine can build an engine for ``target``: the right TensorRT and, where needed, the right GPU.

    Args:
        target: what to build for.
        raise_error: raise the reason instead of returning it.

    Raises:
        EnvironmentFault: it cannot, and ``raise_error`` is set.
    """
    reason, code = _missing_gpu(target) if target.built == "on-device" else "", "EF604"
    backend = find_backend(target.flavour)
    # Installing TensorRT would not help where the GPU is missing, so the GPU comes first.
    if not reason and (backend is None or not backend.within(target.tensorrt_minimum, target.tensorrt_below)):
        reason = missing_backend(target.flavour, target.tensorrt_minimum, target.tensorrt_below)
        code = "EF605"
    if raise_error and reason:
        raise EnvironmentFault(code, reason)
    return Buildable(ok=not reason, reason=reason)


def require_imported(target: Target) -> None:
    """Check the TensorRT that would build an engine for ``target``, as Python imports it, in a child process.

    Raises:
        EnvironmentFault: it cannot be imported, or is of a version that the target does not work with.
    """
    backend = require_backend(target.flavour, target.tensorrt_minimum, target.tensorrt_below)
    probe_backend(backend).require(target.tensorrt_minimum, target.tensorrt_below)


def check_embedding(target: Target) -> None:
    """Check that the plugin library of this machine can go into an engine for ``target``.

    Raises:
        InputError: the target has another processor.
    """
    here = platform.machine()
    if target.built == "anywhere" and target.cpu != here:
        raise InputError(
            "EF831",
            f"{target.name} has the processor {target.cpu}, and the plugin library that would go into the engine is "
            f"this machine's ({here}): leave out --embed-plugin, or build on a machine with {target.cpu}",
        )


def _missing_gpu(target: Target) -> str:
    survey = find_gpus()
    if any(gpu.sm in target.sms for gpu in survey.gpus):
        return ""
    found = ", ".join(f"{gpu.name} (SM {gpu.sm})" for gpu in survey.gpus) or survey.problem
    return (
        f"an engine for {target.name} is built on the device itself (SM {target.sm}, {target.cpu}), "
        f"and this machine has no such GPU: {found}"
    )
