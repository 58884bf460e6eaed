"""What a user can ask for: each option of `build`, `export_model` and their commands, with its default and check."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from edgeformer.data.preprocessing import AskedPreprocessing
from edgeformer.data.sources import Source as DataSource
from edgeformer.errors import InputError
from edgeformer.pipeline.observer import Observer
from edgeformer.pipeline.options import Argument, Option
from edgeformer.records.terms import CALIBRATED, INPUT_TYPES, INT4_BLOCKS, PRECISIONS, QUANTIZED, InputType, Precision

__all__ = [
    "CALIBRATION_IMAGES",
    "BuildRequest",
    "CalibrationOptions",
    "ExportRequest",
    "FusionOptions",
    "ImageOptions",
    "ModelOptions",
]

# Ranges and bias errors settle within a few hundred images; more cost time and change little.
CALIBRATION_IMAGES = 256

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images become inputs."""

    input_size: Annotated[
        tuple[int, int] | None, Option("Height and width of the images in pixels.", "size", default="the model's")
    ] = None
    preprocessing: Annotated[
        AskedPreprocessing | None,
        Option(
            "How images are prepared: a JSON file, or what is done to their pixels: scale (to 0..1) or none (0..255).",
            "preprocessing",
            metavar="none|scale|FILE",
            default="the model's",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ImageOptions):
    """Which model is meant."""

    checkpoint: Annotated[AnyPath | None, Option("Weights of the named model: .pth, .pt or .safetensors.", "file")] = (
        None
    )
    checkpoint_key: Annotated[
        str | None,
        Option(
            "Which weights to take where the checkpoint holds several, such as model_ema.",
            metavar="KEY",
            default="the raw ones",
        ),
    ] = None
    random_weights: Annotated[bool, Option("Take random weights instead, to see what a build costs.", "flag")] = False
    overrides: Annotated[
        Mapping[str, Any] | None,
        Option(
            "Replace a field of the named model's configuration, such as num_classes=5; repeatable.",
            "fields",
            name="set",
            metavar="NAME=VALUE",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """What is quantized, and the images that decide the ranges of activations."""

    data: Annotated[DataSource | None, Option("Calibration images: a folder, an .npy or an .npz file.", "path")] = None
    calibration_images: Annotated[int, Option("Calibrate on at most this many images.", "integer", metavar="N")] = (
        CALIBRATION_IMAGES
    )
    recipe: Annotated[
        AnyPath | None,
        Option(
            "What is quantized and how: a recipe's name, or a JSON file. Precisions besides int8 take its overrides.",
            metavar="NAME|FILE",
            default="default",
        ),
    ] = None
    quantize_attention: Annotated[
        bool | None,
        Option(
            "Quantize the queries, keys and values of the fused attention as well.",
            "switch",
            default="what the recipe says; 'default' says no",
        ),
    ] = None

    target_snr: Annotated[
        float | None,
        Option(
            "SNR of the outputs in dB at which no more layers return from INT8 to FP16.",
            "number",
            metavar="DB",
            default="what the recipe says; 'default' seeks the best trade",
        ),
    ] = None
    degrade: Annotated[
        bool | None,
        Option(
            "Judge INT8 on degraded versions of the calibration images as well.",
            "switch",
            default="what the recipe says; 'default' says yes",
        ),
    ] = None
    int4_block: Annotated[
        int | None,
        Option(
            "Input channels that share a scale in int4-weights: 32, 64 or 128.", "integer", metavar="N", default="32"
        ),
    ] = None

    def check_quantization(self, precision: Precision) -> None:
        """Check what quantizing to a precision needs.

        Raises:
            InputError: there is nothing to calibrate on, or an option has no use.
        """
        if precision in CALIBRATED:
            self._check_calibration(precision)
        if self.quantize_attention and precision != "int8":
            raise InputError(
                "EF104",
                f"--quantize-attention with precision {precision}, which leaves attention in float: give "
                "--precision int8",
            )
        for name, value in (("target_snr", self.target_snr), ("degrade", self.degrade)):
            if value is not None and precision != "int8":
                option = name.replace("_", "-")
                raise InputError(
                    "EF104", f"--{option} with precision {precision}, which searches for nothing: leave it out"
                )
        if self.target_snr is not None and not 0 < self.target_snr < 120:
            raise InputError("EF101", f"target_snr {self.target_snr:g}: it must be above 0 and below 120 dB")
        if self.int4_block is None:
            return
        if precision != "int4-weights":
            raise InputError(
                "EF104", f"--int4-block with precision {precision}, which has no blocks: give --precision int4-weights"
            )
        if self.int4_block not in INT4_BLOCKS:
            raise InputError(
                "EF101", f"int4_block {self.int4_block}: it must be one of {', '.join(map(str, INT4_BLOCKS))}"
            )

    def _check_calibration(self, precision: Precision) -> None:
        if self.calibration_images < 1:
            raise InputError(
                "EF101", f"calibration_images {self.calibration_images}: calibration needs at least 1 image"
            )
        if self.data is None:
            raise InputError(
                "EF103",
                f"{precision.upper()} needs calibration images: give --data with a folder of images, an .npy or an "
                ".npz file; int8-weights and int4-weights need none",
            )


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """What is fused into the op besides the attention, and what must be."""

    fuse_lepe: Annotated[
        bool,
        Option(
            "Fuse LePE, the depthwise convolution beside the attention, into the op. Takes less memory; by a model of "
            "the kernels it makes the network 2 to 19 % slower, which was not measured yet.",
            "switch",
        ),
    ] = False
    require_plugin: Annotated[
        bool,
        Option("Fail where a block of routing attention is not fused for the plugin, or where there is none.", "flag"),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ExportRequest(ModelOptions):
    """All that `export_model` can be asked for.

    Raises:
        InputError: an option is out of range.
    """

    model: Annotated[AnyPath, Argument("Name of a model, as `edgeformer.list_models` has it.")] = field(kw_only=False)
    output: Annotated[AnyPath, Argument("The ONNX file; replaced only by a whole new one that met its gate.")]
    static_batch: Annotated[int | None, Option("Fix the batch size.", "integer", metavar="N", default="left free")] = (
        None
    )
    opset: Annotated[
        int | None, Option("Version of the ONNX operator set, at least 18.", "integer", metavar="N", default="20")
    ] = None

    def __post_init__(self) -> None:
        if self.static_batch is not None and self.static_batch < 1:
            raise InputError("EF101", f"static_batch {self.static_batch}: a batch has at least 1 image")


@dataclass(frozen=True, kw_only=True)
class BuildRequest(FusionOptions, CalibrationOptions, ModelOptions):
    """All that `build` can be asked for.

    Raises:
        InputError: an option is out of range, or needs or excludes another.
    """

    model: Annotated[AnyPath, Argument("Name of a model, as `edgeformer.list_models` has it, or an .onnx file.")] = (
        field(kw_only=False)
    )
    output: Annotated[AnyPath, Argument("Folder of the bundle; an older one is replaced when the new one is whole.")]
    target: Annotated[str, Argument("Name of the machine the engine is for, as `edgeformer.list_targets` has it.")]
    observer: Annotated[Observer | None, Argument("Follows the progress of the stages.")] = field(
        default=None, repr=False
    )
    input_type: Annotated[
        InputType,
        Option(
            "What the network takes: images as the model does, or pixels [N, H, W, 3] that its graph normalizes.",
            "choice",
            name="input",
            choices=INPUT_TYPES,
        ),
    ] = "float"
    precision: Annotated[
        Precision,
        Option(
            "Type of the engine's weights and activations; int8-weights and int4-weights: of the weights of Linears "
            "alone, the rest FP16. 'edgeformer targets' says which targets take which.",
            "choice",
            choices=PRECISIONS,
        ),
    ] = "fp16"
    batch: Annotated[
        str | None,
        Option(
            "Batch sizes the engine serves: one, or the smallest, the most frequent and the largest.",
            metavar="N|MIN:OPT:MAX",
            default="1, or the graph's",
        ),
    ] = None
    eval_data: Annotated[
        DataSource | None,
        Option("Labelled images to measure accuracy on: a sub-folder for each class, or an .npz file.", "path"),
    ] = None
    labels: Annotated[
        AnyPath | None,
        Option(
            "Names of the model's classes in order, for --eval-data and the manifest: one a line, or JSON.",
            "file",
            default="the class folders', where all classes have one",
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        Option("Points of top-1 accuracy that a quantized model may lose.", "number", metavar="POINTS", default="1"),
    ] = None
    accept_outputs: Annotated[
        Sequence[str] | None,
        Option(
            "Report this output and do not judge it, such as one behind a TopK that ranks boxes; repeatable.",
            "names",
            name="accept-output",
            metavar="NAME",
            default="every output is judged",
        ),
    ] = None
    linears_as_convolutions: Annotated[
        bool | None,
        Option(
            "Write float Linears as 1 x 1 convolutions, which takes less memory at free batch sizes.",
            "switch",
            default="where TensorRT-RTX builds for those, unless quantized",
        ),
    ] = None
    use_plugin: Annotated[
        bool,
        Option(
            "Put the fused plugin into the engine; otherwise TensorRT builds from the op's ONNX body.",
            "switch",
            name="plugin",
        ),
    ] = True
    embed_plugin: Annotated[
        bool, Option("Put the plugin library into the engine file, so that this one file is enough.", "flag")
    ] = False
    compare_plugin: Annotated[
        bool | None,
        Option(
            "Build the engine without the plugin as well, and report what the plugin saves.",
            "switch",
            default="where TensorRT-RTX builds",
        ),
    ] = None
    workspace_bytes: Annotated[
        int | None,
        Option("Limit of TensorRT's workspace.", "mebibytes", name="workspace", metavar="MIB", default="no limit"),
    ] = None
    max_aux_streams: Annotated[
        int | None,
        Option(
            "Streams for branches beside the main one; 0 takes the least memory.",
            "integer",
            name="aux-streams",
            metavar="N",
            default="TensorRT's choice",
        ),
    ] = None
    cuda_graphs: Annotated[
        bool,
        Option(
            "Build an engine that a program can capture into a CUDA graph: with TensorRT-RTX all of its memory then "
            "comes from the program.",
            "flag",
        ),
    ] = False
    autotune_candidates: Annotated[
        bool | None,
        Option(
            "Put the FP16 graph into an INT8 bundle as well, and with INT8 attention the one without, for 'edgeformer "
            "finish --autotune' to choose from.",
            "switch",
            default="where an INT8 engine is built on the device",
        ),
    ] = None
    cross_compile: Annotated[
        bool | None,
        Option(
            "Compile the libraries for a device that its bundle would lack.",
            "switch",
            default="in a source checkout with the cross compiler and the CUDA runtime for Arm",
        ),
    ] = None

    def __post_init__(self) -> None:
        from edgeformer.engine.limits import check_limits

        if self.precision not in PRECISIONS:
            raise InputError("EF101", f"precision {self.precision!r}: it must be one of {', '.join(PRECISIONS)}")
        if self.input_type not in INPUT_TYPES:
            raise InputError("EF101", f"input_type {self.input_type!r}: it must be one of {', '.join(INPUT_TYPES)}")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise InputError("EF101", f"max_drop {self.max_drop}: points of accuracy that may be lost, at least 0")
        self.check_quantization(self.precision)
        if self.recipe is not None and self.precision not in QUANTIZED:
            raise InputError("EF104", f"a recipe says what to quantize; precision {self.precision} quantizes nothing")
        if self.autotune_candidates and self.precision != "int8":
            raise InputError(
                "EF104",
                f"--autotune-candidates with precision {self.precision}: candidates are beside INT8; give --precision "
                "int8",
            )
        if self.embed_plugin and not self.use_plugin:
            raise InputError("EF104", "--embed-plugin with --no-plugin: there is no plugin to embed")
        if self.require_plugin and not self.use_plugin:
            raise InputError("EF104", "--require-plugin with --no-plugin: leave one of them out")
        check_limits(self.workspace_bytes, self.max_aux_streams)
        output = os.path.abspath(self.output)
        if not _is_utf8(output):
            raise InputError("EF101", f"output {output}: the path is not UTF-8, and ONNX Runtime opens no file there")


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
