from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import (
    BFLOAT16_SCALE_BITS,
    SCALE_BITS,
    AttentionSite,
    ChannelSlice,
    LayerSite,
    QuantizedWeight,
    attention_site,
    dequantize,
    insert_qdq,
    layer_site,
    quantize_array,
    representable_scale,
    with_float_attention,
)
from edgeformer.ops import bi_level_routing_attention as bra
from tests.graph.precision_graphs import Builder, check, initializer, maker, run, snr_db, transformer
from tests.raising import raises


def site(model: onnx.ModelProto, output: str) -> LayerSite:
    found = layer_site(GraphIndex(model), maker(model, output))
    assert isinstance(found, LayerSite), found
    return found


def readers(model: onnx.ModelProto, tensor: str) -> list[str]:
    return sorted(node.op_type for node in model.graph.node if tensor in node.input)


def count(model: onnx.ModelProto, op_type: str) -> int:
    return sum(node.op_type == op_type for node in model.graph.node)


class TestScales:
    def test_known_values(self) -> None:
        # 1/127 is 129.0157 * 2**-14 and 1032.126 * 2**-17.
        assert representable_scale(1 / 127) == np.float32(1033 / 2**17)
        assert representable_scale(1 / 127, BFLOAT16_SCALE_BITS) == np.float32(130 / 2**14)
        assert representable_scale(0.5) == 0.5
        assert representable_scale(0.0) == np.float32(2.0**-24)
        assert representable_scale(2.0**-25) == np.float32(2.0**-24)

    @pytest.mark.parametrize("bits", [SCALE_BITS, BFLOAT16_SCALE_BITS])
    def test_rounds_up_by_less_than_a_step_to_what_the_types_hold(self, bits: int) -> None:
        wanted = np.random.default_rng(0).uniform(1, 2, 5000) * 2.0 ** np.random.default_rng(1).integers(-17, 15, 5000)
        scale = representable_scale(wanted, bits)
        assert np.all(scale >= wanted)
        # The smallest are multiples of 2**-24, seven bits of it.
        assert np.max(scale / wanted) < 1 + 2.0**-7 + 1e-6
        assert np.max((scale / wanted)[wanted > 2.0**-13]) < 1 + 2.0 ** (1 - bits) + 1e-6
        assert np.array_equal(scale.astype(np.float16).astype(np.float32), scale)
        if bits == BFLOAT16_SCALE_BITS:
            assert np.array_equal(scale.astype(ml_dtypes.bfloat16).astype(np.float32), scale)

    def test_small_scales_stay_on_the_grid_of_float16(self) -> None:
        wanted = np.random.default_rng(0).uniform(2.0**-24, 2.0**-17, 1000)
        scale = representable_scale(wanted)
        assert np.all(scale >= wanted)
        assert np.array_equal(scale.astype(np.float16).astype(np.float32), scale)
        assert np.array_equal(scale.astype(ml_dtypes.bfloat16).astype(np.float32), scale)

    def test_round_trip_errs_by_half_a_step_at_most(self) -> None:
        values = np.random.default_rng(0).normal(size=(6, 33)).astype(np.float32)
        scales = representable_scale(np.abs(values).max(axis=1) / 127)
        weight = QuantizedWeight(quantize_array(values, scales, axis=0), scales)
        assert weight.values.dtype == np.int8
        assert np.all(np.abs(dequantize(weight, 0) - values).max(axis=1) <= scales / 2 * (1 + 1e-6))
        # The largest magnitude of every row lands on the last step or the one below it.
        assert np.all(np.abs(weight.values).max(axis=1) >= 126)

    def test_rounds_half_to_even_and_clips_symmetrically(self) -> None:
        scale = np.float32(1.0)
        values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 127.4, 500, -128, -500])
        assert quantize_array(values, np.asarray(scale)).tolist() == [0, 2, 2, 0, -2, 127, 127, -127, -127]


