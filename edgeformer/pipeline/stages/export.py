"""``export`` or ``import``: the model as an FP32 ONNX graph, compared with PyTorch where it comes from there."""

from __future__ import annotations

from edgeformer.bundle.details import ExportDetails
from edgeformer.bundle.files import EXPORTED
from edgeformer.data import Preprocessing
from edgeformer.pipeline.exporting import export_source
from edgeformer.pipeline.model_source import (
    NamedModel,
    OnnxFile,
    Source,
    describe_preprocessing,
    in_graph,
    outer_preprocessing,
)
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.published import without_notes
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.pipeline.stages._verdicts import verdict_of

__all__ = ["run"]

# Noise images that an ONNX file is run on with and without the normalization in its graph.
_IMAGES = 2


def run(runner: Runner, source: Source) -> None:
    """Export a named model, or take an ONNX file as it is."""
    described = {**source.describe(), "preprocessing": source.preprocessing.to_dict()}
    for name in ("checkpoint", "path"):  # where the file lies does not matter, only its hash
        described.pop(name, None)
    if isinstance(source, NamedModel):
        runner.run("export", [EXPORTED], lambda: _export(runner, source), {"source": described})
    else:
        runner.run("import", [EXPORTED], lambda: _import(runner, source), {"source": described})


def _export(runner: Runner, source: NamedModel) -> Judged:
    from edgeformer.graph.onnx_files import save_model

    exported = export_source(source)
    save_model(exported.model, runner.path(EXPORTED))
    verdict = exported.verdict
    key = exported.checkpoint_key
    return Judged(
        "passed" if verdict.passed else "missed",
        verdict.text,
        None if key is None else f"weights from {key!r} of the checkpoint",
        ExportDetails(figures=dict(exported.figures), checkpoint_key=key),
    )


def _import(runner: Runner, source: OnnxFile) -> Judged:
    from edgeformer.graph.onnx_files import save_model

    without_notes(source.model)
    normalizing = in_graph(source)
    if normalizing is not None:
        return _import_with_pixels(runner, source, normalizing)
    describe_preprocessing(source.model, source.preprocessing)
    save_model(source.model, runner.path(EXPORTED))
    return Judged(note="an ONNX file is the reference itself: there is nothing to compare it with")


def _import_with_pixels(runner: Runner, source: OnnxFile, normalizing: Preprocessing) -> Judged:
    """Let the graph take bytes, and compare it with the file's, which takes what is made of them."""
    from edgeformer.graph.onnx_files import save_model
    from edgeformer.graph.pixel_input import with_pixel_input
    from edgeformer.graph.protos import float_precision
    from edgeformer.runtime import OnnxSession
    from edgeformer.runtime.normalizing_session import NormalizingSession
    from edgeformer.verify import Form, verify_forms
    from edgeformer.verify.gates import fuse_stage

    model = with_pixel_input(source.model, normalizing)
    describe_preprocessing(model, outer_preprocessing(source))
    save_model(model, runner.path(EXPORTED))
    given = NormalizingSession(OnnxSession(source.model), normalizing)
    taken = Form.from_onnx("exported", runner.path(EXPORTED), fuse_stage(float_precision(source.model)))
    noise = ParityInputs(None, None, outer_preprocessing(source)).noise(_IMAGES)
    judged = verify_forms([Form.from_session("given", given, close=True), taken], [noise]).forms[-1]
    return Judged(verdict_of(judged), judged.text, "pixels are normalized in the graph, compared with the file's")
