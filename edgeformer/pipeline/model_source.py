"""Where a build starts: a named model with its checkpoint, or an ONNX file that someone exported."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from edgeformer.artifacts import sha256_of_bytes, sha256_of_file
from edgeformer.data import ArrayInput, Preparation, Preprocessing
from edgeformer.data.preprocessing import WORDS, AskedPreprocessing
from edgeformer.errors import InputError
from edgeformer.records.terms import InputType
from edgeformer.text import parse_json, printable, shortened

if TYPE_CHECKING:
    from torch import nn

    from edgeformer.graph.trained_qdq import TrainedRounding

__all__ = [
    "PREPROCESSING_PROPERTY",
    "NamedModel",
    "OnnxFile",
    "Source",
    "describe_preprocessing",
    "in_graph",
    "model_source",
    "outer_preprocessing",
    "read_preprocessing",
]

# Metadata property of an exported ONNX model: how its images are prepared, as `Preprocessing.to_dict` in JSON.
PREPROCESSING_PROPERTY = "edgeformer.preprocessing"


@dataclass(frozen=True)
class NamedModel:
    """A model of the registry with the weights of a checkpoint, or random ones where the user asked for those.

    Attributes:
        name: as in `edgeformer.models.list_models`.
        checkpoint: file with the weights; ``None`` takes random weights (seed 0).
        checkpoint_key: which weights to take from it; ``None`` takes the raw ones.
        checkpoint_sha256: hash of that file when it was named.
        overrides: fields of the model's configuration that differ from the registry's.
        preprocessing: how its images are prepared; height and width are the input size of the export.
        pixels_in_graph: what is done to their pixels goes into the graph, which takes bytes.
    """

    name: str
    checkpoint: Path | None
    overrides: Mapping[str, Any]
    preprocessing: Preprocessing
    checkpoint_key: str | None = None
    pixels_in_graph: bool = False
    checkpoint_sha256: str | None = field(init=False)

    def __post_init__(self) -> None:
        # Once: what is loaded later must be what was hashed, and the manifest must say the same as the stages' keys.
        object.__setattr__(
            self, "checkpoint_sha256", None if self.checkpoint is None else sha256_of_file(self.checkpoint)
        )

    def create(self) -> tuple[nn.Module, str | None]:
        """Build the PyTorch model and load its weights.

        Returns:
            The model, and the key that its weights were under in the checkpoint, if any.

        Raises:
            InputError: an override or the checkpoint does not fit, or the checkpoint changed since it was named.
            EnvironmentFault: torch is not installed.
        """
        from edgeformer.models import create_model, load_checkpoint

        if self.checkpoint is None:
            import torch

            with torch.random.fork_rng():
                torch.manual_seed(0)
                return create_model(self.name, **self.overrides), None
        model = create_model(self.name, **self.overrides)
        taken = load_checkpoint(model, self.checkpoint, key=self.checkpoint_key)
        if sha256_of_file(self.checkpoint) != self.checkpoint_sha256:
            raise InputError(
                "EF161", f"{self.checkpoint} changed while it was read (SHA-256 differs): start again when it is whole"
            )
        return model, taken

    @property
    def class_count(self) -> int | None:
        """How many classes it tells apart; None where it is no classifier."""
        from edgeformer.models.registry import config_with

        config = config_with(self.name, self.overrides)
        return config.num_classes or None

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it; also what decides whether an earlier export can be reused."""
        return {
            "source": "registry",
            "name": self.name,
            "overrides": dict(self.overrides),
            "checkpoint": None if self.checkpoint is None else _place(self.checkpoint),
            "checkpoint_sha256": self.checkpoint_sha256,
            "checkpoint_key": self.checkpoint_key,
            "weights": "random, seed 0" if self.checkpoint is None else "checkpoint",
            "normalized_in_graph": _in_graph(self),
        }


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file.

    Attributes:
        path: the file.
        model: its content.
        batch: the batch it fixes; ``None`` where it is free.
        preprocessing: how its images are prepared; the shape of its arrays where it takes no images.
        pixels: whether it takes whole pixel values, 0 to 255.
        pixels_in_graph: what is done to the images' pixels goes into the graph, which takes bytes.
        trained: what the Q/DQ pairs held that a fake-quantized model was exported with; ``model`` is without them.
        sha256: hash of the model as it was loaded; stages change it in place.
    """

    path: Path
    model: onnx.ModelProto = field(repr=False)
    batch: int | None
    preprocessing: Preparation
    pixels: bool = False
    pixels_in_graph: bool = False
    trained: TrainedRounding | None = field(default=None, repr=False)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        # Of the loaded model, so that weights in files beside it count.
        content = self.model.SerializeToString(deterministic=True)
        if self.trained is not None:
            content += self.trained.sha256().encode()
        object.__setattr__(self, "sha256", sha256_of_bytes(content))

    @property
    def class_count(self) -> int | None:
        """How many classes its first output of logits ``[batch, classes]`` has; None where there is none."""
        shapes = (value.type.tensor_type.shape.dim for value in self.model.graph.output)
        sizes = (shape[1].dim_value for shape in shapes if len(shape) == 2)
        return next((size for size in sizes if size >= 2), None)

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it; also what decides whether an earlier result can be reused."""
        return {
            "source": "onnx",
            "name": printable(self.path.stem),
            "path": _place(self.path),
            "sha256": self.sha256,
            "normalized_in_graph": _in_graph(self),
        }


