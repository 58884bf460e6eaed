"""`measure_sensitivity`: what each layer of a model does alone in INT8, from whatever the user calls the model."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgeformer.data.sources import Source as DataSource
from edgeformer.errors import GateMissed, InputError
from edgeformer.pipeline.options import Argument, Option
from edgeformer.pipeline.request import CALIBRATION_IMAGES, ModelOptions
from edgeformer.progress import Progress
from edgeformer.supervision.limits import stage

if TYPE_CHECKING:
    import onnx

    from edgeformer.data import Preparation
    from edgeformer.records.sensitivity import SensitivityReport

__all__ = ["SensitivityRequest", "measure_sensitivity"]

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class SensitivityRequest(ModelOptions):
    """Which layers to measure, on what, and by whom.

    Raises:
        InputError: an option is out of range, or one that is needed is missing.
    """

    model: Annotated[
        AnyPath, Argument("Name of a model, as `edgeformer.list_models` has it, an .onnx file, or a bundle's folder.")
    ] = field(kw_only=False)
    data: Annotated[DataSource | None, Option("Calibration images: a folder, an .npy or an .npz file.", "path")] = None
    calibration_images: Annotated[int, Option("Take ranges from at most this many images.", "integer", metavar="N")] = (
        CALIBRATION_IMAGES
    )
    recipe: Annotated[
        AnyPath | None,
        Option(
            "Which layers, and how their ranges are observed: a recipe's name, or a JSON file.",
            metavar="NAME|FILE",
            default="default",
        ),
    ] = None
    quantize_attention: Annotated[
        bool | None,
        Option(
            "Measure INT8 queries, keys and values of the fused attention as well.",
            "switch",
            default="what the recipe says; 'default' says no",
        ),
    ] = None
    images: Annotated[
        int, Option("Measure on this many of the calibration images, evenly spread.", "integer", metavar="N")
    ] = 32
    degrade: Annotated[
        bool, Option("Measure on degraded versions of the images (contrast, noise, blur, JPEG), too.", "switch")
    ] = True
    workers: Annotated[
        str | None,
        Option(
            "Share the work out by dask.distributed: to N processes here, or to workers of a scheduler in a network "
            "that you trust. The result is the same bit for bit.",
            metavar="N|tcp://HOST:PORT",
            default="this process",
        ),
    ] = None
    resume: Annotated[
        AnyPath | None,
        Argument("File that keeps what was measured, and from which a measurement that was ended goes on."),
    ] = None

    def __post_init__(self) -> None:
        for name, images in (("calibration_images", self.calibration_images), ("images", self.images)):
            if images < 1:
                raise InputError("EF101", f"{name} {images}: it must be at least 1")
        if self.data is None:
            raise InputError(
                "EF103", "INT8 needs calibration images: give --data with a folder of images, an .npy or an .npz file"
            )


def measure_sensitivity(request: SensitivityRequest, *, progress: Progress | None = None) -> SensitivityReport:
    """Measure what each layer that the recipe quantizes does to the network's outputs alone in INT8.

    A named model is exported and fused first, as a build does it; of a bundle its fused graph is taken.

    Args:
        request: what is to be measured.
        progress: told what is going on.

    Raises:
        InputError: model, data, recipe or the file to resume from cannot be used, or do not go together.
        EnvironmentFault: something that was asked for is not installed, or the workers are not there.
        GateMissed: the export differs from PyTorch.
        OSError: the file to resume from cannot be written.
    """
    from edgeformer.data import open_samples
    from edgeformer.quantization.distributed import open_pool
    from edgeformer.quantization.layer_sensitivity import measure_layers
    from edgeformer.quantization.recipe import load_recipe

    recipe = load_recipe(request.recipe or "default", quantize_attention=request.quantize_attention)
    assert request.data is not None
    with nullcontext() if request.workers is None else open_pool(request.workers) as pool:
        model, preprocessing = _model(request)
        return measure_layers(
            model,
            open_samples(request.data, preprocessing, limit=request.calibration_images, labels=False),
            recipe=recipe,
            images=request.images,
            degrade=request.degrade,
            state_file=None if request.resume is None else Path(request.resume),
            pool=pool,
            progress=progress,
        )


def _model(request: SensitivityRequest) -> tuple[onnx.ModelProto, Preparation]:
    """The float graph, and how its images are prepared."""
    from edgeformer.graph.fuse import fuse
    from edgeformer.pipeline.exporting import export_source
    from edgeformer.pipeline.model_source import OnnxFile, outer_preprocessing
    from edgeformer.pipeline.plan import source_of

    if Path(request.model).is_dir():
        return _of_bundle(request)
    source = source_of(request, str(request.model))
    if isinstance(source, OnnxFile):
        return source.model, source.preprocessing
    with stage("export"):
        exported = export_source(source)
    if not exported.verdict.passed:
        raise GateMissed("EF801", f"the export differs from PyTorch: {exported.verdict.text}")
    with stage("fuse"):
        return fuse(exported.model).model, outer_preprocessing(source)


def _of_bundle(request: SensitivityRequest) -> tuple[onnx.ModelProto, Preparation]:
    from edgeformer.bundle import open_bundle
    from edgeformer.bundle.files import FUSED
    from edgeformer.graph.prepare import open_model
    from edgeformer.pipeline.application import preprocessing_of

    given = {
        "--checkpoint": request.checkpoint or request.checkpoint_key,
        "--random-weights": request.random_weights,
        "--set": request.overrides,
        "--input-size": request.input_size,
        "--preprocessing": request.preprocessing,
    }
    excluded = [name for name, value in given.items() if value]
    if excluded:
        raise InputError("EF104", f"the bundle {request.model} has its own: leave out {', '.join(excluded)}")
    folder = Path(request.model)
    manifest = open_bundle(folder)
    return open_model(folder / FUSED), preprocessing_of(manifest)
