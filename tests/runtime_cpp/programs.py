"""Programs that the tests run, what they are given, and what Python makes of the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer.pipeline import BuildResult
from edgeformer.runtime import OnnxSession

LABELS = tuple(f"class {index}" for index in range(7))


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fails(*command: str | Path) -> tuple[int, str]:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.returncode, done.stderr


def logits(bundle: BuildResult, images: NDArray[np.float32], threads: int | None = None) -> NDArray[np.float32]:
    session = OnnxSession(bundle.path / "typed.onnx", threads=threads)
    (output,) = session.run({next(iter(session.inputs)): images}).values()
    return output


def picture(folder: Path, name: str, size: tuple[int, int], seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path = folder / name
    Image.fromarray(pixels).save(path)
    return path