class TestSites:
    def test_matmul(self) -> None:
        b = Builder((2, 5, 8))
        b.linear("input", 8, 6, "fc")
        assert site(b.model("fc"), "fc_matmul") == LayerSite("fc_matmul", "input", "fc.weight", 1, 1)

    @pytest.mark.parametrize(("trans_b", "shape", "axis"), [(1, (6, 8), 0), (0, (8, 6), 1)])
    def test_gemm(self, trans_b: int, shape: tuple[int, int], axis: int) -> None:
        b = Builder((3, 8))
        b.op("Gemm", "input", b.normal(*shape, name="w"), b.normal(6), output="y", transB=trans_b)
        model = b.model("y")
        assert site(model, "y") == LayerSite("y", "input", "w", 1, axis)
        quantized = insert_qdq(model, [site(model, "y")], {"input": 3.0})
        assert initializer(quantized, "w_scale").shape == (6,)

    def test_reasons_against(self) -> None:
        b = Builder((8, 8))
        b.op("MatMul", "input", "input", output="two_activations")
        b.op("MatMul", b.normal(8, 8), "input", output="left")
        b.op("MatMul", "input", b.normal(2, 8, 8), output="batched")
        b.op("Gemm", "input", b.normal(8, 8), output="transposed", transA=1)
        b.op("Relu", "input", output="relu")
        b.op("MatMul", b.normal(8, 8), b.normal(8, 8), output="constant")
        model = b.model("two_activations", "left", "batched", "transposed", "relu", "constant")
        index = GraphIndex(model)
        assert {name: layer_site(index, maker(model, name)) for name in index.outputs} == {
            "two_activations": "it multiplies two activations",
            "left": "its constant is the left operand",
            "batched": "its constant has 3 dimensions, and a weight matrix has 2",
            "transposed": "its activation is transposed (transA)",
            "relu": "Relu has no weight",
            "constant": "it computes a constant",
        }