Source = NamedModel | OnnxFile


def outer_preprocessing(source: Source) -> Preparation:
    """How images are prepared in front of the network that is built: without what its graph does itself."""
    own = in_graph(source)
    return source.preprocessing if own is None else own.with_normalization("none")


def in_graph(source: Source) -> Preprocessing | None:
    """The preprocessing whose mean and std go into the graph, if any do."""
    own = source.preprocessing
    return own if source.pixels_in_graph and isinstance(own, Preprocessing) else None


def _in_graph(source: Source) -> dict[str, Any] | None:
    """Mean and std that go into the graph, for the manifest."""
    own = in_graph(source)
    return None if own is None else {"mean": own.mean, "std": own.std}


def _place(path: Path) -> str:
    """Where a file lies, for the manifest: a relative path as it was given, and of an absolute one the name alone."""
    return printable(path.name if path.is_absolute() else str(path))


def model_source(
    model: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_key: str | None = None,
    random_weights: bool = False,
    overrides: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] | None = None,
    preprocessing: AskedPreprocessing | None = None,
    input_type: InputType = "float",
) -> Source:
    """Find out what the user means by ``model`` and check that the rest fits it.

    Args:
        model: a name of the registry, or the path of an ``.onnx`` file.
        checkpoint: weights for a named model.
        checkpoint_key: which weights to take from it where it holds several.
        random_weights: take random weights instead, to see what a build costs.
        overrides: configuration fields to replace in a named model.
        input_size: height and width in pixels; default: the model's usual size, or the ONNX graph's.
        preprocessing: how images are prepared, and at which size; "scale" and "none" change what is done to their
            pixels and leave the rest. Default: the registry's, or what the ONNX file says, or ImageNet's.
        input_type: "uint8" puts what is done to pixels into the graph.

    Raises:
        InputError: the model is unknown, a file is missing, or options that exclude each other were given.
    """
    _check_word(preprocessing)
    path = Path(model)
    if path.suffix.lower() == ".onnx":
        excluded = {
            "checkpoint": checkpoint is not None or checkpoint_key is not None,
            "random weights": random_weights,
            "overrides": bool(overrides),
        }
        given = [name for name, is_given in excluded.items() if is_given]
        if given:
            raise InputError("EF104", f"{path} brings its own weights and structure: leave out {', '.join(given)}")
        return _onnx_file(path, input_size, preprocessing, input_type)
    from edgeformer.models import model_info

    info = model_info(str(model))
    if (checkpoint is None) == (not random_weights):
        raise InputError(
            "EF103",
            f"{info.name} needs its weights: give --checkpoint FILE, or --random-weights to see what a build costs"
            if checkpoint is None
            else "--checkpoint and --random-weights exclude each other",
        )
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise InputError("EF102", f"{checkpoint}: no such checkpoint file")
    prepared = _asked(preprocessing, info.preprocessing)
    if input_size is not None:
        _check_agrees(preprocessing, input_size, "--input-size asks for")
        prepared = replace(prepared, height=input_size[0], width=input_size[1])
    if checkpoint is None and checkpoint_key is not None:
        raise InputError("EF104", "--checkpoint-key needs --checkpoint: random weights have no key")
    weights = None if checkpoint is None else Path(checkpoint)
    return NamedModel(
        info.name, weights, dict(overrides or {}), prepared, checkpoint_key, pixels_in_graph=input_type == "uint8"
    )


def _check_word(preprocessing: AskedPreprocessing | None) -> None:
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing) and preprocessing not in WORDS:
        raise InputError(
            "EF413",
            f"preprocessing {shortened(repr(preprocessing))}: it must be {' or '.join(map(repr, WORDS))}, or a "
            "Preprocessing",
        )


