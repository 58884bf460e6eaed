"""What a build will do, worked out from the request before any stage runs: files opened, defaults filled in."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer.data import ArrayInput, Classes, Preparation, Samples, class_folder_names, open_samples, read_labels
from edgeformer.errors import InputError
from edgeformer.pipeline.model_source import NamedModel, OnnxFile, Source, model_source, outer_preprocessing
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.request import BuildRequest, ModelOptions
from edgeformer.records.terms import CALIBRATED, QUANTIZED, InputType, Precision
from edgeformer.text import printable

if TYPE_CHECKING:
    from edgeformer.data.sources import Source as DataSource
    from edgeformer.engine.profiles import BatchProfile
    from edgeformer.engine.targets import Target
    from edgeformer.graph.trained_qdq import TrainedRounding
    from edgeformer.quantization import Recipe

# Elements of one tensor that TensorRT takes.
_MOST_ELEMENTS = 2**31 - 1
# 0 turns off what `--cross-compile` turns on by default.
_CROSS_COMPILE = "EDGEFORMER_CROSS_COMPILE"

__all__ = ["BuildPlan", "EnginePlan", "Quantization", "TypedForm", "make_plan", "source_of"]


@dataclass(frozen=True)
class Quantization:
    """What the ranges of activations come from, and what is quantized.

    Attributes:
        data: calibration images; ``None`` for weight-only precisions.
        recipe: what is quantized; all of it counts for INT8, for the others its overrides.
        int4_block: input channels that share a scale, for INT4 weights.
        trained: the rounding that the model was trained with, in place of data and recipe; else ``None``.
    """

    data: Samples | None
    recipe: Recipe
    int4_block: int
    trained: TrainedRounding | None = None


@dataclass(frozen=True)
class TypedForm:
    """How the typed graph is written.

    Attributes:
        precision: type of weights and activations.
        linears_as_convolutions: Linears that stay in floating point are 1 x 1 convolutions.
        one_weight_scale: quantized layers have one weight scale: TensorRT has kernels for a scale for each channel,
            TensorRT-RTX has none.
    """

    precision: Precision
    linears_as_convolutions: bool
    one_weight_scale: bool


@dataclass(frozen=True)
class EnginePlan:
    """What an engine is built for, and within which limits.

    Attributes:
        target: the machine.
        precision: names the gate of the finished engine.
        batch: batch sizes it serves.
        use_plugin: take the fused plugin for the op; otherwise its ONNX body.
        embed_plugin: put the plugin library into the engine file.
        workspace_bytes: limit of TensorRT's workspace; ``None`` for none.
        max_aux_streams: limit of auxiliary streams; ``None`` leaves it to TensorRT.
        cuda_graphs: the engine can be captured into a CUDA graph.
        cross_compile: for a device, compile the libraries that its bundle lacks, where all that it takes is here.
    """

    target: Target
    precision: Precision
    batch: BatchProfile
    use_plugin: bool
    embed_plugin: bool
    workspace_bytes: int | None
    max_aux_streams: int | None
    cuda_graphs: bool
    cross_compile: bool = False

    @property
    def limits(self) -> dict[str, int | None]:
        """What TensorRT is limited to, with or without the plugin."""
        return {"workspace_bytes": self.workspace_bytes, "max_aux_streams": self.max_aux_streams}


@dataclass(frozen=True)
class BuildPlan:
    """All that the stages of a build need to know.

    Attributes:
        source: the model.
        labels: names of its classes in the order of their indices, where they are known.
        fuse_lepe: fuse LePE into the op.
        require_plugin: fail where routing attention is not fused.
        quantization: for precisions with Q/DQ, else ``None``.
        form: of the typed graph.
        parity_inputs: what the forms of the model are compared on.
        max_drop: points of accuracy that a quantized model may lose.
        accepted: outputs that are reported and not judged.
        engine: what the engine is built for.
        compare_plugin: build the engine without the plugin as well.
        fp16_candidate: how the FP16 graph is written that a device may choose; ``None`` for none, nor any other.
    """

    source: Source
    labels: tuple[str, ...] | None
    fuse_lepe: bool
    require_plugin: bool
    quantization: Quantization | None
    form: TypedForm
    parity_inputs: ParityInputs
    max_drop: float
    accepted: tuple[str, ...]
    engine: EnginePlan
    compare_plugin: bool
    fp16_candidate: TypedForm | None = None


def source_of(request: ModelOptions, model: str, input_type: InputType = "float") -> Source:
    """The model that a request means."""
    return model_source(
        model,
        checkpoint=request.checkpoint,
        checkpoint_key=request.checkpoint_key,
        random_weights=request.random_weights,
        overrides=request.overrides,
        input_size=request.input_size,
        preprocessing=request.preprocessing,
        input_type=input_type,
    )


def make_plan(request: BuildRequest) -> BuildPlan:
    """Open what the request names and fill in what it leaves open.

    Raises:
        InputError: the model, the data, the recipe, the target or the batch cannot be used, or they do not fit.
        EnvironmentFault: this machine lacks something that could be installed.
    """
    from edgeformer.engine.target_types import require_precision
    from edgeformer.engine.targets import can_build, check_embedding, get_target, require_imported
    from edgeformer.machine.plugin_library import require_plugin_library
    from edgeformer.quantization import load_recipe
    from edgeformer.verify.gates import DEFAULT_MAX_DROP

    recipe = None
    if request.precision in QUANTIZED:
        recipe = load_recipe(
            request.recipe or "default",
            quantize_attention=request.quantize_attention,
            degrade=request.degrade,
            target_snr_db=request.target_snr,
        )
    source = source_of(request, str(request.model), request.input_type)
    outer = outer_preprocessing(source)
    _check_types(source, request.precision)
    trained = _trained(source, request)
    target = get_target(request.target)
    require_precision(target, request.precision)
    # What is built anywhere needs only software, which can be installed; what is built on the device can wait for it.
    if can_build(target, raise_error=target.built == "anywhere"):
        require_imported(target)
        if request.embed_plugin:
            check_embedding(target)
        if request.use_plugin:
            for sm in target.sms:
                require_plugin_library(sm)
    data = None
    if request.data is not None:
        data = open_samples(request.data, outer, limit=request.calibration_images, labels=False)
    names, own = _asked_labels(request, source), None
    if names is None:
        own = _checkpoint_labels(source)
    eval_data = _labelled(request.eval_data, outer, _classes(request.eval_data, source.class_count, names, own))
    batch = _batch_profile(source, request.batch)
    rtx = target.flavour == "tensorrt_rtx"
    convolutions = request.linears_as_convolutions
    if convolutions is None:
        convolutions = rtx and request.precision not in QUANTIZED and batch.min < batch.max
    return BuildPlan(
        source=source,
        labels=names or own or _names_of(eval_data, source) or _folder_labels(request.data, source),
        fuse_lepe=request.fuse_lepe,
        require_plugin=request.require_plugin,
        quantization=_quantization(request, recipe, data, trained),
        form=TypedForm(request.precision, convolutions, rtx and request.precision == "int8"),
        parity_inputs=ParityInputs(eval_data, data, outer),
        max_drop=DEFAULT_MAX_DROP if request.max_drop is None else request.max_drop,
        accepted=_accepted(source, request.accept_outputs or ()),
        engine=EnginePlan(
            target,
            request.precision,
            batch,
            request.use_plugin,
            request.embed_plugin,
            request.workspace_bytes,
            request.max_aux_streams,
            request.cuda_graphs,
            _cross_compiling(request.cross_compile),
        ),
        compare_plugin=rtx if request.compare_plugin is None else request.compare_plugin,
        fp16_candidate=_fp16_candidate(request, target, batch),
    )


def _quantization(
    request: BuildRequest, recipe: Recipe | None, data: Samples | None, trained: TrainedRounding | None
) -> Quantization | None:
    from edgeformer.quantization.weight_only import DEFAULT_INT4_BLOCK

    if recipe is None:
        return None
    calibrated = data if request.precision in CALIBRATED else None
    return Quantization(calibrated, recipe, request.int4_block or DEFAULT_INT4_BLOCK, trained)


def _fp16_candidate(request: BuildRequest, target: Target, batch: BatchProfile) -> TypedForm | None:
    """As a build in FP16 writes it; nothing where a device has nothing to choose from."""
    asked = request.autotune_candidates
    if request.precision != "int8" or not (target.built == "on-device" if asked is None else asked):
        return None
    convolutions = request.linears_as_convolutions
    if convolutions is None:
        convolutions = target.flavour == "tensorrt_rtx" and batch.min < batch.max
    return TypedForm("fp16", convolutions, one_weight_scale=False)


def _cross_compiling(asked: bool | None) -> bool:
    """Whether to; where nobody said, unless the environment says not to."""
    return os.environ.get(_CROSS_COMPILE, "1") != "0" if asked is None else asked


def _asked_labels(request: BuildRequest, source: Source) -> tuple[str, ...] | None:
    if request.labels is None:
        return None
    if isinstance(source, NamedModel) and source.class_count is None:
        raise InputError(
            "EF840",
            f"{source.name} with these options has no head and no classes to name: leave out --labels",
        )
    return read_labels(request.labels)


def _checkpoint_labels(source: Source) -> tuple[str, ...] | None:
    """The names of all classes, where the checkpoint has them."""
    if not isinstance(source, NamedModel) or source.checkpoint is None or source.class_count is None:
        return None
    from edgeformer.models import checkpoint_labels

    names = checkpoint_labels(source.checkpoint, source.class_count)
    return None if names is None else tuple(map(printable, names))


def _classes(
    data: DataSource | None, count: int | None, asked: tuple[str, ...] | None, own: tuple[str, ...] | None
) -> Classes:
    """What class folders are matched with: the checkpoint's names only where the folders are named like them."""
    if asked is None and own is not None and isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        named = Classes(count, own)
        if named.names_any(entry.name for entry in Path(data).iterdir() if entry.is_dir()):
            return named
    return Classes(count, asked)