class TestInsertion:
    def test_structure_and_exact_scales_of_a_linear(self) -> None:
        b = Builder((2, 5, 8))
        b.linear("input", 8, 6, "fc")
        model = b.model("fc")
        quantized = insert_qdq(model, [site(model, "fc_matmul")], {"input": 127 * 0.25})
        check(quantized)
        assert [node.op_type for node in quantized.graph.node] == [
            "QuantizeLinear",
            "DequantizeLinear",
            "DequantizeLinear",
            "MatMul",
            "Add",
        ]
        assert initializer(quantized, "input_scale") == np.float32(0.25)
        assert initializer(quantized, "input_scale").shape == ()
        weight = initializer(model, "fc.weight")
        expected = representable_scale(np.abs(weight).max(axis=0) / 127)
        assert np.array_equal(initializer(quantized, "fc.weight_scale"), expected)
        stored = initializer(quantized, "fc.weight_int8")
        assert stored.dtype == np.int8
        assert np.array_equal(stored, np.rint(weight / expected))
        for name in ("input_zero_point", "fc.weight_zero_point"):
            zero = initializer(quantized, name)
            assert zero.dtype == np.int8
            assert not zero.any()
        dequantize_weight = maker(quantized, maker(quantized, "fc_matmul").input[1])
        assert {item.name: item.i for item in dequantize_weight.attribute} == {"axis": 1}
        # The bias stays float and the float weight is gone.
        assert initializer(quantized, "fc.bias").dtype == np.float32
        assert "fc.weight" not in {tensor.name for tensor in quantized.graph.initializer}

    def test_computes_what_the_scales_say(self) -> None:
        b = Builder((2, 3, 9, 7))
        b.conv("input", 3, 5, 3, "conv", pads=[1, 1, 1, 1])
        model = b.model("conv")
        quantized = insert_qdq(model, [site(model, "conv")], {"input": 2.0})
        x = np.random.default_rng(1).normal(size=(2, 3, 9, 7)).astype(np.float32)
        scale = representable_scale(2.0 / 127)
        rounded = np.clip(np.rint(x / scale), -128, 127) * scale
        weight = initializer(model, "conv.weight")
        steps = representable_scale(np.abs(weight).max(axis=(1, 2, 3)) / 127).reshape(-1, 1, 1, 1)
        weights = {"conv.weight": np.rint(weight / steps) * steps, "conv.bias": initializer(model, "conv.bias")}
        by_hand = onnx.ModelProto()
        by_hand.CopyFrom(model)
        del by_hand.graph.initializer[:]
        by_hand.graph.initializer.extend(
            numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
        )
        np.testing.assert_allclose(
            run(quantized, x)[0], run(by_hand, rounded.astype(np.float32))[0], rtol=1e-5, atol=1e-5
        )
        # ONNX Runtime's optimizer may use integer kernels: the same but for rounding.
        assert snr_db(run(quantized, x)[0], run(quantized, x, optimize=True)[0]) > 80

    def test_residual_branch_stays_float(self) -> None:
        b = Builder((1, 4, 6, 6))
        x = b.op("Relu", "input", output="x")
        conv = b.conv(x, 4, 4, 1, "conv")
        b.op("Add", x, conv, output="sum")
        model = b.model("sum")
        quantized = insert_qdq(model, [site(model, "conv")], {"x": 3.0})
        assert list(maker(quantized, "sum").input) == ["x", "conv"]
        assert readers(quantized, "x") == ["Add", "QuantizeLinear"]
        assert maker(quantized, maker(quantized, "conv").input[0]).op_type == "DequantizeLinear"

    def test_layers_that_read_one_tensor_share_one_pair(self) -> None:
        b = Builder((2, 8))
        x = b.op("Relu", "input", output="x")
        y = b.op("Add", b.linear(x, 8, 8, "a"), b.linear(x, 8, 8, "b"), output="y")
        model = b.model(y)
        quantized = insert_qdq(model, [site(model, "a_matmul"), site(model, "b_matmul")], {"x": 3.0})
        assert readers(quantized, "x") == ["QuantizeLinear"]
        assert count(quantized, "QuantizeLinear") == 1
        assert count(quantized, "DequantizeLinear") == 3
        assert maker(quantized, "a_matmul").input[0] == maker(quantized, "b_matmul").input[0]

    def test_layers_that_share_a_weight_keep_it_right(self) -> None:
        b = Builder((2, 8))
        weight = b.normal(8, 8, name="w")
        b.op("MatMul", b.op("MatMul", "input", weight, output="first"), weight, output="second")
        model = b.model("second")
        quantized = insert_qdq(model, [site(model, "first")], {"input": 3.0})
        assert maker(quantized, "second").input[1] == "w"
        assert np.array_equal(initializer(quantized, "w"), initializer(model, "w"))
        both = insert_qdq(model, [site(model, "first"), site(model, "second")], {"input": 3.0, "first": 9.0})
        check(both)
        assert count(both, "DequantizeLinear") == 4

    def test_only_the_layers_named_are_touched(self) -> None:
        model = transformer()
        quantized = insert_qdq(model, [site(model, "fc1_matmul")], {"norm2": 3.0})
        check(quantized)
        assert count(quantized, "QuantizeLinear") == 1
        assert count(quantized, "DequantizeLinear") == 2
        assert [f.name for f in quantized.functions] == ["BiLevelRoutingAttention"]

    def test_weight_behind_a_transpose_is_stored_transposed(self) -> None:
        b = Builder((2, 8))
        weight = b.op("Transpose", b.normal(5, 8, name="w"), perm=[1, 0], output="w_t")
        b.op("MatMul", "input", weight, output="y")
        model = b.model("y")
        quantized = insert_qdq(model, [site(model, "y")], {"input": 3.0})
        assert initializer(quantized, "w_t_int8").shape == (8, 5)
        assert count(quantized, "Transpose") == 0

    def test_opset_is_raised_to_what_16_bit_scales_need(self) -> None:
        b = Builder((2, 5, 8), opset=17)
        b.op("ReduceMean", b.linear("input", 8, 6, "fc"), axes=[1], output="y")
        model = b.model("y")
        quantized = insert_qdq(model, [site(model, "fc_matmul")], {"input": 3.0})
        check(quantized)
        assert quantized.opset_import[0].version == 20
        x = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32).clip(-3, 3)
        assert snr_db(run(model, x)[0], run(quantized, x)[0]) > 25

    def test_given_weight_is_taken(self) -> None:
        b = Builder((2, 8))
        b.linear("input", 8, 6, "fc")
        model = b.model("fc")
        weight = QuantizedWeight(np.full((8, 6), 3, np.int8), np.full(6, 0.5, np.float32))
        quantized = insert_qdq(model, [site(model, "fc_matmul")], {"input": 127.0}, weights={"fc_matmul": weight})
        x = np.arange(16, dtype=np.float32).reshape(2, 8)
        expected = x.sum(axis=1, keepdims=True) * 1.5 + initializer(model, "fc.bias")
        np.testing.assert_allclose(run(quantized, x)[0], expected, rtol=1e-6)


