"""``edgeformer run``: classify images, a video or a camera with a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeformer.cli._common import common_options, console, error_document, print_json, simple_table, status
from edgeformer.cli._options import output_folder, output_path
from edgeformer.errors import InputError

if TYPE_CHECKING:
    from edgeformer.inference import Model, Prediction
    from edgeformer.inference.classification import ClassifiedPicture, FrameFigures
    from edgeformer.inference.picture_files import Camera, Sources, Video


@click.command("run")
@click.argument("bundle", type=output_path)
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE|FOLDER|VIDEO|camera:N...")
@click.option("--top", type=click.IntRange(min=1), help="Classes to tell of each.  [default: 5]")
@click.option("--output", "-o", type=output_folder, help="Folder for the pictures with their classes written in.")
@click.option("--frames", type=click.IntRange(min=1), help="Frames of a video or camera to classify.  [default: all]")
@click.option(
    "--backend",
    type=click.Choice(["tensorrt", "onnxruntime"]),
    help="What runs the model.  [default: TensorRT where there are an engine and a GPU for it, else ONNX Runtime]",
)
@click.option("--device", type=click.IntRange(min=0), default=0, show_default=True, help="CUDA device.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of ONNX Runtime.  [default: one a core]")
@click.option("--trust-bundle", is_flag=True, help="Run its engine and plugin library: you trust whoever made it.")
@common_options
def command(
    bundle: Path,
    inputs: tuple[str, ...],
    top: int | None,
    output: Path | None,
    frames: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Classify images, the frames of a video, or what a camera sees.

    BUNDLE is a bundle's folder. Folders of images are searched at any depth. Images that cannot be read are named and
    counted; where none can be read, the exit code is 2.

    Of a video every frame is classified; of a camera (camera:0 is /dev/video0) always the newest, and those that came
    meanwhile are dropped. Ctrl-C ends it.
    """
    from edgeformer.inference import load
    from edgeformer.inference.picture_files import annotated_paths, find_sources

    sources = find_sources(inputs)
    if sources.stream is not None and output is not None:
        raise InputError("EF104", "--output is for images: leave it out for a video or a camera")
    if sources.stream is None and frames is not None:
        raise InputError("EF104", "--frames is for a video or a camera: leave it out for images")
    annotated = None if output is None else annotated_paths(sources.pictures, output)
    for line in sources.left_out:
        status.print(line, soft_wrap=True)
    with load(bundle, **options) as model:
        if sources.stream is None:
            _pictures(model, sources, top, annotated, as_json)
        else:
            _stream(model, sources.stream, top, frames, as_json)


def _pictures(model: Model, sources: Sources, top: int | None, annotated: Sequence[Path] | None, as_json: bool) -> None:
    from edgeformer.inference.classification import classify_files

    table = simple_table("image", "class", "probability")
    # A long path is folded; what the model says of it is not.
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    table.columns[1].no_wrap = table.columns[2].no_wrap = True
    results = []
    for result in classify_files(model, sources.pictures, top, annotated):
        results.append(result)
        if result.error is not None:
            status.print(f"left out: {result.error}", soft_wrap=True)
        for rank, one in enumerate(result.predictions):
            table.add_row("" if rank else str(result.path), one.label, f"{100 * one.probability:.1f} %")
    failed = [result.error for result in results if result.error is not None]
    if len(failed) == len(results):
        raise InputError("EF870", f"none of {len(results)} images could be read: {failed[0]}")
    if as_json:
        images = [_picture_document(result) for result in results]
        print_json({**_model_document(model), "images": images, "left_out": list(sources.left_out)})
        return
    console.print(table)
    _print_model(model)
    if failed:
        console.print(f"{len(failed)} of {len(results)} images could not be read, and were left out")


def _stream(model: Model, source: Video | Camera, top: int | None, limit: int | None, as_json: bool) -> None:
    from edgeformer.inference.classification import FrameFigures, classify_frames
    from edgeformer.inference.picture_files import Camera
    from edgeformer.inference.video import frames_of, name_of

    figures, classified, best = FrameFigures(), [], ""
    newest_only = isinstance(source, Camera)
    try:
        for frame in classify_frames(model, frames_of(source), figures, top=top, newest_only=newest_only, limit=limit):
            if as_json:
                classified.append({"frame": frame.index, "classes": _classes(frame.predictions)})
            elif frame.predictions[0].label != best:
                best = frame.predictions[0].label
                first = ", ".join(f"{one.label} {100 * one.probability:.1f} %" for one in frame.predictions)
                console.print(f"frame {frame.index}: {first}", soft_wrap=True)
    finally:
        # Ctrl-C is how a camera ends: what was seen until then is told all the same.
        if figures.frames and as_json:
            print_json({**_model_document(model), **_figures_document(figures), "results": classified})
        elif figures.frames:
            _print_figures(figures)
            _print_model(model)
    if not figures.frames:
        raise InputError("EF869", f"{name_of(source)} has no frames that can be read")


def _print_model(model: Model) -> None:
    found = model.describe()
    console.print(f"{found.name} {found.precision} by {found.backend} {found.backend_version}", soft_wrap=True)
    if found.backend_reason:
        console.print(f"not by TensorRT: {found.backend_reason}", soft_wrap=True)


def _print_figures(figures: FrameFigures) -> None:
    dropped = f", {figures.dropped} dropped for newer ones" if figures.dropped else ""
    console.print(
        f"{figures.frames} frames in {figures.seconds:.1f} s{dropped}: "
        f"{figures.frames_per_second:.1f} frames a second, at most {figures.depth} under way at once",
        soft_wrap=True,
    )


def _model_document(model: Model) -> dict[str, Any]:
    found = model.describe()
    names = ("name", "task", "precision", "backend", "backend_version", "backend_reason", "device", "file")
    return {"model": {name: getattr(found, name) for name in names}}


def _figures_document(figures: FrameFigures) -> dict[str, Any]:
    return {
        "frames": figures.frames,
        "dropped": figures.dropped,
        "seconds": round(figures.seconds, 3),
        "frames_per_second": round(figures.frames_per_second, 2),
        "depth": figures.depth,
    }


def _picture_document(result: ClassifiedPicture) -> dict[str, Any]:
    document: dict[str, Any] = {"path": str(result.path)}
    if result.error is not None:
        return {**document, "error": error_document(result.error)}
    if result.annotated is not None:
        document["annotated"] = str(result.annotated)
    return {**document, "classes": _classes(result.predictions)}


def _classes(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [{"index": one.index, "label": one.label, "probability": one.probability} for one in predictions]
