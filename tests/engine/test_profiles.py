from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError

from edgeformer.engine.profiles import BatchProfile, ShapeRange, shape_ranges
from tests.raising import raises

from .conftest import attention_model, linear_model


def test_batch_is_one_number_or_three() -> None:
    assert BatchProfile.parse("8") == BatchProfile(min=8, opt=8, max=8)
    assert BatchProfile.parse("1:8:32") == BatchProfile(min=1, opt=8, max=32)
    assert str(BatchProfile.parse("1:8:32")) == "1:8:32"
    assert str(BatchProfile.parse("5")) == "5"


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:3:4", "-1", "1.5", "1:8:", " : : "])
def test_batch_that_is_no_number_is_refused(text: str) -> None:
    with raises("EF620", repr(text), "smallest:frequent:largest"):
        BatchProfile.parse(text)


@pytest.mark.parametrize("text", ["0", "0:1:2", "4:2:8", "1:9:8"])
def test_batch_out_of_order_is_refused(text: str) -> None:
    with raises("EF620", text, "1 <= smallest <= most frequent <= largest"):
        BatchProfile.parse(text)


def test_shape_range_checks_rank_and_order() -> None:
    assert ShapeRange.fixed((2, 3)).is_fixed
    assert str(ShapeRange(min=(1, 3), opt=(4, 3), max=(8, 3))) == "1x3 .. 4x3 .. 8x3"
    with pytest.raises(ValidationError, match="different rank"):
        ShapeRange(min=(1,), opt=(1, 2), max=(1, 2))
    with pytest.raises(ValidationError, match="smallest <= most frequent"):
        ShapeRange(min=(1, 5), opt=(1, 4), max=(1, 9))


def test_dynamic_batch_takes_the_profile() -> None:
    ranges = shape_ranges(linear_model("N"), BatchProfile.parse("1:4:7"))
    assert ranges == {"x": ShapeRange(min=(1, 8), opt=(4, 8), max=(7, 8))}


def test_fixed_batch_has_to_match() -> None:
    assert shape_ranges(linear_model(3), BatchProfile.parse("3")) == {"x": ShapeRange.fixed((3, 8))}
    for batch in ("2", "3:3:4", "1:3:3"):
        with raises("EF621", "'x'", "fixed at 3", BatchProfile.parse(batch), "dynamic batch"):
            shape_ranges(linear_model(3), BatchProfile.parse(batch))


def test_other_dynamic_axes_need_a_shape() -> None:
    model = attention_model(shape=("N", "H", "W"))
    with raises("EF621", "'x'", "NxHxWx48", "1 (H), 2 (W)"):
        shape_ranges(model, BatchProfile.parse("1"))
    asked = ShapeRange(min=(1, 4, 4, 48), opt=(2, 8, 8, 48), max=(4, 16, 16, 48))
    assert shape_ranges(model, BatchProfile.parse("1"), {"x": asked}) == {"x": asked}


def test_shapes_that_contradict_the_graph_are_listed_together() -> None:
    model = attention_model()
    second = helper.make_tensor_value_info("z", TensorProto.FLOAT16, [5, 2])
    model.graph.input.append(second)
    shapes = {"x": ShapeRange.fixed((1, 8, 13, 48)), "nothing": ShapeRange.fixed((1,))}
    with raises("EF621") as caught:
        shape_ranges(model, BatchProfile.parse("2"), shapes)
    faults = str(caught.value).splitlines()[1:]
    assert len(faults) == 3
    named = (
        ("'x'", "Nx8x12x48", "1x8x13x48", "axis 2 is fixed at 12"),
        ("'z'", "5x2", "fixed at 5", "2 was asked for"),
        ("nothing", "x, z"),
    )
    for fault, values in zip(faults, named, strict=True):
        assert all(value in fault for value in values), fault


def test_wrong_rank_is_said() -> None:
    with raises("EF621", "'x'", "4 axes", "1x8x12", "the shape 3"):
        shape_ranges(attention_model(), BatchProfile.parse("1"), {"x": ShapeRange.fixed((1, 8, 12))})


def test_input_without_a_shape_is_refused() -> None:
    model = linear_model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with raises("EF621", "'x' has no shape"):
        shape_ranges(model, BatchProfile.parse("1"))


def test_initializers_listed_as_inputs_and_scalars_are_no_batch() -> None:
    model = linear_model()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 4]))
    model.graph.input.append(helper.make_tensor_value_info("scalar", TensorProto.FLOAT, []))
    ranges = shape_ranges(model, BatchProfile.parse("2"))
    assert ranges == {"x": ShapeRange.fixed((2, 8)), "scalar": ShapeRange.fixed(())}


def test_unnamed_dynamic_axis_is_dynamic() -> None:
    model = linear_model()
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    axis.Clear()
    assert isinstance(model, onnx.ModelProto)
    assert shape_ranges(model, BatchProfile.parse("2")) == {"x": ShapeRange.fixed((2, 8))}
