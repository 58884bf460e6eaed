"""What calibration found out about a model, and the file ``calibration.json`` that keeps it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Annotated, Literal

import onnx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeformer.artifacts import sha256_of_bytes, write_text
from edgeformer.errors import InputError
from edgeformer.quantization.recipe import ObserverSettings, Recipe
from edgeformer.quantization.streaming import SamplesLike
from edgeformer.records.quantization import ActivationHistogram, FrontPoint
from edgeformer.text import read_json
from edgeformer.version import __version__

__all__ = [
    "Calibration",
    "CalibrationKey",
    "ChannelRange",
    "ChannelTransform",
    "ReturnedLayer",
    "RoundedWeight",
    "Snr",
    "calibration_key",
    "load_calibration",
]

_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CalibrationKey(_Strict):
    """What a calibration depends on. Equal keys: the ranges can be used again.

    Attributes:
        model: SHA-256 of the float model's graph.
        data: SHA-256 of the samples, their order and preprocessing.
        settings: SHA-256 of the recipe's settings and the layers to be quantized.
        tool: version of edgeformer.
    """

    model: str
    data: str
    settings: str
    tool: str

    def differences(self, other: CalibrationKey) -> tuple[str, ...]:
        """Names of the parts that differ."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))


class ChannelRange(_Strict):
    """Smallest and largest value of each channel of a tensor."""

    minimum: tuple[_Finite, ...]
    maximum: tuple[_Finite, ...]


class ReturnedLayer(_Strict):
    """A layer that the policy quantizes and that the search returned to float.

    Attributes:
        output: its output tensor.
        snr_alone_db: SNR of the network's outputs with this layer alone in INT8, and what shares its activation.
        share: of the network's multiply-adds.
        gain_db: what its return bought, in the worse SNR of clean and degraded images.
    """

    output: str
    snr_alone_db: _Finite
    share: _Finite
    gain_db: _Finite


class ChannelTransform(_Strict):
    """What an activation goes through in front of its Q/DQ pair: ``x * scale + offset``, undone in its readers.

    Attributes:
        scale: one for each channel, or one.
        offset: the same.
    """

    scale: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    offset: tuple[_Finite, ...]


class RoundedWeight(_Strict):
    """An INT8 weight that is not the nearest one.

    Attributes:
        scales: one for each output channel.
        changes: its values less those of rounding to the nearest with these scales, int8, zlib, base64.
    """

    scales: tuple[_Finite, ...]
    changes: str


class Snr(_Strict):
    """SNR of the outputs in dB on calibration images that nothing was fitted to, the worst output counting.

    Attributes:
        clean: on the images as they are.
        degraded: on degraded versions of them; None where the recipe asks for none.
    """

    clean: _Finite
    degraded: _Finite | None = None

    @property
    def worse(self) -> float:
        """The smaller of the two."""
        return self.clean if self.degraded is None else min(self.clean, self.degraded)


class Calibration(_Strict):
    """What calibration found: with the model and the recipe, all that the quantized model depends on.

    Attributes:
        schema_version: of the file.
        key: what it depends on.
        recipe: the recipe's name.
        observer: the observer's settings.
        images: number of images seen.
        ranges: activation -> amax, the magnitude that becomes 127, behind its transform: some tensors are only there.
            INT8 attention has a range each for queries, keys and values: ``qkv[..., 0:64]`` are channels of a tensor.
        histograms: keys of ``ranges`` -> the values seen, for people.
        transforms: activation -> what it goes through (SmoothQuant).
        weights: layer output -> its INT8 weight, where it is not the nearest one (GPTQ).
        biases: layer output -> what is added to each channel of its bias.
        snr: as quantized; None where the recipe searches for nothing.
        plain_snr: with the same layers in INT8, rounded to the nearest by the observer's ranges, and nothing else.
        attention_snr: like ``snr`` with the attention in INT8 as well; None where it is not.
        int8_share: share of the network's multiply-adds that is INT8; None where shapes do not tell.
        met: whether the recipe's target was met; None where it has none.
        returned: layers that went back to float, in that order.
        front: what was tried on the way.
    """

    schema_version: Literal[2] = 2
    key: CalibrationKey
    recipe: str
    observer: ObserverSettings
    images: Annotated[int, Field(ge=1)]
    ranges: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    histograms: dict[str, ActivationHistogram] = {}
    transforms: dict[str, ChannelTransform] = {}
    weights: dict[str, RoundedWeight] = {}
    biases: dict[str, tuple[_Finite, ...]] = {}
    snr: Snr | None = None
    plain_snr: Snr | None = None
    attention_snr: Snr | None = None
    int8_share: _Finite | None = None
    met: bool | None = None
    returned: tuple[ReturnedLayer, ...] = ()
    front: tuple[FrontPoint, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")

    def check_key(self, key: CalibrationKey, path: str | os.PathLike[str]) -> None:
        """Refuse a calibration that was made for something else.

        Raises:
            InputError: the keys differ; the message says in what.
        """
        differing = self.key.differences(key)
        if differing:
            reasons = "; ".join(
                f"{_PARTS[name]} ({getattr(self.key, name)[:12]} there, {getattr(key, name)[:12]} here)"
                for name in differing
            )
            raise InputError(
                "EF506",
                f"the calibration {os.fspath(path)!r} was made for something else: {reasons}. Delete the file or name "
                "another one to calibrate again.",
            )


_PARTS = {
    "model": "another model",
    "data": "other calibration data",
    "settings": "other settings of the recipe or other layers",
    "tool": "another version of edgeformer",
}


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read a ``calibration.json``.

    Raises:
        InputError: the file cannot be read, is not JSON, or is not of this schema.
    """
    name = os.fspath(path)
    try:
        return Calibration.model_validate(read_json(path))
    except OSError as error:
        raise InputError("EF505", f"cannot read the calibration {name!r}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise InputError(
            "EF505",
            f"the calibration {name!r} is damaged or of another version ({where}: {first['msg']}): delete it to "
            "calibrate again",
        ) from error
    except ValueError as error:
        raise InputError(
            "EF505", f"the calibration {name!r} is damaged ({error}): delete it to calibrate again"
        ) from error


def calibration_key(
    model: onnx.ModelProto, samples: SamplesLike, recipe: Recipe, layers: Sequence[str]
) -> CalibrationKey:
    """The key of a calibration; reads the samples' content once.

    Args:
        model: the float model as it was given.
        samples: the calibration data.
        recipe: its settings count, its name does not.
        layers: outputs of the layers to be quantized, attention included.
    """
    # What is quantized is told by ``layers``.
    chosen = {"name", "overrides", "quantize_attention"}
    settings = json.dumps([recipe.model_dump(mode="json", exclude=chosen), sorted(layers)], sort_keys=True)
    return CalibrationKey(
        model=sha256_of_bytes(model.graph.SerializeToString(deterministic=True)),
        data=samples.sha256(),
        settings=sha256_of_bytes(settings.encode()),
        tool=__version__,
    )