def _names_of(samples: Samples | None, source: Source) -> tuple[str, ...] | None:
    """The names of all classes, where the folders of labelled images have them."""
    names = None if samples is None else samples.class_names
    if names is None or len(names) != source.class_count:
        return None
    return tuple(map(printable, names))


def _folder_labels(data: DataSource | None, source: Source) -> tuple[str, ...] | None:
    """The names of all classes, where the folders of calibration images happen to be the classes."""
    if source.class_count is None or not isinstance(data, (str, os.PathLike)):
        return None
    names = class_folder_names(Path(data), Classes(source.class_count))
    return None if names is None else tuple(map(printable, names))


def _accepted(source: Source, names: Sequence[str]) -> tuple[str, ...]:
    """The outputs that are not judged; those of a named model are known once it is exported."""
    if isinstance(source, OnnxFile):
        from edgeformer.verify.gates import check_accepted

        check_accepted(names, [value.name for value in source.model.graph.output])
    return tuple(dict.fromkeys(names))


def _check_types(source: Source, precision: Precision) -> None:
    """Refuse a graph that is typed or quantized already in another way than asked for: a build starts from FP32."""
    if not isinstance(source, OnnxFile):
        return
    from edgeformer.graph.protos import float_precision
    from edgeformer.graph.refusals import check_range

    graph = source.model.graph
    quantized = sum(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node)
    if quantized:
        raise InputError(
            "EF324", f"{source.path} is quantized already ({quantized} Q/DQ nodes): build from the float model"
        )
    if precision == "fp16" or precision in QUANTIZED:
        check_range(source.model, 65504.0)
    own = float_precision(source.model)
    if own not in ("fp32", precision):
        raise InputError(
            "EF324",
            f"{source.path} computes in {own.upper()} and cannot become {precision.upper()}: build from the FP32 "
            f"model, or ask for --precision {own}",
        )