def attention(
    shape: tuple[int | str, ...] = (2, 6, 4, 20), *, nodes: int = 1, lepe: bool = False, **changes: Any
) -> onnx.ModelProto:
    """Op nodes that read the input, with 6 channels each of queries and keys and 8 of values; ``y`` is their sum."""
    b = Builder(shape)
    given: dict[str, Any] = {"num_heads": 2, "regions": 2, "topk": 2, "qk_dim": 6, "scale": 0.4, **changes}
    tensors = {}
    if lepe:
        given |= {"lepe_kernel": 3, "dim": 8}
        tensors = {"lepe_weight": b.normal(3, 3, 8, name="lepe.weight"), "lepe_bias": b.normal(8, name="lepe.bias")}
    for i in range(nodes):
        b.nodes.append(bra.Attributes(**given).make_node("input", f"bra_{i}", f"bra_{i}", **tensors))
    # LePE's groups are an attribute of the function, and so ONNX infers no shape behind it.
    total = b.op("Sum", *(f"bra_{i}" for i in range(nodes)))
    b.op("Reshape", total, b.const(np.array([0, 0, 0, 8])), output="y")
    return b.model("y")


def places(model: onnx.ModelProto) -> list[AttentionSite]:
    index = GraphIndex(model)
    found = [attention_site(index, node) for node in model.graph.node if bra.is_op(node)]
    assert all(isinstance(place, AttentionSite) for place in found), found
    return [place for place in found if isinstance(place, AttentionSite)]


RANGES = {"input[..., 0:6]": 2.5, "input[..., 6:12]": 3.0, "input[..., 12:20]": 1.7}


def op_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if bra.is_op(node)]


class TestAttention:
    def test_site(self) -> None:
        (place,) = places(attention())
        assert place == AttentionSite(
            "bra_0", ChannelSlice("input", 0, 6), ChannelSlice("input", 6, 12), ChannelSlice("input", 12, 20)
        )
        assert place.qkv == "input"
        assert [part.name for part in place.parts] == list(RANGES)
        values = np.arange(40).reshape(2, 20)
        assert np.array_equal(place.key.of(values), values[:, 6:12])

    def test_scales_are_those_of_the_ranges_rounded_up(self) -> None:
        model = attention()
        quantized = insert_qdq(model, [], RANGES, attention=places(model))
        check(quantized)
        expected = representable_scale(np.array(list(RANGES.values())) / 127)
        (node,) = op_nodes(quantized)
        attributes = bra.Attributes.from_node(node)
        assert (attributes.q_scale, attributes.k_scale, attributes.v_scale) == tuple(expected)
        assert attributes.output_type == TensorProto.FLOAT
        quantizer = maker(quantized, node.input[0])
        assert quantizer.op_type == "QuantizeLinear"
        assert quantizer.input[0] == "input"
        assert onnx.helper.get_node_attr_value(quantizer, "axis") == 3
        assert np.array_equal(initializer(quantized, quantizer.input[1]), np.repeat(expected, [6, 6, 8]))
        zero = initializer(quantized, quantizer.input[2])
        assert (zero.dtype, zero.shape, zero.any()) == (np.int8, (20,), np.False_)
        assert count(quantized, "DequantizeLinear") == 0

    @pytest.mark.parametrize("lepe", [False, True])
    @pytest.mark.parametrize(
        ("shape", "changes"),
        [
            ((2, 6, 4, 20), {}),
            ((1, 9, 15, 20), {"regions": 3, "topk": 4}),
            ((1, 7, 14, 20), {"regions": 7, "topk": 5, "num_heads": 1}),
        ],
    )
    def test_computes_what_the_reference_makes_of_the_quantized_input(
        self, shape: tuple[int, ...], changes: dict[str, Any], lepe: bool
    ) -> None:
        model = attention(shape, lepe=lepe, **changes)
        quantized = insert_qdq(model, [], RANGES, attention=places(model))
        (node,) = op_nodes(quantized)
        x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
        qkv, y = run(quantized, x, node.input[0], "y")
        steps = np.repeat(representable_scale(np.array(list(RANGES.values())) / 127), [6, 6, 8])
        assert np.array_equal(qkv, np.clip(np.rint(x / steps), -128, 127).astype(np.int8))
        tensors = [initializer(model, name) for name in ("lepe.weight", "lepe.bias")] if lepe else []
        expected = bra.reference(qkv, bra.Attributes.from_node(node), *tensors)
        np.testing.assert_allclose(y, expected, atol=2e-6 * np.abs(expected).max())

    def test_nodes_that_read_one_tensor_share_its_quantizer(self) -> None:
        model = attention(nodes=3)
        quantized = insert_qdq(model, [], RANGES, attention=places(model))
        assert count(quantized, "QuantizeLinear") == 1
        assert len({node.input[0] for node in op_nodes(quantized)}) == 1

    def test_other_readers_keep_the_float_tensor(self) -> None:
        model = transformer()
        (place,) = places(model)
        ranges = dict.fromkeys((part.name for part in place.parts), 3.0)
        quantized = insert_qdq(model, [], ranges, attention=[place])
        assert readers(quantized, "qkv") == ["QuantizeLinear"]
        assert readers(quantized, "norm1") == readers(model, "norm1")

    @pytest.mark.parametrize("lepe", [False, True])
    def test_back_to_float_gives_the_graph_it_was_made_of(self, lepe: bool) -> None:
        model = attention(lepe=lepe)
        quantized = insert_qdq(model, [], RANGES, attention=places(model))
        back = with_float_attention(quantized)
        check(back)
        assert list(back.graph.node) == list(model.graph.node)
        assert list(back.graph.initializer) == list(model.graph.initializer)
        assert with_float_attention(back) == back
        assert len(op_nodes(quantized)[0].attribute) == len(op_nodes(model)[0].attribute) + 4

    def test_some_nodes_and_others_not_are_refused(self) -> None:
        model = attention(nodes=2)
        with raises("EF906"):
            insert_qdq(model, [], RANGES, attention=places(model)[:1])

    def test_missing_ranges_are_all_named(self) -> None:
        model = attention()
        with raises("EF501", "'input[..., 0:6]' is -1", "'input[..., 12:20]'"):
            insert_qdq(model, [], {"input[..., 0:6]": -1.0, "input[..., 6:12]": 3.0}, attention=places(model))

    def test_attention_of_another_model(self) -> None:
        (place,) = places(transformer())
        with raises("EF501", "attention", "'qkv'"):
            insert_qdq(attention(), [], dict.fromkeys((part.name for part in place.parts), 1.0), attention=[place])

    def test_reasons_against(self) -> None:
        model = attention()
        quantized = insert_qdq(model, [], RANGES, attention=places(model))
        assert attention_site(GraphIndex(quantized), op_nodes(quantized)[0]) == "it takes INT8 already"
        free = attention((2, 6, 4, "channels"))
        reason = "the number of channels of 'input' is not known"
        assert attention_site(GraphIndex(free), op_nodes(free)[0]) == reason


