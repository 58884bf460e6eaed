"""What the model tests share: the reference models' files and small configurations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

REFERENCE = Path(__file__).parents[1] / "assets" / "reference"
REFERENCE_NAMES = tuple(sorted(path.stem for path in REFERENCE.glob("*.json")))


@dataclass(frozen=True)
class ReferenceModel:
    """A model of the reference implementation: its arguments, weights, one input and what came out."""

    kind: str
    arguments: dict[str, Any]
    weights: Path
    input: NDArray[np.float32]
    outputs: tuple[NDArray[np.float32], ...]


def load_reference(name: str) -> ReferenceModel:
    arguments = json.loads((REFERENCE / f"{name}.json").read_text())
    with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as arrays:
        outputs = tuple(arrays[key] for key in arrays.files if key != "input")
        return ReferenceModel(
            arguments.pop("kind"), arguments, REFERENCE / f"{name}.safetensors", arrays["input"], outputs
        )


@pytest.fixture(params=REFERENCE_NAMES)
def reference(request: pytest.FixtureRequest) -> ReferenceModel:
    return load_reference(request.param)


@pytest.fixture
def classifier() -> ReferenceModel:
    return load_reference("biformer_cls_224")