def _trained(source: Source, request: BuildRequest) -> TrainedRounding | None:
    """The rounding that the model was trained with, which leaves nothing for options to decide."""
    trained = source.trained if isinstance(source, OnnxFile) else None
    if trained is None:
        return None
    if request.precision != "int8":
        raise InputError(
            "EF324",
            f"{request.model} is a fake-quantized model, trained to be INT8, and cannot become "
            f"{request.precision.upper()}: give --precision int8",
        )
    if request.recipe is not None or request.quantize_attention:
        raise InputError(
            "EF104",
            f"{request.model} was trained with its rounding, which says what becomes INT8: leave out "
            + ("--recipe" if request.recipe is not None else "--quantize-attention"),
        )
    return trained


def _batch_profile(source: Source, batch: str | None) -> BatchProfile:
    from edgeformer.engine.profiles import BatchProfile

    fixed = source.batch if isinstance(source, OnnxFile) else None
    wanted = BatchProfile.parse(batch if batch is not None else str(fixed or 1))
    if fixed is not None and (wanted.min, wanted.max) != (fixed, fixed):
        raise InputError(
            "EF325", f"the graph fixes the batch at {fixed}, --batch asks for {wanted}: export it with a free batch"
        )
    _check_batch(wanted, source.preprocessing)
    return wanted


def _check_batch(batch: BatchProfile, preprocessing: Preparation) -> None:
    if isinstance(preprocessing, ArrayInput):
        shape, pixels = preprocessing.shape, math.prod(preprocessing.shape)
    else:
        shape = (preprocessing.height, preprocessing.width)
        pixels = 3 * math.prod(shape)
    if batch.max * pixels > _MOST_ELEMENTS:
        size = "x".join(map(str, shape))
        raise InputError(
            "EF620",
            f"batch {batch}: TensorRT takes tensors of at most {_MOST_ELEMENTS} elements, which are "
            f"{_MOST_ELEMENTS // pixels} samples of {size} in the input alone. Ask for a smaller batch",
        )


def _labelled(source: DataSource | None, preprocessing: Preparation, classes: Classes) -> Samples | None:
    if source is None:
        return None
    samples = open_samples(source, preprocessing, classes=classes)
    if not samples.labelled:
        raise InputError(
            "EF106",
            f"{samples.name}: --eval-data needs labels: a folder with one sub-folder a class, or an .npz with 'labels'",
        )
    return samples
