"""Stored weights against a float64 reference that knows nothing of the code, and the graphs that hold them."""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.opset import model_opset
from edgeformer.graph.qdq import LayerSite, layer_site
from edgeformer.graph.qdq_types import (
    StoredWeight,
    fp8_scale,
    fp8_weight,
    insert_typed_qdq,
    int4_weight,
    int8_weight,
    restored,
)
from edgeformer.graph.types import to_float_type
from tests.graph.precision_graphs import Builder, check, maker, run, snr_db
from tests.raising import raises

Array = np.ndarray[Any, Any]


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def least_error(values: Array, high: int, low: int, shares: Array) -> float:
    """The smallest square error of rounding some numbers with one scale, over many scales, in float64."""
    errors = []
    for share in shares:
        # Scales are numbers of FP16.
        step = float(np.float16(np.abs(values).max() * share / high))
        errors.append(((np.clip(np.rint(values / step), low, high) * step - values) ** 2).sum())
    return float(min(errors))


def exact_in_fp16(scales: Array) -> bool:
    return bool(np.array_equal(scales.astype(np.float16).astype(np.float32), scales))


class TestInt8:
    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("shape", [(7, 5), (1, 1), (33, 12)])
    def test_each_channel_has_nearly_the_best_scale(self, shape: tuple[int, int], axis: int) -> None:
        weight = weights(*shape)
        stored = int8_weight(weight, axis)
        assert stored.values.dtype == np.int8
        assert stored.values.shape == shape
        assert stored.scales.shape == (shape[axis],)
        assert exact_in_fp16(stored.scales)
        assert np.abs(stored.values.astype(int)).max() <= 127
        back = restored(stored).astype(np.float64)
        for channel in range(shape[axis]):
            row, got = weight.take(channel, axis).astype(np.float64), back.take(channel, axis)
            plain = least_error(row, 127, -127, np.array([1.0]))
            # Never worse than with the largest magnitude as 127.
            assert ((got - row) ** 2).sum() <= plain * 1.001 + 1e-12

    def test_values_are_rounded_with_the_scale_that_is_stored(self) -> None:
        weight = weights(6, 4, 3, 3)
        stored = int8_weight(weight, 0)
        steps = stored.scales.reshape(-1, 1, 1, 1).astype(np.float64)
        assert np.array_equal(stored.values, np.clip(np.rint(weight / steps), -127, 127))

    def test_one_outlier_is_clipped_where_that_helps(self) -> None:
        row = np.concatenate([np.full(4000, 0.335), [1.0]]).astype(np.float32)[None]
        stored = int8_weight(row, 0)
        assert float(stored.scales[0]) * 127 < 0.999
        error = ((restored(stored).astype(np.float64) - row) ** 2).sum()
        assert error < least_error(row[0].astype(np.float64), 127, -127, np.array([1.0]))

    def test_a_weight_on_the_grid_of_its_largest_magnitude_is_exact(self) -> None:
        whole = np.random.default_rng(0).integers(-127, 128, (40, 3))
        whole[0] = 127
        weight = (whole * np.float32(2.0**-9)).astype(np.float32)
        stored = int8_weight(weight, 1)
        assert np.array_equal(restored(stored), weight)
        assert np.array_equal(stored.values, whole)

    def test_channels_of_zeros_and_of_next_to_nothing(self) -> None:
        weight = weights(8, 3)
        weight[:, 1] = 0
        weight[:, 2] = 1e-12
        stored = int8_weight(weight, 1)
        assert stored.scales[1] == 1
        assert not stored.values[:, 1:].any()
        assert exact_in_fp16(stored.scales)
        assert (stored.scales > 0).all()


