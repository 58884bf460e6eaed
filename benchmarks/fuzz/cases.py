"""Cases by number: which input is changed how, and which command gets it. Equal numbers are equal cases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fuzz.mutations import (
    Rng,
    mutate_archive,
    mutate_array,
    mutate_bytes,
    mutate_json,
    mutate_onnx,
    mutate_safetensors,
    pick,
)
from benchmarks.fuzz.seeds import Seeds

__all__ = ["KINDS", "Case", "make_case"]


@dataclass(frozen=True)
class Case:
    """One input and what is done with it.

    Attributes:
        number: of the case.
        kind: of the input.
        command: a command line of edgeformer, or ``["load_checkpoint", PATH]``.
        source: the valid model, and ``made`` that of the output, where success must mean that both compute the same.
        made: see ``source``.
    """

    number: int
    kind: str
    command: list[str]
    source: Path | None = None
    made: Path | None = None


def _quantize(seeds: Seeds, folder: Path, *more: str | Path) -> list[str]:
    words = ["quantize", seeds.model, "--calibration-images", "2", "-o", folder / "out.onnx", *more]
    return [str(word) for word in words]


def _model(seeds: Seeds, folder: Path, rng: Rng) -> Case:
    path = folder / "model.onnx"
    path.write_bytes(mutate_onnx(seeds.model.read_bytes(), rng))
    made = folder / "out.onnx"
    kind = int(rng.integers(4))
    if kind == 0:
        return Case(0, "", ["inspect", str(path)])
    if kind == 1:
        data = ["--data", str(seeds.arrays[0]), "--calibration-images", "2"]
        return Case(0, "", ["quantize", str(path), *data, "-o", str(made)])
    return Case(0, "", ["fuse", str(path), "-o", str(made)], path, made)


def _checkpoint(seeds: Seeds, folder: Path, rng: Rng) -> Case:
    seed = pick(rng, seeds.checkpoints)
    path = folder / seed.name
    mutate = mutate_safetensors if seed.suffix == ".safetensors" else mutate_archive
    path.write_bytes(mutate(seed.read_bytes(), rng))
    return Case(0, "", ["load_checkpoint", str(path)])


def _arrays(seeds: Seeds, folder: Path, rng: Rng) -> Case:
    seed = pick(rng, seeds.arrays)
    path = folder / seed.name
    path.write_bytes((mutate_array if seed.suffix == ".npy" else mutate_archive)(seed.read_bytes(), rng))
    return Case(0, "", _quantize(seeds, folder, "--data", path))


def _json(seeds: Seeds, folder: Path, rng: Rng) -> Case:
    option, seed = pick(rng, [("--recipe", seeds.recipe), ("--preprocessing", seeds.preprocessing)])
    path = folder / seed.name
    path.write_bytes(mutate_json(seed.read_bytes(), rng))
    return Case(0, "", _quantize(seeds, folder, "--data", seeds.arrays[1], option, path))


def _image(seeds: Seeds, folder: Path, rng: Rng) -> Case:
    images = folder / "images"
    shutil.copytree(seeds.images, images)
    path = pick(rng, sorted(images.iterdir()))
    path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    return Case(0, "", _quantize(seeds, folder, "--data", images))


KINDS: dict[str, Callable[[Seeds, Path, Rng], Case]] = {
    "model": _model,
    "checkpoint": _checkpoint,
    "arrays": _arrays,
    "json": _json,
    "image": _image,
}
# Models have the most to get wrong.
_TURNS = ("model", "model", "model", "checkpoint", "arrays", "json", "image")


def make_case(seeds: Seeds, folder: Path, number: int, seed: int) -> Case:
    """Write the input of a case into ``folder``."""
    kind = _TURNS[number % len(_TURNS)]
    case = KINDS[kind](seeds, folder, np.random.default_rng([seed, number]))
    return Case(number, kind, case.command, case.source, case.made)
