"""`export_model`: a named model to an ONNX file that was compared with PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer.data import Preprocessing
from edgeformer.errors import GateMissed, InputError
from edgeformer.pipeline.model_source import PREPROCESSING_PROPERTY, NamedModel
from edgeformer.pipeline.options import takes
from edgeformer.pipeline.plan import source_of
from edgeformer.pipeline.request import ExportRequest

if TYPE_CHECKING:
    import onnx

    from edgeformer.verify import Comparison, Verdict

__all__ = ["Exported", "describe_preprocessing", "export_model", "export_source"]


@dataclass(frozen=True)
class Exported:
    """An export and how it compares with PyTorch.

    Attributes:
        model: the ONNX model.
        figures: by output, against PyTorch on two random batches.
        verdict: of the gate ``export``.
    """

    model: onnx.ModelProto
    figures: Mapping[str, Comparison]
    verdict: Verdict


@takes(ExportRequest)
def export_model(request: ExportRequest) -> Exported:
    """Export a named model to an ONNX file and compare it with PyTorch in ONNX Runtime.

    Raises:
        InputError: an argument cannot be used.
        GateMissed: ONNX Runtime and PyTorch differ by more than the gate allows; nothing was written.
        EnvironmentFault: torch is not installed.
    """
    from edgeformer.graph.onnx_files import save_model

    source = source_of(request, str(request.model))
    if not isinstance(source, NamedModel):
        raise InputError(f"{request.model} is an ONNX file already; name a model of 'edgeformer models'")
    exported = export_source(source, static_batch=request.static_batch, opset=request.opset)
    if not exported.verdict.passed:
        raise GateMissed(f"the export differs from PyTorch: {exported.verdict.text}; nothing was written")
    save_model(exported.model, Path(request.output))
    return exported


def export_source(source: NamedModel, *, static_batch: int | None = None, opset: int | None = None) -> Exported:
    """Export a model and judge the export; how its images are prepared goes into the metadata."""
    from edgeformer.export import DEFAULT_OPSET, check_export, export_onnx
    from edgeformer.verify import judge

    network = source.create()
    size = (source.preprocessing.height, source.preprocessing.width)
    model = export_onnx(
        network,
        input_size=size,
        dynamic_batch=static_batch is None,
        batch=static_batch or 1,
        opset=opset or DEFAULT_OPSET,
        name=source.name,
    )
    describe_preprocessing(model, source.preprocessing)
    figures = check_export(network, model)
    return Exported(model, figures, judge("export", {name: vars(output) for name, output in figures.items()}))


def describe_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Record in ``model``'s metadata how its images are prepared."""
    kept = [entry for entry in model.metadata_props if entry.key != PREPROCESSING_PROPERTY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=PREPROCESSING_PROPERTY, value=json.dumps(preprocessing.to_dict(), sort_keys=True))
