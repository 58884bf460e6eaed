"""`build`: check what the user asked for, run the stages, publish the bundle."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.bundle import Manifest, staging
from edgeformer.data import Preprocessing, Samples, open_samples
from edgeformer.errors import InputError
from edgeformer.pipeline.model_source import OnnxFile, Source, model_source
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.runner import PRECISIONS, BuildJob, Observer, Precision

if TYPE_CHECKING:
    from edgeformer.data.sources import Source as DataSource
    from edgeformer.engine.profiles import BatchProfile

__all__ = ["CALIBRATION_IMAGES", "BuildResult", "build"]

# Ranges and bias errors settle within a few hundred images; more cost time and change little.
CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class BuildResult:
    """A published bundle."""

    path: Path
    manifest: Manifest
    seconds: float


def build(
    model: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    target: str,
    precision: Precision = "fp16",
    checkpoint: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    overrides: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    batch: str | None = None,
    data: DataSource | None = None,
    eval_data: DataSource | None = None,
    recipe: str | os.PathLike[str] | None = None,
    quantize_attention: bool | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    max_drop: float | None = None,
    fuse_lepe: bool = False,
    linears_as_convolutions: bool | None = None,
    use_plugin: bool = True,
    compare_plugin: bool | None = None,
    embed_plugin: bool = False,
    workspace_bytes: int | None = None,
    max_aux_streams: int | None = None,
    observer: Observer | None = None,
) -> BuildResult:
    """Build a bundle: from a trained model to a parity-checked engine.

    Args:
        model: a name of `edgeformer.list_models`, or an ``.onnx`` file.
        output: folder of the bundle. A bundle that is there already is replaced when the new one is whole.
        target: name of the machine the engine is for, as `edgeformer.list_targets` has them.
        precision: type of the engine's weights and activations.
        checkpoint: the named model's weights.
        random_weights: random weights instead, to see what a build costs.
        overrides: configuration fields of the named model to replace, such as ``{"num_classes": 5}``.
        input_size: height and width of the images in pixels; default: the model's.
        preprocessing: how images are prepared; default: the model's.
        batch: ``8``, or ``1:8:32`` for the smallest, most frequent and largest batch; default: 1, or the graph's.
        data: calibration images, needed for INT8: a folder, an ``.npy`` or ``.npz``, or an iterable of arrays.
        eval_data: labelled images that the task accuracy is measured on; any form of data with labels.
        recipe: what to quantize and how: the name of a recipe that ships with edgeformer, or a JSON file.
        quantize_attention: INT8 queries, keys and values for the fused attention, too; default: as the recipe says.
        calibration_images: use at most this many images of ``data``.
        max_drop: points of top-1 accuracy that INT8 may lose; default: the gate's.
        fuse_lepe: fold LePE, the depthwise convolution beside the attention, into the op.
        linears_as_convolutions: write the Linears that stay in floating point as 1 x 1 convolutions; default: where
            TensorRT-RTX builds for a range of batch sizes, which then takes less memory, and all Linears do.
        use_plugin: put the fused plugin into the engine; otherwise TensorRT builds from the op's ONNX body.
        compare_plugin: build the other one of these two engines as well, and note what both take; default: where
            TensorRT-RTX builds, which takes seconds.
        embed_plugin: put the plugin library into the engine file, so that this one file is enough to run it; otherwise
            the library lies beside the engine and has to be loaded before it.
        workspace_bytes: limit of TensorRT's workspace; default: no limit.
        max_aux_streams: streams that TensorRT may run branches on beside the caller's; 0 takes the least memory;
            default: TensorRT's choice.
        observer: is told of the stages' progress.

    Raises:
        InputError: an argument cannot be used.
        GateMissed: a stage's figure missed its gate; nothing was published.
        EnvironmentFault: this machine lacks something the build needs.
    """
    from edgeformer.engine.builder import check_limits
    from edgeformer.engine.targets import can_build, get_target
    from edgeformer.machine.plugin_library import require_plugin_library
    from edgeformer.quantization import load_recipe
    from edgeformer.verify.gates import DEFAULT_MAX_DROP

    begun = time.monotonic()
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: it must be one of {', '.join(PRECISIONS)}")
    if max_drop is not None and not max_drop >= 0:
        raise InputError(f"max_drop {max_drop}: points of accuracy that INT8 may lose, at least 0")
    if precision == "int8" and data is None:
        raise InputError("int8 needs calibration images: give --data with a folder of images, an .npy or an .npz file")
    if precision != "int8" and recipe is not None:
        raise InputError(f"a recipe says what to quantize; precision {precision} quantizes nothing")
    if precision != "int8" and quantize_attention:
        raise InputError(
            f"--quantize-attention with precision {precision}, which quantizes nothing: give --precision int8"
        )
    if embed_plugin and not use_plugin:
        raise InputError("--embed-plugin with --no-plugin: there is no plugin to embed")
    check_limits(workspace_bytes, max_aux_streams)
    quantization = None
    if precision == "int8":
        quantization = load_recipe(recipe or "default", quantize_attention=quantize_attention)
    source = model_source(
        model,
        checkpoint=checkpoint,
        random_weights=random_weights,
        overrides=overrides,
        input_size=input_size,
        preprocessing=preprocessing,
    )
    _check_types(source, precision)
    machine = get_target(target)
    # What is built anywhere needs only software, which can be installed; what is built on the device can wait for it.
    if can_build(machine, raise_error=machine.built == "anywhere") and use_plugin:
        require_plugin_library(machine.sm)
    samples = None if data is None else open_samples(data, source.preprocessing, limit=calibration_images)
    profile = _batch_profile(source, batch)
    rtx = machine.flavour == "tensorrt_rtx"
    job = BuildJob(
        source=source,
        precision=precision,
        target=machine,
        batch=profile,
        data=samples,
        parity_inputs=ParityInputs(_labelled(eval_data, source.preprocessing), samples, source.preprocessing),
        recipe=quantization,
        max_drop=DEFAULT_MAX_DROP if max_drop is None else max_drop,
        fuse_lepe=fuse_lepe,
        linears_as_convolutions=(
            rtx and precision != "int8" and profile.min < profile.max
            if linears_as_convolutions is None
            else linears_as_convolutions
        ),
        use_plugin=use_plugin,
        compare_plugin=rtx if compare_plugin is None else compare_plugin,
        embed_plugin=embed_plugin,
        workspace_bytes=workspace_bytes,
        max_aux_streams=max_aux_streams,
        observer=observer or Observer(),
    )
    with staging(Path(output)) as work:
        manifest = job.run(work)
        work.publish(manifest)
    return BuildResult(Path(output), manifest, time.monotonic() - begun)


def _check_types(source: Source, precision: Precision) -> None:
    """Refuse a graph that is typed or quantized already in another way than asked for: a build starts from FP32."""
    if not isinstance(source, OnnxFile):
        return
    from onnx import TensorProto

    graph = source.model.graph
    quantized = sum(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node)
    if quantized:
        raise InputError(f"{source.path} is quantized already ({quantized} Q/DQ nodes): build from the float model")
    halves = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    found = {halves[tensor.data_type] for tensor in graph.initializer if tensor.data_type in halves}
    if found and found != {precision}:
        raise InputError(
            f"{source.path} has {' and '.join(sorted(found)).upper()} weights and cannot become {precision.upper()}: "
            "build from the FP32 model"
        )


def _batch_profile(source: Source, batch: str | None) -> BatchProfile:
    from edgeformer.engine.profiles import BatchProfile

    fixed = None
    if isinstance(source, OnnxFile):
        fixed = source.batch
    wanted = BatchProfile.parse(batch if batch is not None else str(fixed or 1))
    if fixed is not None and (wanted.min, wanted.max) != (fixed, fixed):
        raise InputError(
            f"the graph fixes the batch at {fixed}, --batch asks for {wanted}: export it with a free batch"
        )
    return wanted


def _labelled(source: DataSource | None, preprocessing: Preprocessing) -> Samples | None:
    if source is None:
        return None
    samples = open_samples(source, preprocessing)
    if not samples.labelled:
        raise InputError(
            f"{samples.name}: --eval-data needs labels: a folder with one sub-folder a class, or an .npz with 'labels'"
        )
    return samples
