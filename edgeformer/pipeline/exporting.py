"""`export_model`: a named model to an ONNX file that was compared with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeformer.errors import GateMissed, InputError
from edgeformer.pipeline.conflicts import check_inputs_stay
from edgeformer.pipeline.model_source import NamedModel, describe_preprocessing, in_graph, outer_preprocessing
from edgeformer.pipeline.options import takes
from edgeformer.pipeline.plan import source_of
from edgeformer.pipeline.request import ExportRequest
from edgeformer.supervision import final_step
from edgeformer.supervision.limits import limited

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from edgeformer.data import Preprocessing
    from edgeformer.records.verification import Comparison, GateVerdict

__all__ = ["Exported", "check_export", "export_model", "export_source"]


@dataclass(frozen=True)
class Exported:
    """An export and how it compares with PyTorch.

    Attributes:
        model: the ONNX model.
        figures: by output, against PyTorch on two random batches.
        verdict: of the gate ``export``.
        checkpoint_key: the key that the weights were under in the checkpoint, if any.
    """

    model: onnx.ModelProto
    figures: Mapping[str, Comparison]
    verdict: GateVerdict
    checkpoint_key: str | None = None


@takes(ExportRequest)
def export_model(request: ExportRequest) -> Exported:
    """Export a named model to an ONNX file and compare it with PyTorch in ONNX Runtime.

    Raises:
        InputError: an argument cannot be used.
        GateMissed: ONNX Runtime and PyTorch differ by more than the gate allows; nothing was written.
        EnvironmentFault: torch is not installed.
    """
    from edgeformer.graph.onnx_files import save_model

    check_inputs_stay(request.output, checkpoint=request.checkpoint)
    source = source_of(request, str(request.model))
    if not isinstance(source, NamedModel):
        raise InputError("EF107", f"{request.model} is an ONNX file already; name a model of 'edgeformer models'")
    exported = export_source(source, static_batch=request.static_batch, opset=request.opset)
    if not exported.verdict.passed:
        raise GateMissed("EF801", f"the export differs from PyTorch: {exported.verdict.text}; nothing was written")
    with final_step():
        save_model(exported.model, Path(request.output))
    return exported


def export_source(source: NamedModel, *, static_batch: int | None = None, opset: int | None = None) -> Exported:
    """Export a model and judge the export; how its images are prepared goes into the metadata."""
    from edgeformer.export import DEFAULT_OPSET, export_onnx
    from edgeformer.graph.pixel_input import with_pixel_input
    from edgeformer.verify import judge

    network, taken = source.create()
    size = (source.preprocessing.height, source.preprocessing.width)
    with limited("export", f"the export of {source.name}"):
        model = export_onnx(
            network,
            input_size=size,
            dynamic_batch=static_batch is None,
            batch=static_batch or 1,
            opset=opset or DEFAULT_OPSET,
            name=source.name,
        )
    normalizing = in_graph(source)
    if normalizing is not None:
        model = with_pixel_input(model, normalizing)
    describe_preprocessing(model, outer_preprocessing(source))
    figures = check_export(network, model, normalizing=normalizing)
    verdict = judge("export", {name: vars(output) for name, output in figures.items()})
    return Exported(model, figures, verdict, taken)


def check_export(
    model: nn.Module,
    proto: onnx.ModelProto,
    *,
    seed: int = 0,
    batches: tuple[int, int] = (1, 3),
    threads: int | None = None,
    normalizing: Preprocessing | None = None,
) -> dict[str, Comparison]:
    """Compare an export with its PyTorch model, in ONNX Runtime, on two random inputs of different batch.

    Args:
        model: the PyTorch model.
        proto: its export.
        seed: of the random inputs, which are normally distributed, as normalized images are, or pixels.
        batches: the two batch sizes; where the export fixes its batch, both are that.
        threads: as for `OnnxSession`.
        normalizing: what the export does to the bytes ``[batch, height, width, 3]`` that it takes, where it takes such.

    Returns:
        The figures per output, which the gate ``export`` judges (`worst` takes them together).

    Raises:
        InputError: the export cannot be run, or its inputs or outputs are not those of the model.
    """
    from edgeformer.runtime import OnnxSession, Session, TorchSession
    from edgeformer.runtime.normalizing_session import NormalizingSession
    from edgeformer.runtime.torch_session import channels_of
    from edgeformer.verify import compare_models

    with OnnxSession(proto, threads=threads) as candidate:
        shape = next(iter(candidate.inputs.values())).shape if candidate.inputs else ()
        if normalizing is not None:
            shape = (shape[0], shape[3], shape[1], shape[2])
        if len(shape) != 4 or not isinstance(shape[2], int) or not isinstance(shape[3], int):
            raise InputError(
                "EF321",
                f"the export's input is {list(shape)}: expected [batch, channels, height, width], both sizes fixed",
            )
        batch, size = shape[0], (shape[2], shape[3])
        sizes = (batch, batch) if isinstance(batch, int) else batches
        generator = np.random.default_rng(seed)
        torch_session = TorchSession(model, input_size=size, output_names=tuple(candidate.outputs))
        if normalizing is None:
            image = (channels_of(model), *size)
            images = (generator.standard_normal((n, *image), np.float32) for n in sizes)
            session: Session = torch_session
        else:
            images = (generator.integers(0, 256, (n, *size, 3), np.uint8) for n in sizes)
            session = NormalizingSession(torch_session, normalizing)
        with session as reference:
            return compare_models(reference, candidate, images)
