"""Widening graphs, finding input shapes, and taking parts out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import (
    ExecutionError,
    Session,
    extract,
    input_shapes,
    observe,
    random_images,
    widened,
)


def model_of(nodes: list[onnx.NodeProto], shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("out", kind, [None] * len(shape))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def constant(name: str, values: list[int]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, np.int64)))


def tiled(side: int, axes: str) -> onnx.ModelProto:
    """A graph that takes images whose ``axes`` (of H and W) are multiples of ``side``."""
    nodes = []
    source = "x"
    for axis in axes:
        sizes = {"H": [0, 0, side, -1], "W": [0, 0, 0, side, -1]}[axis]
        nodes += [constant(f"s{axis}", sizes[:4] if axis == "H" else [0, 0, -1, side])]
        nodes.append(helper.make_node("Reshape", [source, f"s{axis}"], [f"r{axis}"]))
    nodes.append(helper.make_node("Relu", [f"r{axes[-1]}"], ["out"]))
    return model_of(nodes, ["n", 3, "h", "w"])


def always(_: object) -> bool:
    return True


def test_widened_graph_is_all_float() -> None:
    half = numpy_helper.from_array(np.array([1.5, -2.0], np.float16))
    model = model_of(
        [
            helper.make_node("Constant", [], ["c"], value=half),
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["wide"], ["narrow"], to=TensorProto.FLOAT16),
            helper.make_node("Mul", ["narrow", "c"], ["product"]),
            helper.make_node("Add", ["product", "w"], ["out"]),
        ],
        [2],
        TensorProto.FLOAT16,
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.25, 3.0], np.float16), "w"))
    before = model.SerializeToString()

    wide = widened(model)

    onnx.checker.check_model(wide, full_check=True)
    (out,) = Session(wide).run({"x": np.array([2.0, 5.0], np.float32)}).values()
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, [3.25, -7.0])
    assert model.SerializeToString() == before


def test_a_static_model_has_one_set_of_shapes() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["out"])], [2, 3, 8, 8])
    assert input_shapes(model, always) == [{"x": (2, 3, 8, 8)}]


def test_an_open_batch_gets_two_sizes() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["out"])], ["n", 3, 8, 8])
    assert input_shapes(model, always) == [{"x": (2, 3, 8, 8)}, {"x": (1, 3, 8, 8)}]


def test_a_batch_that_is_open_in_name_only() -> None:
    model = model_of([constant("s", [4, 9]), helper.make_node("Reshape", ["x", "s"], ["out"])], ["n", 9])
    assert input_shapes(model, always) == [{"x": (4, 9)}]


def test_open_height_and_width_get_sizes_that_run_and_differ() -> None:
    assert input_shapes(tiled(8, "HW"), always) == [{"x": (2, 3, 8, 8)}, {"x": (1, 3, 16, 24)}]


def test_sizes_grow_until_they_are_large_enough() -> None:
    tried = []

    def enough(shapes: dict[str, tuple[int, ...]]) -> bool:
        tried.append(shapes["x"][2:])
        return shapes["x"][2] >= 32

    assert input_shapes(tiled(8, "HW"), enough)[1] == {"x": (1, 3, 32, 48)}
    assert tried == [(16, 24), (32, 48)]


def test_a_model_that_runs_at_no_size() -> None:
    model = model_of([constant("s", [5, 11, 13]), helper.make_node("Reshape", ["x", "s"], ["out"])], ["n", 9])
    with pytest.raises(ExecutionError, match="Reshape"):
        input_shapes(model, always)


def test_a_model_that_does_not_load() -> None:
    model = model_of([helper.make_node("Mystery", ["x"], ["out"], domain="vendor")], [2])
    model.opset_import.append(helper.make_opsetid("vendor", 1))
    with pytest.raises(ExecutionError, match="Mystery"):
        Session(model)


def test_a_session_gives_the_outputs_that_it_is_asked_for() -> None:
    model = model_of([helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Relu", ["minus"], ["out"])], [2])
    model.graph.output.append(helper.make_empty_tensor_value_info("minus"))
    session = Session(model)
    x = np.array([1.0, -2.0], np.float32)
    assert session.outputs == ["out", "minus"]
    assert list(session.run({"x": x})) == ["out", "minus"]
    (minus,) = session.run({"x": x}, ["minus"]).values()
    np.testing.assert_array_equal(minus, [-1.0, 2.0])


def test_the_words_of_a_failure_are_onnx_runtimes_own() -> None:
    with pytest.raises(ExecutionError, match=r"^\[ONNXRuntimeError\]"):
        Session(model_of([constant("s", [5]), helper.make_node("Reshape", ["x", "s"], ["out"])], [2])).run(
            {"x": np.zeros(2, np.float32)}
        )
    with pytest.raises(ExecutionError, match="the model cannot run on this data: input 'x' is missing"):
        Session(model_of([helper.make_node("Relu", ["x"], ["out"])], [2])).run({})


def test_observations() -> None:
    model = model_of(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Mul", ["s", "s"], ["squares"]),
            helper.make_node("Transpose", ["x"], ["turned"]),
            helper.make_node("Relu", ["turned"], ["out"]),
        ],
        ["n", 5],
    )
    first, second = observe(model, [{"x": (2, 5)}, {"x": (3, 5)}], ["squares"], ["turned", "x", "out"])

    np.testing.assert_array_equal(first.values["squares"], [4, 25])
    np.testing.assert_array_equal(second.values["squares"], [9, 25])
    assert second.shapes == {"turned": (5, 3), "x": (3, 5), "out": (5, 3)}


def test_a_part_gets_the_static_values_it_reads() -> None:
    model = model_of(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Neg", ["r"], ["minus"]),
            helper.make_node("Reshape", ["minus", "s"], ["out"]),
        ],
        [2, 3],
    )
    part = extract(
        Dataflow(model), model.opset_import, [2, 3], {"r": 2}, ["out"], {"s": np.array([3, 2], dtype=np.int64)}
    )
    (out,) = Session(part).run({"r": np.arange(6, dtype=np.float32).reshape(2, 3)}).values()
    np.testing.assert_array_equal(out, -np.arange(6).reshape(3, 2))


def test_random_images_have_regions_that_differ() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["out"])], [2, 3, 56, 56])
    image = random_images(np.random.default_rng(0), model, {"x": (2, 3, 56, 56)})["x"]
    assert image.dtype == np.float32
    means = image.reshape(2, 3, 7, 8, 7, 8).mean(axis=(3, 5))
    # Means of 64 independent values would deviate by 0.125.
    assert means.std() > 1


def test_inputs_that_are_no_floats_are_zero() -> None:
    model = model_of([helper.make_node("Identity", ["x"], ["out"])], [4], TensorProto.INT64)
    feeds = random_images(np.random.default_rng(0), model, {"x": (4,)})
    assert feeds["x"].dtype == np.int64
    assert not feeds["x"].any()