class TestRefusals:
    def model(self) -> Any:
        b = Builder((2, 8))
        b.linear("input", 8, 6, "fc")
        return b.model("fc")

    def test_missing_and_impossible_ranges_are_all_named(self) -> None:
        b = Builder((2, 8))
        b.linear(b.op("Relu", b.linear("input", 8, 6, "a"), output="x"), 6, 6, "b")
        model = b.model("b")
        sites = [site(model, "a_matmul"), site(model, "b_matmul")]
        with raises("EF501", "no range", "'x'"):
            insert_qdq(model, sites, {"input": 1.0})
        with raises("EF501", "'input' is nan", "'x' is -1"):
            insert_qdq(model, sites, {"input": float("nan"), "x": -1.0})

    def test_quantized_model(self) -> None:
        model = self.model()
        quantized = insert_qdq(model, [site(model, "fc_matmul")], {"input": 1.0})
        with raises("EF324", "QuantizeLinear", "2 more"):
            insert_qdq(quantized, [], {})

    def test_layer_of_another_model(self) -> None:
        other = LayerSite("elsewhere", "input", "w", 1, 1)
        with raises("EF501", "'elsewhere'", "'input'"):
            insert_qdq(self.model(), [other], {"input": 1.0})

    def test_weight_of_another_shape(self) -> None:
        model = self.model()
        wrong = QuantizedWeight(np.zeros((6, 8), np.int8), np.ones(6, np.float32))
        with raises("EF501", "'fc_matmul'", (6, 8), (8, 6)):
            insert_qdq(model, [site(model, "fc_matmul")], {"input": 1.0}, weights={"fc_matmul": wrong})


def test_all_zero_tensor_and_weight_stay_zero() -> None:
    b = Builder((2, 8))
    b.op("MatMul", "input", b.const(np.zeros((8, 4)), "w"), output="y")
    model = b.model("y")
    quantized = insert_qdq(model, [site(model, "y")], {"input": 0.0})
    assert np.array_equal(run(quantized, np.ones((2, 8), np.float32))[0], np.zeros((2, 4)))
    assert quantized.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
