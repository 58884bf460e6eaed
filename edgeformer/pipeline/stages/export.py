"""``export`` or ``import``: the model as an FP32 ONNX graph, compared with PyTorch where it comes from there."""

from __future__ import annotations

from edgeformer.bundle.details import ExportDetails
from edgeformer.bundle.files import EXPORTED
from edgeformer.pipeline.exporting import export_source
from edgeformer.pipeline.model_source import NamedModel, OnnxFile, Source, describe_preprocessing
from edgeformer.pipeline.published import without_notes
from edgeformer.pipeline.runner import Judged, Runner

__all__ = ["run"]


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
    describe_preprocessing(source.model, source.preprocessing)
    save_model(source.model, runner.path(EXPORTED))
    return Judged(note="an ONNX file is the reference itself: there is nothing to compare it with")