class TestInt4:
    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize(("inputs", "block"), [(64, 32), (70, 32), (5, 32), (33, 16), (1, 128)])
    def test_each_block_has_nearly_the_best_scale(self, inputs: int, block: int, axis: int) -> None:
        """The last block may be shorter: 70 inputs are blocks of 32, 32 and 6."""
        weight = weights(inputs, 6) if axis == 1 else weights(6, inputs)
        stored = int4_weight(weight, axis, block)
        count = -(-inputs // block)
        assert stored.values.shape == weight.shape
        assert stored.scales.shape == ((count, 6) if axis == 1 else (6, count))
        assert (stored.axis, stored.block) == (1 - axis, block)
        assert exact_in_fp16(stored.scales)
        assert stored.values.min() >= -8
        assert stored.values.max() <= 7
        columns = weight if axis == 1 else weight.T
        back = restored(stored) if axis == 1 else restored(stored).T
        total, finer = 0.0, 0.0
        for column in range(6):
            for start in range(0, inputs, block):
                want = columns[start : start + block, column].astype(np.float64)
                have = back[start : start + block, column].astype(np.float64)
                error = ((have - want) ** 2).sum()
                assert error <= least_error(want, 7, -8, np.array([1.0])) * 1.001 + 1e-12
                total += error
                finer += least_error(want, 7, -8, np.linspace(0.6, 1, 400))
        # A finer search finds little more.
        assert total <= 1.25 * finer + 1e-6 * (weight.astype(np.float64) ** 2).sum()

    def test_a_block_of_zeros(self) -> None:
        weight = weights(64, 2)
        weight[32:, 0] = 0
        stored = int4_weight(weight, 1, 32)
        assert stored.scales[1, 0] == 1
        assert not stored.values[32:, 0].any()


class TestFp8:
    def test_the_scale_is_the_next_one_that_fp16_holds(self) -> None:
        amax = np.random.default_rng(0).uniform(1e-6, 100, 3000)
        scale = fp8_scale(amax)
        assert exact_in_fp16(scale)
        assert (scale.astype(np.float64) * 448 >= amax).all()
        normal = amax / 448 > 2.0**-14
        assert (scale[normal] * 448 / amax[normal]).max() < 1 + 2.0**-10
        assert fp8_scale(0.0) == 1
        assert np.isfinite(fp8_scale(1e30))

    @pytest.mark.parametrize(("shape", "axis"), [((5, 7), 1), ((7, 5), 0), ((4, 3, 3, 3), 0)])
    def test_values_are_the_nearest_of_e4m3(self, shape: tuple[int, ...], axis: int) -> None:
        weight = weights(*shape)
        weight[(slice(None),) * axis + (1,)] = 0
        stored = fp8_weight(weight, axis)
        assert stored.values.dtype == ml_dtypes.float8_e4m3fn
        assert stored.scales[1] == 1
        every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
        grid = every[np.isfinite(every)]
        steps = stored.scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]).astype(np.float64)
        scaled = (weight / steps).ravel()
        nearest = np.abs(scaled[:, None] - grid[None]).min(1)
        assert np.abs(stored.values.astype(np.float64).ravel() - scaled) == pytest.approx(nearest, abs=1e-4)
        assert np.abs(stored.values.astype(np.float64)).max() <= 448


def linear_model(inputs: int = 12, outputs: int = 6, *, gemm: bool = False) -> onnx.ModelProto:
    b = Builder(("batch", inputs))
    if gemm:
        b.op("Gemm", "input", b.normal(outputs, inputs, name="weight"), output="y", transB=1)
    else:
        b.op("MatMul", "input", b.normal(inputs, outputs, name="weight"), output="y")
    return b.model("y")


def sites(model: onnx.ModelProto, *outputs: str) -> list[LayerSite]:
    index = GraphIndex(model)
    found = [layer_site(index, index.producer[name]) for name in outputs]
    return [site for site in found if isinstance(site, LayerSite)]


Kind = Literal["int8", "int4", "fp8"]


def make(kind: Kind, block: int = 8) -> Any:
    def stored(site: LayerSite, weight: Array) -> StoredWeight:
        if kind == "int4":
            return int4_weight(weight, site.axis, block)
        return int8_weight(weight, site.axis) if kind == "int8" else fp8_weight(weight, site.axis)

    return stored


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("kind", ["int8", "int4", "fp8"])
@pytest.mark.parametrize("inputs", [12, 11])
def test_the_graph_computes_with_the_restored_weight(kind: Kind, gemm: bool, inputs: int) -> None:
    """In ONNX Runtime, in FP32 bit for bit; INT4 with a short last block, and with an odd number of values."""
    model = linear_model(inputs, 5, gemm=gemm)
    (site,) = sites(model, "y")
    result = insert_typed_qdq(model, [site], make(kind))
    check(result)
    assert model_opset(result) == (21 if kind == "int4" else 20)
    assert [node.op_type for node in result.graph.node][:1] == ["DequantizeLinear"]
    weight = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "weight"))
    back = restored(make(kind)(site, weight))
    x = weights(4, inputs, seed=1)
    want = x.astype(np.float64) @ (back.T if gemm else back).astype(np.float64)
    assert run(result, x)[0] == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("kind", ["int8", "int4", "fp8"])
