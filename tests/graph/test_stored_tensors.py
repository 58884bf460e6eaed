"""A tensor's data is as long as its shape and type say, and other files are read where they may be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.onnx_files import load_model, save_model
from edgeformer.graph.stored_tensors import check_tensors
from tests.raising import raises

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def model_with(tensor: TensorProto) -> onnx.ModelProto:
    tensor.name = "weight"
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def raw(data: bytes, dims: list[int], kind: int = TensorProto.FLOAT) -> TensorProto:
    return TensorProto(dims=dims, data_type=kind, raw_data=data)


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        (raw(WEIGHT.tobytes() + b"\0", [3, 4]), "holds 49 bytes where its shape and type take 48"),
        (raw(WEIGHT.tobytes()[:-1], [3, 4]), "47 bytes"),
        (raw(b"", [2**40, 2**40]), 2**82),
        (raw(WEIGHT.tobytes(), [-3, -4]), "negative"),
        (raw(WEIGHT.tobytes(), [3, 4], 99), "type 99"),
        (raw(bytes(3), [7], TensorProto.INT4), "holds 3 bytes where its shape and type take 4"),
        (TensorProto(dims=[3], data_type=TensorProto.FLOAT, float_data=[1, 2]), "2 numbers"),
        (TensorProto(dims=[3], data_type=TensorProto.INT64, float_data=[1, 2, 3]), "0 numbers"),
        (TensorProto(dims=[2], data_type=TensorProto.COMPLEX64, float_data=[1, 2]), "take 4"),
        (raw(b"ab", [2], TensorProto.STRING), "text"),
    ],
    ids=["long", "short", "huge", "negative", "type", "packed", "typed", "other field", "complex", "text"],
)
def test_data_that_does_not_fit_is_refused(tmp_path: Path, tensor: TensorProto, named: object) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_with(tensor).SerializeToString())
    with raises("EF302", path, "'weight'", named):
        load_model(path)


@pytest.mark.parametrize(
    "tensor",
    [
        numpy_helper.from_array(WEIGHT),
        helper.make_tensor("t", TensorProto.FLOAT16, [2, 2], np.ones(4, np.float16)),
        helper.make_tensor("t", TensorProto.BFLOAT16, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("t", TensorProto.INT4, [7], list(range(7))),
        numpy_helper.from_array(np.array(["a", "b"], dtype=object), "t"),
        numpy_helper.from_array(np.array([1j, 2.0], np.complex64), "t"),
        helper.make_tensor("t", TensorProto.FLOAT, [0, 4], []),
    ],
    ids=lambda tensor: str(tensor.data_type),
)
def test_whole_data_is_taken(tensor: TensorProto) -> None:
    check_tensors(model_with(tensor), "it")


def test_a_constant_inside_a_branch_is_checked_too(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=raw(b"abc", [1]))],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with raises("EF302", path, "3 bytes"):
        load_model(path)


@pytest.fixture
def external(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(
        model_with(numpy_helper.from_array(WEIGHT)),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def weight_of(path: Path) -> np.ndarray:
    return numpy_helper.to_array(load_model(path).graph.initializer[0])


def test_a_file_with_a_second_hard_link_is_read(external: Path) -> None:
    os.link(external.parent / "weights.bin", external.parent / "second")
    np.testing.assert_array_equal(weight_of(external), WEIGHT)


def test_links_into_the_blobs_of_a_model_cache_are_followed(external: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    external.parent.rename(blobs)
    snapshot.mkdir()
    for name in ("model.onnx", "weights.bin"):
        (snapshot / name).symlink_to(blobs / name)
    np.testing.assert_array_equal(weight_of(snapshot / "model.onnx"), WEIGHT)


def test_a_length_left_out_is_that_of_the_tensor(external: Path) -> None:
    edit(external, length=None)
    np.testing.assert_array_equal(weight_of(external), WEIGHT)


def edit(path: Path, **entries: object) -> None:
    model = onnx.load_model(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    kept = [(entry.key, entry.value) for entry in tensor.external_data if entry.key not in entries]
    del tensor.external_data[:]
    for key, value in [*kept, *((key, str(value)) for key, value in entries.items() if value is not None)]:
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def outside(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(WEIGHT.tobytes())
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to(path.parent.parent / "secret")


def endless(path: Path) -> None:
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to("weights.bin")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda path: edit(path, location="w\0.bin"), "'w\\x00.bin'"),
        (lambda path: edit(path, location="../weights.bin"), "outside"),
        (lambda path: edit(path, location="/etc/hostname"), "outside"),
        (lambda path: edit(path, location="absent.bin"), "missing"),
        (lambda path: edit(path, length=47), "takes 48 bytes and 47 are said"),
        (lambda path: edit(path, offset=-4), "too short"),
        (lambda path: edit(path, offset=2**70), "too short"),
        (lambda path: edit(path, offset="one"), "'one'"),
        (outside, "outside"),
        (endless, "weights.bin"),
    ],
    ids=["NUL", "above", "absolute", "absent", "length", "offset", "far", "word", "link", "endless link"],
)
def test_places_that_are_refused(external: Path, change: Callable[[Path], None], named: str) -> None:
    change(external)
    with raises("EF303", external, named):
        load_model(external)


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    content = model_with(numpy_helper.from_array(WEIGHT)).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content.replace(b"weight", b"w\xb5ight"))
    with raises("EF302", path, "model.graph.node[0].input[1]", "UTF-8"):
        load_model(path)


def test_an_output_without_a_shape_is_given_one(tmp_path: Path) -> None:
    model = model_with(numpy_helper.from_array(WEIGHT))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    save_model(model, tmp_path / "model.onnx")
    shape = load_model(tmp_path / "model.onnx").graph.output[0].type.tensor_type.shape
    assert [axis.dim_value for axis in shape.dim] == [2, 4]
