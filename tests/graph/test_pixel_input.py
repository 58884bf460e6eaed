"""Graphs that take bytes give, bit for bit, what they gave for the images made of these."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from edgeformer.data import Preprocessing
from edgeformer.graph.image_input import image_input
from edgeformer.graph.pixel_input import check_pixel_input, with_pixel_input
from edgeformer.graph.types import FloatType, to_float_type
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.normalizing_session import NormalizingSession
from tests.raising import raises

KINDS = {"float": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
ODD = Preprocessing(7, 5, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 7, 5, 3), dtype=np.uint8)


def network(kind: str = "float", *, last: bool = False, batch: Any = "batch", readers: int = 1) -> onnx.ModelProto:
    """Convolutions of the image, each an output."""
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3)) * 0.3
    dtype = np.float16 if kind == "float16" else np.float32
    nodes = [helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2])] if last else []
    for number in range(readers):
        nodes.append(helper.make_node("Conv", ["planes" if last else "x", "w"], [f"y{number}"], name=f"conv{number}"))
    shape = [batch, 7, 5, 3] if last else [batch, 3, 7, 5]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", KINDS[kind], shape)],
        [helper.make_tensor_value_info(f"y{number}", KINDS[kind], [batch, 4, 5, 3]) for number in range(readers)],
        [numpy_helper.from_array(weight.astype(dtype), "w")],
        value_info=[helper.make_tensor_value_info("x", KINDS[kind], shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def graph(body: str, given: str = "float[N,3,7,5] x", output: str = "float[N,3,7,5] y") -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> g ({given}) => ({output}) {{ {body} }}')


@pytest.mark.parametrize("normalization", ["mean_std", "scale", "none"])
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_outputs_are_equal(kind: str, last: bool, normalization: Any) -> None:
    model, prepared = network(kind, last=last, readers=2), ODD.with_normalization(normalization)
    taking = with_pixel_input(model, prepared)
    onnx.checker.check_model(taking, full_check=True)
    given = image_input(taking)
    assert (given.name, given.height, given.width, given.channels_last, given.pixels) == ("x", 7, 5, True, True)
    with NormalizingSession(OnnxSession(model), prepared) as before, OnnxSession(taking) as after:
        assert before.inputs == after.inputs
        wanted, found = before.run({"x": PIXELS}), after.run({"x": PIXELS})
    assert list(found) == ["y0", "y1"]
    for name in wanted:
        assert np.abs(wanted[name]).max() > 0.1
        # ONNX Runtime computes FP16 in FP32, and leaves the rounding between two casts out.
        tolerance = 0.0 if kind == "float" else 4 * 2**-11 * np.abs(wanted[name]).max()
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=tolerance)


def test_the_cast_comes_first_and_the_arithmetic_is_the_preprocessings() -> None:
    nodes = with_pixel_input(network(), ODD).graph.node
    assert [node.op_type for node in nodes] == ["Cast", "Div", "Sub", "Div", "Transpose", "Conv"]
    assert [
        node.op_type for node in with_pixel_input(network(last=True), ODD.with_normalization("none")).graph.node
    ] == [*("Cast", "Transpose", "Conv")]
    assert len({node.name for node in nodes}) == len(nodes)


def test_a_fixed_batch_stays_fixed() -> None:
    assert image_input(with_pixel_input(network(batch=3), ODD)).batch == 3


def test_the_given_model_is_left_as_it_is() -> None:
    model = network()
    before = model.SerializeToString(deterministic=True)
    with_pixel_input(model, ODD)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("float_type", ["float16", "bfloat16"])
def test_normalization_stays_in_float32(float_type: FloatType) -> None:
    """What the first layer reads is rounded once: the typed graph gives what that of float input gives."""
    model = network()
    before, after = to_float_type(model, float_type), to_float_type(with_pixel_input(model, ODD), float_type)
    kinds = {value.name: value.type.tensor_type.elem_type for value in after.graph.value_info}
    made = {node.output[0]: node for node in after.graph.node}
    conv = next(node for node in after.graph.node if node.op_type == "Conv")
    cast = made[conv.input[0]]
    assert cast.op_type == "Cast"
    assert kinds[conv.input[0]] == helper.np_dtype_to_tensor_dtype(np.dtype(np.float16)) or float_type == "bfloat16"
    assert kinds[cast.input[0]] == TensorProto.FLOAT
    assert {kinds[node.output[0]] for node in after.graph.node if node.op_type in ("Sub", "Div")} == {TensorProto.FLOAT}
    if float_type == "bfloat16":
        return  # ONNX Runtime has no kernels for it
    with NormalizingSession(OnnxSession(before), ODD) as one, OnnxSession(after) as other:
        np.testing.assert_array_equal(one.run({"x": PIXELS})["y0"], other.run({"x": PIXELS})["y0"])


def test_what_takes_such_bytes_already_is_left_alone() -> None:
    model = graph("f = Cast<to=1>(x) y = Neg(f)", "uint8[N,7,5,3] x", "float[N,7,5,3] y")
    assert not check_pixel_input(model)
    assert with_pixel_input(model, ODD) is model


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("uint8[N,3,7,5] x", ("UINT8", "[batch, 3, height, width]")),
        ("int32[N,3,7,5] x", ("INT32", "[batch, 3, height, width]")),
        ("int64[N,7,5,3] x", ("INT64", "[batch, height, width, 3]")),
    ],
)
def test_pixels_in_another_form_are_refused(given: str, words: tuple[str, ...]) -> None:
    with raises("EF842", "'x'", *words, "--input uint8"):
        with_pixel_input(graph("y = Cast<to=1>(x)", given, "float[N,A,B,C] y"), ODD)


def test_an_image_three_pixels_high_is_refused() -> None:
    with raises("EF842", "'x'", "3 pixels high"):
        with_pixel_input(graph("y = Neg(x)", "float[N,3,3,5] x", "float[N,3,3,5] y"), ODD)


def test_an_input_that_is_read_where_bytes_cannot_be_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["inner"])], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    model = graph("y = Neg(x)")
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], name="choice", then_branch=branch, else_branch=branch))
    with raises("EF842", "'x'", "choice", "Identity"):
        with_pixel_input(model, ODD)
    model = graph("y = Neg(x)")
    model.graph.output.append(model.graph.input[0])
    with raises("EF842", "'x'", "an output", "Identity"):
        with_pixel_input(model, ODD)


@pytest.mark.parametrize("given", ["float[N,4,7,5] x", "double[N,3,7,5] x", "float[N,3,7,5] x, float[N,3,7,5] other"])
def test_what_takes_no_images_is_refused(given: str) -> None:
    with raises("EF346" if "double" in given else "EF321", "'x'"):
        with_pixel_input(graph("y = Identity(x)", given), ODD)
