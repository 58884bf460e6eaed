"""edgeformer-run, as it is installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeformer import __version__
from edgeformer.pipeline import BuildResult
from tests.runtime_cpp.programs import LABELS, fails, logits, picture, run

pytestmark = [pytest.mark.slow, pytest.mark.whole, pytest.mark.usefixtures("with_onnx_runtime")]

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


@pytest.fixture(scope="module")
def program(prefix: Path) -> Path:
    return prefix / "bin" / "edgeformer-run"


def save_model(path: Path, dtype: str, names: tuple[str, ...] = ("x",)) -> Path:
    """Each input, ``[any, 3]``, comes out again, as ``outputs/NAME``."""
    inputs, outputs = (
        [helper.make_tensor_value_info(prefix + name, TYPES[dtype], [f"n_{name}", 3]) for name in names]
        for prefix in ("", "outputs/")
    )
    nodes = [helper.make_node("Identity", [name], [f"outputs/{name}"]) for name in names]
    graph = helper.make_graph(nodes, "copies", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save(path: Path, array: NDArray[np.generic]) -> Path:
    np.save(path, array)
    return path


def test_a_bundle_is_described(program: Path, bundle: BuildResult) -> None:
    lines = run(program, bundle.path).splitlines()
    assert lines[0] == "model     biformer_nano, classification, fp16"
    assert lines[1] == f"file      {bundle.path / 'typed.onnx'}"
    assert lines[2] == f"labels    {len(LABELS)}: {LABELS[0]}, ..."
    assert re.fullmatch(r"backend   ONNX Runtime [\d.]+, .*/libonnxruntime\.so.*", lines[3])
    assert re.match(r"reason    EF\d{3}: ", lines[4])
    name = bundle.manifest.inputs[0].name
    sizes = ", ".join(str(size) for size in bundle.manifest.inputs[0].shape[1:])
    assert lines[5].startswith(f"input     {name}, float32 [?, {sizes}]")
    assert lines[6].startswith(f"output    {bundle.manifest.outputs[0].name}, float32 [?, {len(LABELS)}]")


def test_outputs_whose_size_only_a_run_tells_come_out(program: Path, tmp_path: Path) -> None:
    """Of a size, and even of a number of axes, that the data decides on."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, ["axes"]),
    ]
    outputs = [
        helper.make_tensor_value_info("where", TensorProto.INT64, [1, None]),
        helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("shaped", TensorProto.FLOAT, None),
    ]
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Reshape", ["x", "shape"], ["shaped"]),
    ]
    graph = helper.make_graph(nodes, "found", inputs, outputs)
    model = tmp_path / "found.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    for values, shape in (([0, 3, 0, 4], [2, 1, 2]), ([0, 0], [2]), ([5], [])):
        array = np.array(values, np.float32)
        files = [save(tmp_path / "x.npy", array), save(tmp_path / "shape.npy", np.array(shape, np.int64))]
        run(program, model, *files, "--output", tmp_path / "out")
        results = {name: np.load(tmp_path / "out" / f"{name}.npy") for name in ("where", "twice", "shaped")}
        assert np.array_equal(results["where"], np.array(np.nonzero(array), np.int64))
        assert results["where"].shape == (1, np.count_nonzero(array))
        assert np.array_equal(results["twice"], 2 * array)
        assert np.array_equal(results["shaped"], array.reshape(shape))


def test_pictures_are_classified_as_python_does(program: Path, bundle: BuildResult, tmp_path: Path) -> None:
    paths = [picture(tmp_path, f"{index}.ppm", (40, 60 + index), index) for index in range(2)]
    blocks = re.findall(r"^(.+):\n((?:  .+\n)+)", run(program, bundle.path, "--top", "3", *paths), re.MULTILINE)
    assert [block[0] for block in blocks] == [str(path) for path in paths]
    for _, rows in blocks:
        ranked = re.findall(r"^  (\d\.\d{4})  (.+)$", rows, re.MULTILINE)
        assert len(ranked) == 3
        assert {label for _, label in ranked} <= set(LABELS)
        assert ranked == sorted(ranked, key=lambda entry: -float(entry[0]))
    everything = run(program, bundle.path, "--top", str(len(LABELS)), paths[0])
    assert sum(float(share) for share in re.findall(r"^  (\d\.\d{4})  ", everything, re.MULTILINE)) == pytest.approx(
        1, abs=1e-3
    )


def test_arrays_give_the_bits_that_python_gets(program: Path, bundle: BuildResult, tmp_path: Path) -> None:
    shape = [2, *(int(size) for size in bundle.manifest.inputs[0].shape[1:])]
    images = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    run(program, bundle.path, save(tmp_path / "images.npy", images), "--output", tmp_path / "out")
    name = bundle.manifest.outputs[0].name
    assert np.array_equal(np.load(tmp_path / "out" / f"{name}.npy"), logits(bundle, images))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_goes_through(program: Path, tmp_path: Path, dtype: str) -> None:
    model = save_model(tmp_path / "model.onnx", dtype)
    array = np.random.default_rng(1).integers(0, 2, (4, 3)).astype(dtype)
    output = run(program, model, save(tmp_path / "array.npy", array), "-o", tmp_path)
    # Names of tensors have slashes.
    assert output == f"outputs/x, {dtype} [4, 3] in {tmp_path}/outputs_x.npy\n"
    result = np.load(tmp_path / "outputs_x.npy")
    assert result.dtype == array.dtype
    assert np.array_equal(result, array)


