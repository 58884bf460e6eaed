"""An output that is also an input: refused before anything is read for long, or lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgeformer.outputs import check_not_an_input

__all__ = ["check_inputs_stay"]

AnyPath = str | os.PathLike[str]


def check_inputs_stay(output: AnyPath, model: AnyPath | None = None, *, folder: bool = False, **inputs: object) -> None:
    """Refuse an output that would replace an input, or, being a folder, hold one or lie in one.

    Args:
        output: the file or folder to be.
        model: an ONNX file, whose weights in other files count, too; the name of a model is passed over.
        folder: whether the output is a folder.
        inputs: all others by what they are; those that are no paths are passed over. Of a folder of images each image
            counts.

    Raises:
        InputError: the output is one of them.
    """
    check_not_an_input(output, _files(output, model, inputs, folder), folder=folder)


def _files(
    output: AnyPath, model: AnyPath | None, inputs: dict[str, object], folder: bool
) -> Iterator[tuple[str, object]]:
    if model is not None and Path(model).suffix.lower() == ".onnx":
        yield "model", model
    for name, given in inputs.items():
        yield name.replace("_", " "), given
    # What is not there replaces nothing.
    if not os.path.exists(output):
        return
    if model is not None and os.path.isfile(model):
        from edgeformer.graph.onnx_files import files_of

        for path in files_of(model)[1:]:
            yield "file with the model's weights", path
    if not folder:
        from edgeformer.data.image_layout import images_below

        for name, given in inputs.items():
            if isinstance(given, (str, os.PathLike)) and os.path.isdir(given):
                for path in images_below(Path(given)):
                    yield f"image of the {name}", path
