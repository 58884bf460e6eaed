"""The file that a measurement of layers goes on from: what is measured so far, and what it was measured of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeformer.artifacts import sha256_of_bytes, write_text
from edgeformer.errors import InputError
from edgeformer.quantization.calibration import CalibrationKey
from edgeformer.text import read_json, shortened

__all__ = ["SensitivityState", "images_sha256"]

_Noise = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_PARTS = {
    "model": "another model",
    "data": "other calibration data",
    "settings": "another recipe",
    "tool": "another version of edgeformer",
}


def images_sha256(*batches: Sequence[npt.NDArray[np.float32]]) -> str:
    """Hash of images and how they are grouped."""
    parts = [[(batch.shape, sha256_of_bytes(batch.tobytes())) for batch in group] for group in batches]
    return sha256_of_bytes(json.dumps(parts).encode())


class SensitivityState(BaseModel):
    """What is known while layers are measured.

    Attributes:
        schema_version: of the file.
        key: of what is measured: model, data, recipe and layers, version.
        images: hash of the images that the noise is measured on (`images_sha256`).
        ranges: activation, or name of a part of what attention reads -> amax.
        noise: layer's output -> relative noise powers, clean and, where there are such images, degraded.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    key: CalibrationKey
    images: str
    ranges: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    noise: dict[str, Annotated[tuple[_Noise, ...], Field(min_length=1, max_length=2)]] = {}

    @classmethod
    def read(cls, path: Path, key: CalibrationKey, images: str) -> SensitivityState | None:
        """The state in a file; None where there is no such file.

        Args:
            path: the file.
            key: of what is to be measured.
            images: hash of the images that are to be measured on.

        Raises:
            InputError: the file cannot be read or is damaged, or its state is of something else.
        """
        try:
            document: Any = read_json(path)
            state = cls.model_validate(document)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError("EF563", f"cannot read the state {path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            fault = f"{shortened('.'.join(map(str, first['loc']))) or 'file'}: {shortened(first['msg'], 200)}"
            raise _damaged(path, fault) from error
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        reasons = [_PARTS[name] for name in state.key.differences(key)]
        if state.images != images:
            reasons.append("other images to measure on")
        if reasons:
            raise InputError(
                "EF564",
                f"the state {path} was made for something else: {', '.join(reasons)}. Delete the file or name another "
                "one to measure anew.",
            )
        return state

    def save(self, path: Path | None) -> None:
        """Write the file, whole or not at all; nothing where no file is wanted."""
        if path is not None:
            write_text(path, json.dumps(self.model_dump(mode="json"), sort_keys=True) + "\n")


def _damaged(path: Path, fault: str) -> InputError:
    return InputError(
        "EF563", f"the state {path} is damaged or of another version ({fault}): delete it to measure anew"
    )
