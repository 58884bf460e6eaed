"""What a model takes for images, and fixing its size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

from edgeformer.graph.image_input import ImageInput, image_input, with_input_size
from edgeformer.runtime import OnnxSession
from tests.raising import raises


def graph(shape: str, kind: str = "float") -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g ({kind}[{shape}] x) => ({kind}[{shape}] y) {{ y = Identity(x) }}'
    )


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ("1,3,32,64", "float", ImageInput("x", 1, 32, 64, False, False)),
        ("N,3,H,W", "float16", ImageInput("x", None, None, None, False, False)),
        ("N,C,32,W", "bfloat16", ImageInput("x", None, 32, None, False, False)),
        ("2,32,64,3", "uint8", ImageInput("x", 2, 32, 64, True, True)),
        ("N,H,W,3", "int64", ImageInput("x", None, None, None, True, True)),
        ("N,3,3,3", "int32", ImageInput("x", None, 3, 3, False, True)),
    ],
)
def test_layout_size_and_type(shape: str, kind: str, expected: ImageInput) -> None:
    assert image_input(graph(shape, kind)) == expected


@pytest.mark.parametrize("shape", ["1,4,32,32", "1,3,32", "1,32,32,4", "1,3,0,32"])
def test_shapes_that_are_no_images(shape: str) -> None:
    with raises("EF321", shape.split(",")[-1]):
        image_input(graph(shape))


@pytest.mark.parametrize("kind", ["bool", "int8", "string", "double"])
def test_types_that_images_do_not_become(kind: str) -> None:
    with raises("EF346", kind.upper(), "UINT8", "FLOAT16"):
        image_input(graph("1,3,8,8", kind))


@pytest.mark.parametrize(("shape", "sized"), [("N,3,H,W", (2, 3, 16, 24)), ("N,H,W,3", (2, 16, 24, 3))])
def test_a_free_size_is_fixed_everywhere(shape: str, sized: tuple[int, ...]) -> None:
    model = graph(shape)
    fixed = with_input_size(model, 16, 24)
    assert image_input(fixed).height == 16
    x = np.random.default_rng(0).standard_normal(sized).astype(np.float32)
    with OnnxSession(fixed) as session:
        assert session.inputs["x"].shape[1:] == sized[1:]
        assert session.outputs["y"].shape[1:] == sized[1:]
        np.testing.assert_array_equal(session.run({"x": x})["y"], x)
    assert with_input_size(fixed, 16, 24) is fixed
    assert image_input(model).height is None


def test_the_batch_stays_free() -> None:
    axis = with_input_size(graph("N,3,H,W"), 8, 8).graph.input[0].type.tensor_type.shape.dim[0]
    assert axis.dim_param == "N"
    assert graph("N,3,H,W").graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