def test_typing_to_fp16_changes_no_scale_and_no_value(kind: Kind) -> None:
    model = linear_model(64, 6)
    result = insert_typed_qdq(
        model, sites(model, "y"), make(kind, 32), ranges={"input": 3.7} if kind == "fp8" else None
    )
    typed = to_float_type(result, "float16")
    check(typed)
    before, after = ({t.name: t for t in one.graph.initializer} for one in (result, typed))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if tensor.data_type == TensorProto.FLOAT:
            assert after[name].data_type == TensorProto.FLOAT16
            assert np.array_equal(numpy_helper.to_array(after[name]).astype(np.float32), numpy_helper.to_array(tensor))
        else:
            assert after[name].raw_data == tensor.raw_data
    x = weights(4, 64, seed=1)
    # FP8 rounds the activation, and FP16 before it moves a few of them to the next value.
    assert snr_db(run(result, x)[0], run(typed, x)[0]) > (30 if kind == "fp8" else 55)


def test_fp8_rounds_the_activation_as_e4m3_does() -> None:
    model = linear_model(12, 6)
    (site,) = sites(model, "y")
    result = insert_typed_qdq(model, [site], make("fp8"), ranges={"input": 2.0})
    x = weights(64, 12, seed=3)  # some beyond the range: they saturate
    step = float(fp8_scale(2.0))
    weight = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "weight"))
    rounded = np.clip(x / np.float32(step), -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * step
    want = rounded @ restored(fp8_weight(weight, 1)).astype(np.float64)
    assert np.abs(x).max() > 2.0
    assert run(result, x)[0] == pytest.approx(want, abs=1e-4)


def test_layers_share_what_they_read() -> None:
    """Two layers read one tensor and one weight: one pair, one DequantizeLinear. Another reader keeps the float."""
    b = Builder(("batch", 8))
    weight = b.normal(8, 8, name="weight")
    first, second = b.op("MatMul", "input", weight, output="first"), b.op("MatMul", "input", weight, output="second")
    b.op("Add", b.op("Add", first, second), "input", output="y")
    model = b.model("y")
    result = insert_typed_qdq(model, sites(model, "first", "second"), make("fp8"), ranges={"input": 4.0})
    check(result)
    kinds = [node.op_type for node in result.graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 2
    assert "input" in maker(result, "y").input
    assert "weight" not in {tensor.name for tensor in result.graph.initializer}


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (70000.0, "70000")])
def test_weights_that_cannot_be_stored_are_named(value: float, word: str) -> None:
    model = linear_model()
    (tensor,) = (t for t in model.graph.initializer if t.name == "weight")
    array = numpy_helper.to_array(tensor).copy()
    array[2, 3] = value
    tensor.CopyFrom(numpy_helper.from_array(array, "weight"))
    with raises("EF546", "'weight'", "'y'", word):
        insert_typed_qdq(model, sites(model, "y"), make("int8"))


@pytest.mark.parametrize("amax", [None, np.nan, -1.0, np.inf])
def test_a_range_that_cannot_be(amax: float | None) -> None:
    model = linear_model()
    with raises("EF501", "'input'", "not known" if amax is None else amax):
        insert_typed_qdq(model, sites(model, "y"), make("fp8"), ranges={} if amax is None else {"input": amax})


def test_what_is_quantized_already_is_refused() -> None:
    model = linear_model()
    once = insert_typed_qdq(model, sites(model, "y"), make("int8"))
    with raises("EF324", "DequantizeLinear"):
        insert_typed_qdq(once, sites(model, "y"), make("int8"))


def test_a_site_without_a_constant_weight() -> None:
    model = linear_model()
    with raises("EF501", "'y'"):
        insert_typed_qdq(model, [LayerSite("y", "input", "nowhere", 1, 1)], make("int8"))
