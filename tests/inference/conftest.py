"""Small models and a small bundle, made by code, for the runtime library of this checkout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeformer.inference import Model, load
from edgeformer.ops.library_files import BUILD_COMMAND, RUNTIME, candidate_paths
from tests.runtime.conftest import make_model

ROOT = Path(__file__).parents[2]
SIZE = 8
CLASSES = ("cat", "dog", "hen", "owl")
IMAGE: dict[str, Any] = {
    "input": "input",
    "layout": "NCHW",
    "channels": "RGB",
    "height": SIZE,
    "width": SIZE,
    "resize_mode": "bicubic",
    "crop_fraction": 0.875,
    "normalization": "mean_std",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@pytest.fixture(scope="session", autouse=True)
def _runtime_library() -> None:
    if not candidate_paths(RUNTIME):
        pytest.skip(f"{RUNTIME.name} is not built: {BUILD_COMMAND}")


def classifier(classes: int = len(CLASSES), batch: int | str = "batch") -> onnx.ModelProto:
    """logits = weights * image; the weights are those of a seed."""
    weights = np.random.default_rng(5).normal(0, 0.05, (3 * SIZE * SIZE, classes)).astype(np.float32)
    return make_model(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "weights"], ["logits"])],
        [("input", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [("logits", TensorProto.FLOAT, [batch, classes])],
        {"weights": weights},
    )


def make_bundle(folder: Path, model: onnx.ModelProto, **application: Any) -> Path:
    """A bundle without an engine; its manifest is the documented example's, as far as the runtime reads it."""
    folder.mkdir(parents=True)
    content = model.SerializeToString()
    for name in ("typed.onnx", "fused.onnx"):
        (folder / name).write_bytes(content)
    document = json.loads((ROOT / "docs" / "manifest.example.json").read_text(encoding="utf-8"))
    document["stages"] = []
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    document["files"] = {"fused.onnx": record, "typed.onnx": record}
    document["application"] = {"task": "classification", "labels": CLASSES, "image": IMAGE, **application}
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def two_by_two() -> onnx.ModelProto:
    """sum = a + b and product = a * b, of float32 [n, 3] and [n, 3]."""
    shape: Sequence[int | str] = ["n", 3]
    return make_model(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])],
        [("a", TensorProto.FLOAT, shape), ("b", TensorProto.FLOAT, shape)],
        [("sum", TensorProto.FLOAT, shape), ("product", TensorProto.FLOAT, shape)],
    )


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("small") / "bundle", classifier())


@pytest.fixture(scope="session")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(two_by_two(), tmp_path_factory.mktemp("two") / "two.onnx")


class DeviceArray:
    """What CuPy, Numba and pycuda show of an array: an address of CUDA memory, which is none here."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "<f4", *, read_only: bool = False) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": dtype,
            "data": (0x7F0000000000, read_only),
            "version": 3,
        }


@pytest.fixture(scope="session")
def small_model(small_bundle: Path) -> Model:
    return load(small_bundle, threads=1)
