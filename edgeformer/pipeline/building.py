"""`build`: from a request to a published bundle."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer.bundle import Manifest, ModelRecord, StageRecord, TargetRecord, TensorRecord, staging
from edgeformer.bundle.details import ParityDetails
from edgeformer.bundle.files import TYPED
from edgeformer.pipeline.application import describe_application
from edgeformer.pipeline.conflicts import check_inputs_stay
from edgeformer.pipeline.model_source import outer_preprocessing
from edgeformer.pipeline.options import takes
from edgeformer.pipeline.plan import BuildPlan, make_plan
from edgeformer.pipeline.published import without_paths
from edgeformer.pipeline.publishing import publish
from edgeformer.pipeline.request import BuildRequest
from edgeformer.pipeline.runner import Runner, libraries
from edgeformer.pipeline.stages import candidates, engine, export, fuse, parity, plugin_comparison, precision
from edgeformer.records.terms import Precision
from edgeformer.records.verification import Score
from edgeformer.runtime.session import TensorInfo
from edgeformer.version import __version__

if TYPE_CHECKING:
    import onnx

__all__ = ["BuildResult", "build"]


@dataclass(frozen=True)
class BuildResult:
    """A published bundle."""

    path: Path
    manifest: Manifest
    seconds: float


@takes(BuildRequest)
def build(request: BuildRequest) -> BuildResult:
    """Build a bundle: from a trained model to a parity-checked engine.

    Raises:
        InputError: an argument cannot be used.
        GateMissed: a stage's figure missed its gate; nothing was published.
        EnvironmentFault: this machine lacks something the build needs.
    """
    begun = time.monotonic()
    check_inputs_stay(
        request.output,
        request.model,
        folder=True,
        checkpoint=request.checkpoint,
        recipe=request.recipe,
        labels=request.labels,
        data=request.data,
        evaluation_data=request.eval_data,
    )
    plan = make_plan(request)
    output = Path(request.output)
    with staging(output) as work:
        runner = Runner(work, request.observer)
        _run_stages(runner, plan)
        manifest = _manifest(runner, plan, request)
        publish(work, manifest)
    return BuildResult(output, manifest, time.monotonic() - begun)


def _run_stages(runner: Runner, plan: BuildPlan) -> None:
    """The stages of a build, in order."""
    export.run(runner, plan.source)
    fuse.run(
        runner, plan.parity_inputs, accepted=plan.accepted, fuse_lepe=plan.fuse_lepe, require_plugin=plan.require_plugin
    )
    precision.run(runner, plan.form, plan.quantization)
    parity.run(
        runner,
        plan.parity_inputs,
        precision=plan.form.precision,
        quantization=plan.quantization,
        max_drop=plan.max_drop,
        accepted=plan.accepted,
    )
    if plan.fp16_candidate is not None and plan.quantization is not None:
        candidates.run(
            runner,
            plan.form.precision,
            plan.fp16_candidate,
            plan.quantization,
            use_plugin=plan.engine.use_plugin,
        )
    if engine.run(runner, plan.engine):
        engine.run_parity(runner, plan.engine, plan.parity_inputs, max_drop=plan.max_drop, accepted=plan.accepted)
        if plan.compare_plugin:
            plugin_comparison.run(runner, plan.engine)


def _manifest(runner: Runner, plan: BuildPlan, request: BuildRequest) -> Manifest:
    import onnx

    from edgeformer.graph.protos import fed_inputs

    graph = onnx.load_model(runner.path(TYPED), load_external_data=False).graph
    inputs, outputs = _infos(fed_inputs(graph)), _infos(graph.output)
    target, batch = plan.engine.target, plan.engine.batch
    manifest = Manifest(
        edgeformer=__version__,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        libraries={"python": platform.python_version(), **libraries()},
        model=ModelRecord(**plan.source.describe()),
        precision=plan.form.precision,
        target=TargetRecord(**target.model_dump(mode="json", include=set(TargetRecord.model_fields))),
        batch=[batch.min, batch.opt, batch.max],
        inputs=_tensors(inputs),
        outputs=_tensors(outputs),
        application=describe_application(
            outer_preprocessing(plan.source), plan.source.class_count, plan.labels, inputs, outputs
        ),
        stages=runner.records,
        accuracy=_accuracy(runner.records, plan.form.precision),
        files=runner.work.file_records(),
    )
    return without_paths(manifest, (request.model, request.checkpoint, request.data, request.eval_data, request.output))


def _infos(values: Iterable[onnx.ValueInfoProto]) -> dict[str, TensorInfo]:
    """What a graph says of its inputs or outputs."""
    from onnx import helper

    infos = {}
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(
            size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in kind.shape.dim
        )
        infos[value.name] = TensorInfo(helper.tensor_dtype_to_np_dtype(kind.elem_type), shape)
    return infos


def _tensors(tensors: Mapping[str, Any]) -> list[TensorRecord]:
    return [
        TensorRecord(name=name, dtype=str(np.dtype(info.dtype)), shape=list(info.shape))
        for name, info in tensors.items()
    ]


def _accuracy(records: list[StageRecord], precision: Precision) -> dict[Precision, Score]:
    """Task accuracy of each form of the model, by precision; empty where no labelled images were given."""
    details = next(record.details for record in records if isinstance(record.details, ParityDetails))
    names: dict[str, Precision] = {"exported": "fp32", "fp16": "fp16", "typed": precision}
    forms = details.report.forms
    return {names[form.name]: form.accuracy for form in forms if form.name in names and form.accuracy is not None}
