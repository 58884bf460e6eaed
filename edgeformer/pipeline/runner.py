"""The stages of a build, their gates, and the bundle they fill.

exported -> fused -> (quantized) -> typed -> engine, each compared with what came before. A stage that misses its gate
ends the build and nothing is published; a stage whose inputs did not change is taken from the older bundle.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from edgeformer.artifacts import sha256_of_bytes, sha256_of_file
from edgeformer.bundle import Manifest, ModelRecord, StageRecord, Staging, TargetRecord, TensorRecord, stage_key
from edgeformer.data import Samples
from edgeformer.errors import EdgeformerError, GateMissed
from edgeformer.pipeline.engine_stage import closing_engine, engine_stage
from edgeformer.pipeline.exporting import describe_preprocessing, export_source
from edgeformer.pipeline.model_source import NamedModel, OnnxFile, Source
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.stages.plugin_comparison import COMPARISON, compare_plugin
from edgeformer.version import __version__

if TYPE_CHECKING:
    import onnx

    from edgeformer.engine.profiles import BatchProfile
    from edgeformer.engine.targets import Target
    from edgeformer.machine.plugin_library import PluginLibrary
    from edgeformer.quantization import Recipe

__all__ = [
    "ENGINE",
    "EXPORTED",
    "FLOAT_ATTENTION",
    "FUSED",
    "PARITY",
    "PRECISIONS",
    "TYPED",
    "BuildJob",
    "Observer",
    "Precision",
]

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

EXPORTED, FUSED, TYPED, ENGINE = "exported.onnx", "fused.onnx", "typed.onnx", "model.engine"
CALIBRATION, PARITY = "calibration.json", "parity.npz"
# The form of an INT8 model that parity runs beside it where its attention is INT8, too.
FLOAT_ATTENTION = "float-attention"

# Whatever of these changes can change what a stage makes.
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxscript", "onnx-graphsurgeon", "polygraphy", "torch")
# Images whose outputs the bundle records, for the device to compare with.
_RECORDED_IMAGES = 8


class Observer:
    """Follows a build; every method does nothing unless overridden."""

    def started(self, stage: str) -> None:
        """Stage ``stage`` begins."""

    def progressed(self, stage: str, text: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` steps (``None``: unknown) of what ``text`` names are done."""

    def finished(self, record: StageRecord) -> None:
        """A stage is done, reused or skipped."""


@cache
def _code_sha256() -> str:
    """Hash of all of edgeformer's own sources: another version of the code makes its stages anew."""
    package = Path(__file__).parents[1]
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".json") and path.is_file())
    return sha256_of_bytes(
        *(part for path in files for part in (str(path.relative_to(package)).encode(), path.read_bytes()))
    )


