"""What the manifest keeps of each stage: records told apart by the stage's name.

A stage that finds numbers has `FiguresDetails`, and nothing to add here. One that finds more has a record of its own.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from edgeformer.records.autotune import CandidateRecord, TunedRecord
from edgeformer.records.base import Figure, Record
from edgeformer.records.device import DeviceRecord
from edgeformer.records.engine import EngineReport, EngineSpec, PluginComparison
from edgeformer.records.fusion import FusionReport
from edgeformer.records.latency import LatencyComparison, LatencyReport
from edgeformer.records.network import BlockFigures
from edgeformer.records.quantization import ActivationRecord, LayerRecord
from edgeformer.records.routing import RoutingPicture
from edgeformer.records.verification import Comparison, FormReport, VerifyReport

__all__ = [
    "AutotuneDetails",
    "CandidatesDetails",
    "Details",
    "DeviceDetails",
    "EngineDetails",
    "EngineParityDetails",
    "ExportDetails",
    "FiguresDetails",
    "FuseDetails",
    "LatencyDetails",
    "ParityDetails",
    "PluginComparisonDetails",
    "QuantizeDetails",
]


class ExportDetails(Record):
    """The export against PyTorch: figures for each output, and the key that the weights had in the checkpoint."""

    stage: Literal["export"] = "export"
    figures: dict[str, Comparison]
    checkpoint_key: str | None = None


class FuseDetails(Record):
    """What became of each block, and the fused graph against the exported one."""

    stage: Literal["fuse"] = "fuse"
    fusion: FusionReport
    comparison: FormReport


class QuantizeDetails(Record):
    """What became of each layer, the type of what the fused attention reads, and what calibration saw."""

    stage: Literal["quantize"] = "quantize"
    attention: Literal["int8", "float16"]
    layers: tuple[LayerRecord, ...]
    activations: tuple[ActivationRecord, ...] = ()


class ParityDetails(Record):
    """The forms of the model against each other.

    Attributes:
        inputs: what they were compared on, in words.
        max_drop: points of accuracy that INT8 was allowed to lose.
        accepted_outputs: outputs that were not judged, since the build was asked to accept them.
        report: what was found.
        blocks: the network part by part; empty where the graph has no parts that can be told apart.
        routing: where a few regions of one image look; None where no block routes, or all go everywhere.
    """

    stage: Literal["parity"] = "parity"
    inputs: str
    max_drop: float
    accepted_outputs: tuple[str, ...] = ()
    report: VerifyReport
    blocks: tuple[BlockFigures, ...] = ()
    routing: RoutingPicture | None = None


class CandidatesDetails(Record):
    """The forms of the model that ``finish --autotune`` chooses from; the first is the one that the bundle is of."""

    stage: Literal["candidates"] = "candidates"
    candidates: tuple[CandidateRecord, ...]


class EngineDetails(Record):
    """The engine's build.

    Attributes:
        report: of the build; ``None`` where only the target itself can build it.
        spec: what it is built with, for the machine that builds it from the files of the bundle.
        left_to_do: what remains to be done on the target.
        candidate: what it is built from, where ``finish --autotune`` chose another form than the bundle's own.
    """

    stage: Literal["engine"] = "engine"
    report: EngineReport | None = None
    spec: EngineSpec | None = None
    left_to_do: tuple[str, ...] = ()
    candidate: str | None = None


class DeviceDetails(Record):
    """The machine that the bundle was finished on.

    Attributes:
        machine: what was found.
        faults: what was not as it should be, each with its remedy, in words.
    """

    stage: Literal["device"] = "device"
    machine: DeviceRecord
    faults: tuple[str, ...] = ()


class EngineParityDetails(Record):
    """The engine against the exported graph."""

    stage: Literal["engine-parity"] = "engine-parity"
    report: VerifyReport


class AutotuneDetails(Record):
    """The choice between candidates, on the device.

    Attributes:
        candidates: what became of each, in the order in which they were timed; those that were not come last.
        kept: the name of the one whose engine is the bundle's; None where none met its gate.
        text: why, in a line.
        comparisons: of each pair of those that were timed in turns.
    """

    stage: Literal["autotune"] = "autotune"
    candidates: tuple[TunedRecord, ...]
    kept: str | None
    text: str
    comparisons: tuple[LatencyComparison, ...] = ()


class PluginComparisonDetails(Record):
    """What the engine takes with the plugin and without."""

    stage: Literal["plugin-comparison"] = "plugin-comparison"
    comparison: PluginComparison


class LatencyDetails(Record):
    """How long the model takes, as `edgeformer bench` measured it after the build.

    Attributes:
        name: the bundle's in the report, which holds those that it was compared with, too.
        report: what was found.
    """

    stage: Literal["latency"] = "latency"
    name: str
    report: LatencyReport


_Own = Annotated[
    ExportDetails
    | FuseDetails
    | QuantizeDetails
    | ParityDetails
    | CandidatesDetails
    | DeviceDetails
    | AutotuneDetails
    | EngineDetails
    | EngineParityDetails
    | PluginComparisonDetails
    | LatencyDetails,
    Field(discriminator="stage"),
]
_OWN_STAGES = frozenset(kind.model_fields["stage"].default for kind in get_args(get_args(_Own)[0]))


class FiguresDetails(Record):
    """The figures of any stage that has no record of its own.

    Attributes:
        stage: its name.
        figures: numbers by name, with the unit at the end of the name: ``latency_p99_ms``.
    """

    stage: str
    figures: dict[str, Figure]

    @field_validator("stage")
    @classmethod
    def _has_no_record(cls, stage: str) -> str:
        if stage in _OWN_STAGES:
            raise ValueError(f"the stage {stage!r} has details of another form")
        return stage


Details = Annotated[_Own | FiguresDetails, Field(union_mode="left_to_right")]