def _asked(asked: AskedPreprocessing | None, own: Preprocessing) -> Preprocessing:
    """What the user asked for, on top of the model's own."""
    if isinstance(asked, str):
        return own.with_normalization(asked)
    return asked or own


def _onnx_file(
    path: Path,
    input_size: tuple[int, int] | None,
    preprocessing: AskedPreprocessing | None,
    input_type: InputType,
) -> OnnxFile:
    from edgeformer.graph.image_input import array_shape, image_input, with_input_size
    from edgeformer.graph.pixel_input import check_pixel_input
    from edgeformer.graph.prepare import open_model
    from edgeformer.graph.trained_qdq import is_trained, without_qdq

    model, trained = open_model(path), None
    if is_trained(model):
        model, trained = without_qdq(model)
    shape = array_shape(model) if preprocessing == "none" else None
    if shape is not None:
        if input_size is not None or input_type != "float":
            raise InputError(
                "EF841",
                f"{path} takes {list(shape)}, which is no image: leave out "
                + ("--input-size" if input_size is not None else f"--input {input_type}"),
            )
        batch, *sizes = shape
        given_batch = batch if isinstance(batch, int) else None
        return OnnxFile(path, model, given_batch, ArrayInput(tuple(map(int, sizes))), trained=trained)
    given = image_input(model)
    fixed = (given.height, given.width)
    described = preprocessing if isinstance(preprocessing, Preprocessing) else read_preprocessing(model)
    asked = input_size or (None if described is None else (described.height, described.width))
    size: list[int] = []
    for axis, in_graph, wanted in zip(("height", "width"), fixed, asked or (None, None), strict=True):
        if in_graph is None and wanted is None:
            raise InputError("EF322", f"{path} leaves the {axis} open: give --input-size")
        if in_graph is not None and wanted is not None and in_graph != wanted:
            raise InputError(
                "EF323", f"{path} fixes the {axis} at {in_graph}; input size or preprocessing asks for {wanted}"
            )
        size.append(in_graph or wanted or 0)
    if input_size is not None:
        _check_agrees(preprocessing, input_size, "--input-size asks for")
    if described is None and preprocessing is not None:
        # Not trained as for ImageNet, and so not cropped as for ImageNet either.
        described = Preprocessing(size[0], size[1], resize_mode="bilinear", crop_fraction=1.0)
    prepared = _asked(preprocessing, described or Preprocessing(size[0], size[1]))
    if described is None and given.pixels:
        prepared = prepared.with_normalization("none")
    prepared = replace(prepared, height=size[0], width=size[1])
    if given.pixels and prepared.normalization != "none":
        raise InputError(
            "EF348",
            f"{path} takes whole pixel values in its input {given.name!r} and normalizes them itself, and the "
            f"preprocessing has the mean {list(prepared.mean)} and std {list(prepared.std)}: leave it out, or give "
            "--preprocessing none",
        )
    sized = with_input_size(model, *size)
    pixels_in_graph = input_type == "uint8" and check_pixel_input(sized)
    return OnnxFile(path, sized, given.batch, prepared, given.pixels, pixels_in_graph, trained)


def _check_agrees(preprocessing: AskedPreprocessing | None, size: tuple[int, int], who: str) -> None:
    if isinstance(preprocessing, Preprocessing) and (preprocessing.height, preprocessing.width) != size:
        raise InputError(
            "EF323",
            f"the preprocessing is for {preprocessing.height}x{preprocessing.width}, {who} {size[0]}x{size[1]}: "
            "give one of the two, or the same size in both",
        )


def describe_preprocessing(model: onnx.ModelProto, preprocessing: Preparation) -> None:
    """Record in ``model``'s metadata how its images are prepared; nothing where it takes none."""
    kept = [entry for entry in model.metadata_props if entry.key != PREPROCESSING_PROPERTY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    if not isinstance(preprocessing, Preprocessing):
        return
    model.metadata_props.add(key=PREPROCESSING_PROPERTY, value=json.dumps(preprocessing.to_dict(), sort_keys=True))


def read_preprocessing(model: onnx.ModelProto) -> Preprocessing | None:
    """How an exported model's images are prepared, if its metadata says so.

    Raises:
        InputError: the metadata is there and cannot be read.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == PREPROCESSING_PROPERTY), None)
    if text is None:
        return None
    try:
        return Preprocessing.from_dict(parse_json(text))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            "EF326", f"the ONNX metadata property {PREPROCESSING_PROPERTY!r} cannot be read: {error}"
        ) from error