def _libraries(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class _Judged:
    """What a stage's work came to."""

    gate: str | None = None
    verdict: Literal["passed", "missed", "not judged", "not run"] = "not judged"
    note: str | None = None
    details: Mapping[str, Any] | None = None


@dataclass
class BuildJob:
    """One build: what was asked for, checked; `run` fills a bundle."""

    source: Source
    precision: Precision
    target: Target
    batch: BatchProfile
    data: Samples | None
    parity_inputs: ParityInputs
    recipe: Recipe | None
    max_drop: float
    fuse_lepe: bool
    linears_as_convolutions: bool
    use_plugin: bool
    compare_plugin: bool
    embed_plugin: bool
    workspace_bytes: int | None
    max_aux_streams: int | None
    observer: Observer
    records: list[StageRecord] = field(default_factory=list, init=False)
    work: Staging = field(init=False)

    def run(self, work: Staging) -> Manifest:
        """All stages, in order; the manifest of what they made."""
        self.work = work
        self._export()
        self._fuse()
        self._type()
        self._parity()
        self._engine()
        return self._manifest()

    # -- stages ------------------------------------------------------------------------------------------------------

    def _export(self) -> None:
        described = self.source.describe()
        described.pop("checkpoint", None)  # where the file lies does not matter, only its hash
        described.pop("path", None)
        if isinstance(self.source, NamedModel):
            self._stage("export", [EXPORTED], self._export_named, source=described)
        else:
            self._stage("import", [EXPORTED], self._import_file, source=described)

    def _export_named(self) -> _Judged:
        from edgeformer.graph.onnx_files import save_model

        assert isinstance(self.source, NamedModel)
        exported = export_source(self.source)
        save_model(exported.model, self.work.path / EXPORTED)
        verdict = exported.verdict
        return _Judged(verdict.text, "passed" if verdict.passed else "missed", details=_figures(exported.figures))

    def _import_file(self) -> _Judged:
        from edgeformer.graph.onnx_files import save_model

        assert isinstance(self.source, OnnxFile)
        model = type(self.source.model)()
        model.CopyFrom(self.source.model)
        describe_preprocessing(model, self.source.preprocessing)
        save_model(model, self.work.path / EXPORTED)
        return _Judged(note="an ONNX file is the reference itself: there is nothing to compare it with")

    def _fuse(self) -> None:
        self._stage("fuse", [FUSED], self._fuse_exported, model=self._sha256(EXPORTED), lepe=self.fuse_lepe)

    def _fuse_exported(self) -> _Judged:
        from edgeformer.graph.fuse import fuse
        from edgeformer.graph.onnx_files import load_model, save_model
        from edgeformer.verify import Stage, verify_stages

        exported = load_model(self.work.path / EXPORTED)
        result = fuse(exported, fuse_lepe=self.fuse_lepe, on_progress=self._progress("fuse", "blocks proven"))
        save_model(result.model, self.work.path / FUSED)
        stages = [Stage.from_onnx("exported", exported), Stage.from_onnx("fused", result.model, "fuse")]
        judged = verify_stages(stages, [self.parity_inputs.noise(2)]).stages[-1]
        note = f"{len(result.fused)} of {len(result.blocks)} routing-attention blocks fused"
        if self.fuse_lepe:
            folded = sum(report.status == "fused" for report in result.lepe)
            note += f", LePE into {folded} of {len(result.lepe)} op nodes"
        details = {**result.to_dict(), "comparison": judged.to_dict()}
        return _Judged(judged.text, "missed" if judged.status == "missed" else "passed", note, details)

    def _type(self) -> None:
        fused = self._sha256(FUSED)
        if self.precision == "int8":
            assert self.data is not None
            assert self.recipe is not None
            inputs = {"data": self.data.sha256(), "recipe": self.recipe.model_dump(mode="json")}
            name, files, make = "quantize", [CALIBRATION, TYPED], self._quantize
        else:
            inputs = {"precision": self.precision}
            name, files, make = "types", [TYPED], self._set_types
        forms = {"convolutions": self.linears_as_convolutions, "one_weight_scale": self._one_weight_scale}
        self._stage(name, files, make, model=fused, **forms, **inputs)

    @property
    def _one_weight_scale(self) -> bool:
        """Whether quantized layers get one weight scale: TensorRT has kernels for more, TensorRT-RTX does not."""
        return self.precision == "int8" and self.target.flavour == "tensorrt_rtx"

    def _formed(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
        """The graph in the form that the target's TensorRT makes most of, and what to note of it."""
        from edgeformer.graph.pointwise import linears_as_convolutions
        from edgeformer.graph.weight_scales import one_weight_scale

        note = ""
        if self.linears_as_convolutions:
            model, count = linears_as_convolutions(model)
            note = f"{count} Linears as 1 x 1 convolutions; " if count else ""
        if self._one_weight_scale:
            model, _ = one_weight_scale(model)
        return model, note

    def _quantize(self) -> _Judged:
        from edgeformer.graph.onnx_files import load_model, save_model
        from edgeformer.graph.types import to_float_type
        from edgeformer.ops.bi_level_routing_attention import OP_TYPE
        from edgeformer.quantization import quantize

        result = quantize(
            load_model(self.work.path / FUSED),
            self.data,
            recipe=self.recipe,
            progress=lambda text, done, total: self.observer.progressed("quantize", text, done, total),
        )
        result.calibration.save(self.work.path / CALIBRATION)
        model, convolutions = self._formed(result.model)
        save_model(to_float_type(model, "float16"), self.work.path / TYPED)
        quantized = [decision.quantized for decision in result.decisions if decision.op_type != OP_TYPE]
        attention = [decision.quantized for decision in result.decisions if decision.op_type == OP_TYPE]
        int8_attention = f", attention of {len(attention)} blocks INT8" if any(attention) else ""
        note = (
            f"{sum(quantized)} layers INT8{int8_attention}, {len(result.calibration.returned)} returned to FP16 by "
            "sensitivity, rest FP16"
        )
        return _Judged(
            note=convolutions + note,
            details={
                "attention": "int8" if any(attention) else "float16",
                "layers": [decision.to_dict() for decision in result.decisions],
            },
        )

    def _set_types(self) -> _Judged:
        from edgeformer.graph.onnx_files import load_model, save_model
        from edgeformer.graph.types import to_float_type

        model, convolutions = self._formed(load_model(self.work.path / FUSED))
        if self.precision != "fp32":
            model = to_float_type(model, "float16" if self.precision == "fp16" else "bfloat16")
        save_model(model, self.work.path / TYPED)
        types = f"weights and activations {self.precision.upper()}"
        return _Judged(note=f"{convolutions}{types}; judged by the parity stage")

    def _parity(self) -> None:
        self._stage(
            "parity",
            [PARITY],
            self._compare_stages,
            exported=self._sha256(EXPORTED),
            fused=self._sha256(FUSED),
            typed=self._sha256(TYPED),
            inputs=self.parity_inputs.key(),
            max_drop=self.max_drop,
        )

    def _compare_stages(self) -> _Judged:
        from edgeformer.graph.onnx_files import load_model
        from edgeformer.graph.qdq import with_float_attention
        from edgeformer.graph.types import to_float_type
        from edgeformer.verify import Stage, verify_stages

        stages = [
            Stage.from_onnx("exported", self.work.path / EXPORTED),
            Stage.from_onnx("fused", self.work.path / FUSED, "fuse"),
        ]
        if self.precision == "int8":
            # Not shipped and not judged: what FP16 alone would cost, so that INT8's share can be told.
            half = to_float_type(load_model(self.work.path / FUSED), "float16")
            stages.append(Stage.from_onnx("fp16", half))
            assert self.recipe is not None
            if self.recipe.quantize_attention:
                # Likewise: what INT8 costs without that of the attention.
                layers = with_float_attention(load_model(self.work.path / TYPED))
                stages.append(Stage.from_onnx(FLOAT_ATTENTION, layers))
        stages.append(Stage.from_onnx("typed", self.work.path / TYPED, self.precision))
        self._record_outputs()
        seen = 0

        def count(samples: int) -> None:
            nonlocal seen
            seen += samples
            self.observer.progressed("parity", "images", seen, self.parity_inputs.count)

        report = verify_stages(stages, self.parity_inputs.batches(), max_drop=self.max_drop, progress=count)
        missed = [f"{stage.name}: {stage.text}" for stage in report.stages if stage.status == "missed"]
        inputs = self.parity_inputs.describe()
        details = {"inputs": inputs, "max_drop": self.max_drop, **report.to_dict()}
        gate = "; ".join(missed) or report.stages[-1].text
        return _Judged(gate, "missed" if missed else "passed", f"judged on {inputs}", details)

    def _record_outputs(self) -> None:
        from edgeformer.runtime import OnnxSession, run_in_chunks, static_batch

        session = OnnxSession(self.work.path / EXPORTED)
        (name,) = session.inputs
        images = self.parity_inputs.images(_RECORDED_IMAGES)
        outputs = run_in_chunks(session, {name: images}, static_batch(session) or len(images))
        arrays: dict[str, Any] = {f"input:{name}": images, **{f"output:{key}": outputs[key] for key in outputs}}
        with (self.work.path / PARITY).open("wb") as file:
            np.savez_compressed(file, **arrays)

    def _engine(self) -> None:
        from edgeformer.engine.targets import can_build
        from edgeformer.machine.backends import find_backend
        from edgeformer.machine.plugin_library import find_device_library, find_plugin_library

        here = can_build(self.target)
        if not here:
            library = find_device_library(self.target.cpu, self.target.sm) if self.use_plugin else None
            self._add_library(library)
            self._skip("engine", here.reason, left_to_do=self._left_to_do(library))
            return
        library = find_plugin_library() if self.use_plugin else None
        beside = None if self.embed_plugin else library
        self._add_library(beside)
        backend = find_backend(self.target.flavour)
        assert backend is not None  # can_build saw it
        files = [ENGINE, f"{ENGINE}.json"]
        self._stage(
            "engine",
            files,
            self._build_engine,
            typed=self._sha256(TYPED),
            target=self.target.model_dump(mode="json"),
            batch=str(self.batch),
            tensorrt=backend.version,
            plugin=None if library is None else sha256_of_file(library.path),
            embed_plugin=self.embed_plugin,
            **self._limits,
        )
        self._engine_parity(None if beside is None else beside.path)
        if self.compare_plugin:
            self._comparison()

    def _left_to_do(self, library: PluginLibrary | None) -> list[str]:
        """What a device target's own machine still has to do."""
        target = self.target
        plugin = []
        if library is not None:
            plugin = [f"check that the {target.description} has CUDA {library.metadata.cuda}, for {library.path.name}"]
        elif self.use_plugin:
            plugin = [
                f"on the {target.description}, build the plugin library for SM {target.sm} (docs/building.md; one "
                "cross-compiled before comes with the bundle)"
            ]
        loaded = ", the plugin library loaded before parsing" if self.use_plugin else ""
        limits = "".join(f", {name}={limit}" for name, limit in self._limits.items() if limit is not None)
        return [
            *plugin,
            f"build the engine from {TYPED} with TensorRT {target.tensorrt_minimum} or newer, below "
            f"{target.tensorrt_below}: a strongly typed network{loaded}{limits}",
            f"compare the engine's outputs with those recorded in {PARITY}",
            "measure its latency",
        ]

    @property
    def _limits(self) -> dict[str, int | None]:
        """What TensorRT is limited to, with or without the plugin."""
        return {"workspace_bytes": self.workspace_bytes, "max_aux_streams": self.max_aux_streams}

    def _add_library(self, library: PluginLibrary | None) -> None:
        """Put the plugin library that the engine needs into the bundle."""
        if library is None:
            return
        for file in (library.path, library.path.with_suffix(".json"), library.aux_path):
            if file is not None:
                shutil.copyfile(file, self.work.path / file.name)

    def _build_engine(self) -> _Judged:
        from edgeformer.engine.builder import build_engine, write_engine
        from edgeformer.graph.onnx_files import load_model

        built = build_engine(
            load_model(self.work.path / TYPED),
            target=self.target,
            batch=self.batch,
            use_plugin=self.use_plugin,
            embed_plugin=self.embed_plugin,
            workspace_bytes=self.workspace_bytes,
            max_aux_streams=self.max_aux_streams,
            on_progress=lambda phase, done, total: self.observer.progressed("engine", phase, done, total),
        )
        write_engine(built, self.work.path / ENGINE)
        report = built.report
        layers = report.plugin.in_network
        gate = f"{layers} plugin layers for {report.op_nodes} op nodes" if self.use_plugin else None
        note = None if self.use_plugin else "built from the op's ONNX body, without the plugin"
        return _Judged(gate, "passed" if self.use_plugin else "not judged", note, report.model_dump(mode="json"))

    def _engine_parity(self, plugin: Path | None) -> None:
        from edgeformer.verify import Stage, verify_stages

        engine = engine_stage(
            self.work.path / ENGINE, self.precision, sm=self.target.sm, flavour=self.target.flavour, plugin=plugin
        )
        if engine.session is None:
            self._skip("engine-parity", engine.reason or "")
            return

        def compare() -> _Judged:
            stages = [Stage.from_onnx("exported", self.work.path / EXPORTED), engine]
            report = verify_stages(stages, self.parity_inputs.batches(), max_drop=self.max_drop)
            return _Judged(report.stages[-1].text, "passed" if report.passed else "missed", None, report.to_dict())

        with closing_engine(engine):
            # The time makes the key new: what a GPU computes is never taken from an older bundle.
            self._stage("engine-parity", [], compare, engine=self._sha256(ENGINE), run=time.time())

    def _comparison(self) -> None:
        """Build the engine without the plugin, too (or with it, where this one is without), and note what it takes."""
        from edgeformer.machine.plugin_library import find_plugin_library

        library = find_plugin_library()
        try:
            self._stage(
                COMPARISON,
                [],
                self._compare_plugin,
                engine=self._sha256(ENGINE),
                plugin=None if library is None else sha256_of_file(library.path),
                **self._limits,
            )
        except EdgeformerError as fault:
            # The engine that was asked for is there, and right: only what is told about it is missing.
            self._skip(COMPARISON, f"the other engine was not built: {str(fault).splitlines()[0]}")

    def _compare_plugin(self) -> _Judged:
        from edgeformer.graph.onnx_files import load_model
        from edgeformer.records.engine import EngineReport

        report = EngineReport.model_validate_json((self.work.path / f"{ENGINE}.json").read_text(encoding="utf-8"))
        comparison = compare_plugin(
            load_model(self.work.path / TYPED),
            report,
            target=self.target,
            batch=self.batch,
            on_progress=lambda phase, done, total: self.observer.progressed(COMPARISON, phase, done, total),
        )
        return _Judged(note=comparison.summary(), details=comparison.to_dict())

    # -- what stages share -------------------------------------------------------------------------------------------

    def _stage(self, name: str, files: list[str], make: Callable[[], _Judged], **inputs: Any) -> None:
        """Reuse the stage from the older bundle, or run ``make`` and record it; a missed gate ends the build."""
        key = stage_key(name, code=_code_sha256(), libraries=_libraries(*_LIBRARIES), **inputs)
        record = self.work.reusable(name, key)
        if record is None:
            self.observer.started(name)
            begun = time.monotonic()
            judged = make()
            record = StageRecord(
                name=name,
                key=key,
                seconds=round(time.monotonic() - begun, 3),
                files=files,
                gate=judged.gate,
                verdict=judged.verdict,
                note=judged.note,
                details=dict(judged.details or {}),
            )
        self.observer.finished(record)
        self.records.append(record)
        if record.verdict == "missed":
            raise GateMissed(f"stage {name} missed its gate: {record.gate}; nothing was published")

    def _skip(self, name: str, reason: str, **details: Any) -> None:
        record = StageRecord(name=name, key="", seconds=0.0, verdict="not run", note=reason, details=details)
        self.observer.finished(record)
        self.records.append(record)

    def _progress(self, stage: str, text: str) -> Callable[[int, int], None]:
        return lambda done, total: self.observer.progressed(stage, text, done, total)

    def _sha256(self, name: str) -> str:
        return sha256_of_file(self.work.path / name)

    def _manifest(self) -> Manifest:
        from edgeformer.runtime import OnnxSession

        session = OnnxSession(self.work.path / TYPED)
        return Manifest(
            edgeformer=__version__,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            libraries={"python": platform.python_version(), **_libraries(*_LIBRARIES)},
            model=ModelRecord(**self.source.describe()),
            precision=self.precision,
            target=TargetRecord(**self.target.model_dump(mode="json", exclude={"peaks"})),
            batch=[self.batch.min, self.batch.opt, self.batch.max],
            inputs=_tensors(session.inputs),
            outputs=_tensors(session.outputs),
            stages=self.records,
            accuracy=_accuracy(next(record for record in self.records if record.name == "parity"), self.precision),
            files=self.work.file_records(),
        )


def _tensors(tensors: Mapping[str, Any]) -> list[TensorRecord]:
    return [
        TensorRecord(name=name, dtype=str(np.dtype(info.dtype)), shape=list(info.shape))
        for name, info in tensors.items()
    ]


def _figures(comparisons: Mapping[str, Any]) -> dict[str, Any]:
    return {"figures": {name: comparison.to_dict() for name, comparison in comparisons.items()}}


def _accuracy(parity: StageRecord, precision: Precision) -> dict[str, Any]:
    """Task accuracy of each form of the model, by precision; empty where no labelled images were given."""
    names = {"exported": "fp32", "fp16": "fp16", "typed": precision}
    stages = {stage["name"]: stage["accuracy"] for stage in parity.details["stages"]}
    return {names[name]: stages[name] for name in names if stages.get(name) is not None}
