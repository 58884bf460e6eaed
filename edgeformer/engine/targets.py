"""The machines an engine can be built for: the table `targets.json`, its schema, and the target `local`."""

from __future__ import annotations

import difflib
import platform
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.machine.backends import BACKEND_RANGES, Flavour, find_backend, missing_backend, version_tuple
from edgeformer.machine.devices import find_gpus

__all__ = ["LOCAL", "Buildable", "Figure", "Peaks", "Target", "can_build", "get_target", "list_targets"]

LOCAL = "local"
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


class Target(_Record):
    """One machine to build for.

    Attributes:
        name: the name on the command line.
        description: for people.
        sm: compute capability times ten, such as 87.
        cpu: processor architecture of the machine that runs the engine, as ``platform.machine()`` names it.
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        tensorrt_minimum: lowest version of the flavour that works.
        tensorrt_below: first version that is not known to.
        memory_gb: memory the GPU can use, GB.
        built: ``anywhere``: ahead of time, no GPU needed; ``on-device``: only where the GPU is.
        peaks: peak figures.
    """

    name: str
    description: str
    sm: int = Field(ge=50, le=999)
    cpu: Literal["x86_64", "aarch64"]
    flavour: Flavour
    tensorrt_minimum: str
    tensorrt_below: str
    memory_gb: float = Field(gt=0)
    built: Literal["anywhere", "on-device"]
    peaks: Peaks

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Target:
        if version_tuple(self.tensorrt_minimum) >= version_tuple(self.tensorrt_below):
            raise ValueError(f"{self.name}: tensorrt_minimum must be below tensorrt_below")
        return self

    @property
    def compute_capability(self) -> str:
        """Compute capability as NVIDIA writes it, such as ``8.7``."""
        return f"{self.sm // 10}.{self.sm % 10}"


class _Table(_Record):
    schema_version: Literal[1]
    targets: tuple[Target, ...]


class Buildable(_Record):
    """Whether an engine can be built here, which is also its truth value. ``reason`` says why not; empty if it can."""

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ok


@cache
def list_targets() -> tuple[Target, ...]:
    """Every target of the table, in its order, without `LOCAL`, which depends on the machine."""
    return _Table.model_validate_json(_TABLE.read_text(encoding="utf-8")).targets


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
    return Target(
        name=LOCAL,
        description=gpu.name,
        sm=gpu.sm,
        cpu="aarch64" if cpu == "aarch64" else "x86_64",
        flavour=flavour,
        tensorrt_minimum=minimum,
        tensorrt_below=below,
        memory_gb=round(gpu.memory_bytes / 1e9, 1),
        built="on-device" if flavour == "tensorrt" else "anywhere",
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


def _missing_gpu(target: Target) -> str:
    survey = find_gpus()
    if any(gpu.sm == target.sm for gpu in survey.gpus):
        return ""
    found = ", ".join(f"{gpu.name} (SM {gpu.sm})" for gpu in survey.gpus) or survey.problem
    return (
        f"an engine for {target.name} is built on the device itself (SM {target.sm}, {target.cpu}), "
        f"and this machine has no such GPU: {found}"
    )