def test_later_versions_of_the_format_and_no_elements_are_read(program: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.onnx", "float32")
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "array.npy").open("wb") as file:
            np.lib.format.write_array(file, np.ones((2, 3), np.float32), version=version)
        assert "[2, 3]" in run(program, model, tmp_path / "array.npy")
    assert "[0, 3]" in run(program, model, save(tmp_path / "array.npy", np.ones((0, 3), np.float32)))


def test_inputs_are_given_in_order_or_by_name(program: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.onnx", "float32", ("a", "b"))
    one = save(tmp_path / "one.npy", np.ones((1, 3), np.float32))
    two = save(tmp_path / "two.npy", np.full((2, 3), 2, np.float32))
    assert run(program, model, one, two).split("\n")[0].endswith("[1, 3]")
    assert run(program, model, f"b={one}", f"a={two}").split("\n")[0].endswith("[2, 3]")
    for files in ([one], [one, two, one], [f"a={one}", f"a={two}"]):
        code, message = fails(program, model, *files)
        assert (code, "EF852: " in message) == (2, True)


def test_arrays_that_cannot_be_taken_are_named(program: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.onnx", "float32")
    path = tmp_path / "array.npy"
    good = np.ones((2, 3), np.float32)
    np.save(path, good)
    content = path.read_bytes()
    wrong = {
        "does not begin as one": b"PK\x03\x04" + content,
        "it has 20 bytes of data, and its shape takes 24": content[:-4],
        "it has 25 bytes of data": content + b"x",
        "ends within its header": content[:50],
        "not one that NumPy writes": content.replace(b"'shape': (2, 3)", b"'shape': (x, 3)"),
        "bytes of data, and its shape takes": content.replace(b"(2, 3), }      ", b"(999999999999,)"),
    }
    for words, changed in wrong.items():
        assert changed != content
        path.write_bytes(changed)
        code, message = fails(program, model, path)
        assert (code, "EF851: " in message, words in message) == (2, True, True), message
    for array, words in ((np.asfortranarray(np.ones((2, 3), np.float32)), "Fortran"), (np.ones((2, 3)), "'<f8'")):
        code, message = fails(program, model, save(path, array))
        assert (code, "EF851: " in message, words in message) == (2, True, True), message
    code, message = fails(program, model, save(path, np.ones((2, 3), ">f4")))
    assert (code, "little-endian" in message) == (2, True)
    code, message = fails(program, model, save(path, np.ones((2, 4), np.float32)))
    assert (code, "EF802: " in message) == (2, True)
    code, message = fails(program, model, tmp_path / "none.npy")
    assert (code, "EF102: " in message) == (2, True)
    code, message = fails(program, model, save(path, good), "-o", tmp_path / "a" / "b")
    assert (code, "EF102: " in message) == (2, True)


def test_what_is_wrong_with_the_command_is_said(program: Path, bundle: BuildResult, tmp_path: Path) -> None:
    for words, code in (
        ([], "EF103"),
        (["--top"], "EF103"),
        ([bundle.path, "--top", "0"], "EF101"),
        ([bundle.path, "--device", "-1"], "EF101"),
        ([bundle.path, "--backend", "cuda"], "EF101"),
        ([bundle.path, "--nonsense", "1"], "EF101"),
        ([bundle.path, "a.ppm", "b.npy"], "EF852"),
        ([bundle.path, "a.jpg"], "EF852"),
        ([bundle.path, tmp_path / "none.ppm"], "EF850"),
        ([bundle.path, "--top", "8", picture(tmp_path, "a.ppm", (8, 8), 1)], "EF101"),
        ([tmp_path / "none"], "EF701"),
        ([bundle.path, "--backend", "tensorrt"], "EF707"),
    ):
        status, message = fails(program, *words)
        assert (status, message.startswith(f"edgeformer-run: {code}: ")) == (2, True), message


def test_help_and_version(program: Path) -> None:
    assert run(program, "--version") == f"edgeformer-run {__version__}\n"
    text = run(program, "--help")
    assert text.startswith("usage: edgeformer-run MODEL")
    assert max(map(len, text.splitlines())) <= 120


def test_a_missing_backend_ends_with_4(program: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.onnx", "float32")
    environment = {**os.environ, "EDGEFORMER_ONNXRUNTIME_LIBRARY": str(tmp_path / "none.so")}
    done = subprocess.run([program, model], capture_output=True, text=True, env=environment)
    assert (done.returncode, "EF605: " in done.stderr) == (4, True)
