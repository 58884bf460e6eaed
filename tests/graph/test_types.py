from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import AttentionSite, LayerSite, attention_site, insert_qdq, layer_site
from edgeformer.graph.types import FloatType, to_float_type
from edgeformer.ops import bi_level_routing_attention as bra
from tests.graph.graphs import reference_graph
from tests.graph.precision_graphs import Builder, check, initializer, maker, run, snr_db, transformer, types
from tests.raising import raises


def image(model: onnx.ModelProto, batch: int = 2, seed: int = 1) -> np.ndarray[Any, Any]:
    shape = [d.dim_value or batch for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def op_types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def source_type(model: onnx.ModelProto, kinds: dict[str, str], tensor: str) -> str:
    """The type of what a node's tensor is cast from."""
    node = maker(model, tensor)
    assert node.op_type == "Cast"
    return kinds[node.input[0]]


@pytest.mark.parametrize("float_type", ["float16", "bfloat16"])
def test_every_tensor_of_a_fused_network_is_typed(float_type: FloatType) -> None:
    typed = to_float_type(transformer(), float_type)
    check(typed)
    kinds = types(typed)
    low = float_type.upper()
    assert kinds["input"] == kinds["logits"] == "FLOAT"
    for name in ("stem", "stem.weight", "stem.bias", "norm1", "norm1.weight", "qkv", "qkv.weight", "gelu", "pooled"):
        assert kinds[name] == low, name
    op = next(node for node in typed.graph.node if bra.is_op(node))
    assert kinds[op.input[0]] == kinds[op.output[0]] == low
    # One cast at each border and nowhere else: nothing in between needs FP32.
    assert op_types(typed).count("Cast") == 2
    declared = {value.name for value in typed.graph.value_info}
    assert {name for node in typed.graph.node for name in node.output} <= declared | {"logits"}


def test_float16_network_computes_what_float32_does() -> None:
    model = transformer(seed=3)
    x = image(model)
    (reference,), (typed,) = run(model, x), run(to_float_type(model, "float16"), x)
    assert typed.dtype == np.float32
    cosine = (reference * typed).sum() / np.sqrt((reference**2).sum() * (typed**2).sum())
    assert cosine >= 0.9999
    # FP16 keeps 11 bits, about 66 dB a rounding; a dozen roundings in a row stay well above 50 dB.
    assert snr_db(reference, typed) > 50


ASSETS = Path(__file__).parents[1] / "assets"


@pytest.mark.parametrize("exporter", ["dynamo20", "torchscript17"])
@pytest.mark.parametrize("name", ["biformer_cls_224", "biformer_stl_224", "biformer_backbone_pad_200x264"])
def test_graphs_that_others_exported_keep_their_results(name: str, exporter: str) -> None:
    model = reference_graph(f"{name}.{exporter}")
    typed = to_float_type(model, "float16")
    check(typed)
    x = np.load(ASSETS / "reference" / f"{name}.npz")["input"]
    for reference, half in zip(run(model, x), run(typed, x), strict=True):
        # The design's gate for FP16.
        cosine = float((reference * half).sum() / np.sqrt((reference**2).sum() * (half**2).sum()))
        assert cosine >= 0.9999
    bfloat16 = to_float_type(model, "bfloat16")
    check(bfloat16)
    assert set(types(bfloat16).values()) <= {"FLOAT", "BFLOAT16", "INT64", "INT32", "BOOL"}


def test_inputs_and_outputs_change_type_only_when_asked() -> None:
    kinds = types(to_float_type(transformer(), "float16", keep_io_float32=False))
    assert kinds["input"] == kinds["logits"] == "FLOAT16"


def test_model_given_is_not_changed() -> None:
    model = transformer()
    before = model.SerializeToString(deterministic=True)
    to_float_type(model, "bfloat16")
    assert model.SerializeToString(deterministic=True) == before


def test_unknown_type_is_refused() -> None:
    with raises("EF101", "float8", "float16, bfloat16"):
        to_float_type(transformer(), "float8")  # type: ignore[arg-type]


def test_layer_norm_keeps_float32_statistics() -> None:
    b = Builder((2, 5, 8))
    b.layer_norm("input", 8, "norm")
    b.nodes[0].attribute.append(helper.make_attribute("stash_type", TensorProto.FLOAT))
    typed = to_float_type(b.model("norm"), "float16")
    norm = next(node for node in typed.graph.node if node.op_type == "LayerNormalization")
    assert {item.name: item.i for item in norm.attribute}["stash_type"] == TensorProto.FLOAT


def test_softmax_runs_in_float32_between_casts() -> None:
    b = Builder((2, 4, 8))
    y = b.op("Softmax", b.op("MatMul", "input", b.normal(8, 8)), output="softmax")
    b.op("MatMul", y, b.normal(8, 8), output="y")
    typed = to_float_type(b.model("y"), "float16")
    kinds = types(typed)
    softmax = maker(typed, "softmax")
    assert kinds["softmax"] == kinds[softmax.input[0]] == "FLOAT"
    assert source_type(typed, kinds, softmax.input[0]) == "FLOAT16"
    assert kinds[maker(typed, maker(typed, "y").input[0]).input[0]] == "FLOAT16"


def test_routing_of_an_unfused_block_runs_in_float32() -> None:
    b = Builder((2, 16, 4, 8))
    qkv = b.linear("input", 8, 24, "qkv")
    halves = b.op("Split", qkv, axis=3, num_outputs=3, output="split", outputs=3)
    q = b.op("ReduceMean", halves, b.const(np.array([2])), keepdims=0, output="q_mean")
    k = b.op("ReduceMean", "split_1", b.const(np.array([2])), keepdims=0, output="k_mean")
    scaled = b.op("Mul", q, b.const(np.float32(8**-0.5)), output="scaled")
    logits = b.op("MatMul", scaled, b.op("Transpose", k, perm=[0, 2, 1], output="k_t"), output="routing")
    b.op("TopK", logits, b.const(np.array([3])), output="topk", outputs=2, axis=-1)
    y = b.op("Mul", "split_2", b.const(np.float32(2.0)), output="y")
    model = b.model(y, "topk_1")
    typed = to_float_type(model, "float16")
    kinds = types(typed)
    for name in ("q_mean", "k_mean", "scaled", "k_t", "routing", "topk"):
        assert kinds[name] == "FLOAT", name
    assert kinds["split"] == kinds["split_2"] == "FLOAT16"
    assert kinds["topk_1"] == "INT64"
    queries, keys, picked = run(typed, image(model, seed=5), "split", "split_1", "topk_1")
    means = [half.astype(np.float64).mean(axis=2) for half in (queries, keys)]
    exact = means[0] * 8**-0.5 @ means[1].transpose(0, 2, 1)
    assert np.array_equal(picked, np.argsort(-exact, axis=-1)[..., :3])


def test_topk_over_class_scores_does_not_drag_the_network_to_float32() -> None:
    b = Builder((2, 8))
    x = b.op("Add", "input", b.linear("input", 8, 8, "fc"), output="residual")
    b.op("TopK", x, b.const(np.array([3])), output="topk", outputs=2)
    kinds = types(to_float_type(b.model("topk"), "float16"))
    assert kinds["residual"] == kinds["fc"] == "FLOAT16"


def test_written_out_layer_norm_takes_its_statistics_in_float32() -> None:
    b = Builder((2, 6, 8), opset=17)
    x = b.linear("input", 8, 8, "fc")
    mean = b.op("ReduceMean", x, axes=[-1], output="mean")
    centred = b.op("Sub", x, mean, output="centred")
    square = b.op("Pow", centred, b.const(np.float32(2.0)), output="square")
    variance = b.op("ReduceMean", square, axes=[-1], output="variance")
    std = b.op("Sqrt", b.op("Add", variance, b.const(np.float32(1e-6)), output="with_eps"), output="std")
    normal = b.op("Div", centred, std, output="normal")
    y = b.op("Add", b.op("Mul", normal, b.normal(8, name="gamma"), output="scaled"), b.normal(8), output="y")
    model = b.model(y)
    typed = to_float_type(model, "float16")
    kinds = types(typed)
    for name in ("mean", "centred", "square", "variance", "with_eps", "std", "normal"):
        assert kinds[name] == "FLOAT", name
    assert kinds["fc"] == kinds["scaled"] == kinds["gamma"] == "FLOAT16"
    # 300 squared is beyond FP16: only FP32 statistics give the right answer.
    large = image(model) * 300
    assert snr_db(run(model, large)[0], run(typed, large)[0]) > 50


def test_batch_norm_written_as_a_node_or_written_out_runs_in_float32() -> None:
    b = Builder((2, 4, 5, 5))
    variance = b.const(np.full((4, 1, 1), 1e-7), "variance")
    std = b.op("Sqrt", b.op("Add", variance, b.const(np.float32(1e-8)), output="with_eps"), output="std")
    y = b.op("Div", b.op("Sub", "input", b.normal(4, 1, 1), output="centred"), std, output="y")
    statistics = [b.const(np.ones(4)), b.const(np.zeros(4)), b.const(np.zeros(4)), b.const(np.full(4, 1e-7))]
    b.op("BatchNormalization", y, *statistics, output="z", epsilon=1e-8)
    model = b.model("z")
    typed = to_float_type(model, "float16")
    kinds = types(typed)
    assert {kinds[name] for name in ("centred", "std", "y", "z", "variance")} == {"FLOAT"}
    x = image(model) * 0.01
    np.testing.assert_allclose(run(typed, x)[0], run(model, x)[0], rtol=1e-6)


def test_written_out_gelu_keeps_its_negative_side() -> None:
    b = Builder((1, 4096), opset=17)
    erf = b.op("Erf", b.op("Div", "input", b.const(np.float32(2**0.5))), output="erf")
    one = b.op("Add", erf, b.const(np.float32(1.0)), output="one_plus_erf")
    b.op("Mul", b.op("Mul", "input", one), b.const(np.float32(0.5)), output="y")
    model = b.model("y")
    typed = to_float_type(model, "float16")
    x = np.linspace(-4, -2, 4096, dtype=np.float32)[None]
    (reference,), (low,) = run(model, x), run(typed, x)
    # In FP16 throughout, 1 + erf would be a multiple of 2**-11 and the error up to 5e-4 * |x| / 2.
    assert types(typed)["one_plus_erf"] == "FLOAT"
    assert np.abs(reference - low).max() < 1e-4


def test_shape_arithmetic_stays_as_it_was() -> None:
    b = Builder((1, 4, "height", 6))
    shape = b.op("Shape", "input", start=2, end=3)
    halved = b.op("Div", b.op("Cast", shape, to=TensorProto.FLOAT, output="as_float"), b.const(np.float32(1.0), "one"))
    size = b.op("Cast", b.op("Ceil", halved, output="ceil"), to=TensorProto.INT64, output="size")
    dims = b.op("Concat", b.const(np.array([4])), size, b.const(np.array([6])), axis=0, output="dims")
    y = b.op("Reshape", b.op("Mul", "input", b.const(np.float32(2.0))), dims, output="y")
    model = b.model(y)
    typed = to_float_type(model, "float16")
    kinds = types(typed)
    assert {kinds[name] for name in ("as_float", "ceil", "one")} == {"FLOAT"}
    assert kinds["size"] == kinds["dims"] == "INT64"
    # 2051 is not an FP16 number: with FP16 shape arithmetic this reshape would fail.
    x = np.ones((1, 4, 2051, 6), np.float32)
    assert run(typed, x)[0].shape == (4, 2051, 6)


def test_scales_of_resize_stay_float32() -> None:
    b = Builder((1, 4, 5, 5))
    y = b.op("Conv", "input", b.normal(4, 4, 1, 1))
    b.op("Resize", y, "", b.const(np.array([1, 1, 2, 2], np.float32), "scales"), output="y", mode="nearest")
    model = b.model("y")
    typed = to_float_type(model, "float16")
    kinds = types(typed)
    assert kinds["scales"] == "FLOAT"
    x = image(model)
    np.testing.assert_allclose(run(typed, x)[0], run(model, x)[0], atol=2e-3 * np.abs(run(model, x)[0]).max())


def test_constant_nodes_are_typed() -> None:
    b = Builder((2, 8))
    tensor = numpy_helper.from_array(np.float32(0.1), "value")
    first = b.op("Mul", "input", b.op("Constant", value=tensor, output="tensor_constant"))
    second = b.op("Mul", first, b.op("Constant", value_float=0.3, output="float_constant"), output="second")
    b.op("Add", second, b.op("Softmax", b.op("Mul", "input", "float_constant")), output="y")
    typed = to_float_type(b.model("y"), "float16")
    kinds = types(typed)
    assert kinds["tensor_constant"] == kinds["float_constant"] == "FLOAT16"
    assert initializer(typed, "tensor_constant") == np.float16(0.1)
    assert "Constant" not in op_types(typed)


def test_constant_read_in_both_types_exists_in_both() -> None:
    b = Builder((2, 8))
    shared = b.const(np.linspace(-1, 1, 8), "shared")
    low = b.op("Mul", "input", shared, output="low")
    b.op("Add", low, b.op("Pow", "input", shared, output="high"), output="y")
    typed = to_float_type(b.model("y"), "float16")
    kinds = types(typed)
    assert kinds["shared"] == "FLOAT"
    assert kinds["shared_float16"] == "FLOAT16"
    assert list(maker(typed, "low").input)[1] == "shared_float16"


def test_weight_behind_a_transpose_is_typed_at_once() -> None:
    b = Builder((2, 8))
    weight = b.op("Transpose", b.normal(5, 8, name="weight"), perm=[1, 0], output="weight_t")
    b.op("MatMul", "input", weight, output="y")
    typed = to_float_type(b.model("y"), "float16")
    assert op_types(typed) == ["Cast", "MatMul", "Cast"]
    assert initializer(typed, "weight_t_float16").shape == (8, 5)


def test_cast_to_float_stays_meaningful() -> None:
    b = Builder((2, 8))
    positions = b.op(
        "Cast", b.op("Cast", "input", to=TensorProto.INT32, output="ints"), to=TensorProto.FLOAT, output="floats"
    )
    b.op("Mul", positions, b.normal(8), output="y")
    typed = to_float_type(b.model("y", "ints"), "float16")
    kinds = types(typed)
    assert (kinds["ints"], kinds["floats"]) == ("INT32", "FLOAT")
    assert maker(typed, "y_inner").input[0] != "floats"


def float16_export() -> onnx.ModelProto:
    """A graph that its exporter wrote in FP16 with one FP32 island: Cast up, Exp and Mul, Cast down."""
    b = Builder((2, 8))
    half = b.op("Cast", "input", to=TensorProto.FLOAT16, output="half")
    b.initializers.append(numpy_helper.from_array(np.linspace(0.1, 1, 8).astype(np.float16), "half_weight"))
    y = b.op("Mul", half, "half_weight", output="before")
    wide = b.op("Cast", y, to=TensorProto.FLOAT, output="up")
    wide = b.op("Mul", wide, b.const(np.float32(1e6)), output="island")
    wide = b.op("Mul", wide, b.const(np.float32(1e-6)), output="island_end")
    b.op("Mul", b.op("Cast", wide, to=TensorProto.FLOAT16, output="down"), "half_weight", output="y")
    return b.model("y")


@pytest.mark.parametrize("float_type", ["float16", "bfloat16"])
def test_float32_island_of_a_16_bit_export_stays(float_type: FloatType) -> None:
    kinds = types(to_float_type(float16_export(), float_type))
    assert {kinds[name] for name in ("up", "island", "island_end")} == {"FLOAT"}
    assert {kinds[name] for name in ("half", "before", "down", "half_weight")} == {float_type.upper()}
    assert kinds["y"] == "FLOAT"


def test_weights_out_of_range_are_all_named_with_their_magnitude() -> None:
    b = Builder((2, 8))
    x = b.op("Mul", "input", b.const(np.array([7e4, -8e4] * 4), "too_large"))
    b.op("Mul", x, b.const(np.full(8, -1e5), "also_too_large"), output="y")
    with raises("EF307", 2, "float16", 65504, "'also_too_large' reaches 100000", "'too_large' reaches 80000"):
        to_float_type(b.model("y"), "float16")
    assert types(to_float_type(b.model("y"), "bfloat16"))["too_large"] == "BFLOAT16"


def test_weights_that_vanish_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    b = Builder((2, 8))
    b.op("Mul", "input", b.const(np.array([1e-9, 1.0, 0.0, 1e-8, 1, 1, 1, 1])), output="y")
    with caplog.at_level("INFO", logger="edgeformer"):
        to_float_type(b.model("y"), "float16")
    assert "2 nonzero weights become zero in float16" in caplog.text


def test_operators_of_other_domains_keep_float32() -> None:
    b = Builder((2, 8))
    y = b.op("Mul", "input", b.normal(8), output="before")
    y = b.op("Mul", b.op("Other", y, domain="example", output="other"), b.normal(8), output="y")
    graph = helper.make_graph(b.nodes, "g", b.inputs, [helper.make_tensor_value_info("y", 1, [2, 8])], b.initializers)
    graph.value_info.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [2, 8]))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("example", 1)]
    typed = to_float_type(helper.make_model(graph, opset_imports=opsets, ir_version=10), "float16")
    assert maker(typed, maker(typed, "other").input[0]).op_type == "Cast"
    declared = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
    assert declared["other"] == TensorProto.FLOAT


def test_untyped_tensor_is_refused_by_name() -> None:
    b = Builder((2, 8))
    b.op("Mul", b.op("Other", "input", domain="example", output="mystery"), b.normal(8), output="y")
    graph = helper.make_graph(b.nodes, "g", b.inputs, [helper.make_tensor_value_info("y", 1, [2, 8])], b.initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("example", 1)]
    with raises("EF306", "'mystery'", "'example'"):
        to_float_type(helper.make_model(graph, opset_imports=opsets, ir_version=10), "float16")


def test_control_flow_is_refused() -> None:
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [2])
    branch = helper.make_graph([helper.make_node("Identity", ["input"], ["inner"])], "branch", [], [out])
    node = helper.make_node("If", ["condition"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("input", 1, [2]),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    with raises("EF305", "If 'choice'"):
        to_float_type(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), "float16")


BITS = {"float16": 11, "bfloat16": 8}


def quantized(model: onnx.ModelProto, *layers: str, scale_bits: int = 11) -> onnx.ModelProto:
    index = GraphIndex(model)
    sites = [site for name in layers if not isinstance(site := layer_site(index, maker(model, name)), str)]
    values = run(model, image(model), *(site.activation for site in sites))
    ranges = {site.activation: float(np.abs(value).max()) for site, value in zip(sites, values, strict=True)}
    return insert_qdq(model, sites, ranges, scale_bits=scale_bits)


LAYERS = ("stem", "qkv_matmul", "wo_matmul", "fc1_matmul", "fc2_matmul", "downsample")


@pytest.mark.parametrize("float_type", ["float16", "bfloat16"])
def test_quantized_graph_takes_16_bit_scales_of_equal_value(float_type: FloatType) -> None:
    model = quantized(transformer(), *LAYERS, scale_bits=BITS[float_type])
    typed = to_float_type(model, float_type)
    check(typed)
    kinds = types(typed)
    for node in typed.graph.node:
        if node.op_type == "QuantizeLinear":
            assert [kinds[name] for name in node.input[:2]] == [float_type.upper()] * 2
            assert kinds[node.output[0]] == "INT8"
        if node.op_type == "DequantizeLinear":
            assert kinds[node.input[0]] == kinds[node.input[2]] == "INT8"
            assert kinds[node.output[0]] == kinds[node.input[1]] == float_type.upper()
            same = initializer(typed, node.input[1]).astype(np.float32) == initializer(model, node.input[1])
            assert np.all(same)
    assert [n.op_type for n in typed.graph.node].count("QuantizeLinear") == len(LAYERS)


@pytest.mark.parametrize(("float_type", "output"), [("float16", "FLOAT16"), ("bfloat16", "FLOAT")])
def test_int8_attention_keeps_its_scales(float_type: FloatType, output: str) -> None:
    model = transformer()
    place = attention_site(GraphIndex(model), maker(model, "bra_7"))
    assert isinstance(place, AttentionSite)
    ranges = {part.name: 2.3 for part in place.parts}
    model = insert_qdq(model, [], ranges, attention=[place], scale_bits=BITS[float_type])
    typed = to_float_type(model, float_type)
    check(typed)
    kinds = types(typed)
    (node,) = (node for node in typed.graph.node if bra.is_op(node))
    # BF16 is not an output of the op's INT8 form: it gives FLOAT, and a Cast makes BF16 of it.
    assert (kinds[node.input[0]], kinds[node.output[0]]) == ("INT8", output)
    quantizer = maker(typed, node.input[0])
    assert [kinds[name] for name in quantizer.input] == [float_type.upper()] * 2 + ["INT8"]
    steps = initializer(typed, quantizer.input[1]).astype(np.float32)
    assert np.array_equal(steps, initializer(model, quantizer.input[1]))
    attributes = bra.Attributes.from_node(node)
    assert (attributes.q_scale, attributes.k_scale, attributes.v_scale) == tuple(steps[[0, 8, 16]])


def test_quantized_float16_network_stays_close_to_the_quantized_float32_one() -> None:
    model = quantized(transformer(), *LAYERS)
    typed = to_float_type(model, "float16")
    x = image(model, seed=2)
    # FP16 moves values across rounding borders of INT8, each by one step of an 8-bit signal.
    assert snr_db(run(model, x)[0], run(typed, x)[0]) > 30
    assert snr_db(run(typed, x)[0], run(typed, x, optimize=True)[0]) > 35


def test_bfloat16_refuses_scales_that_it_would_round() -> None:
    b = Builder(("batch", 3, 16, 16))
    b.op("Relu", b.conv("input", 3, 8, 3, "stem"), output="y")
    model = b.model("y")
    index = GraphIndex(model)
    site = layer_site(index, index.producer["stem"])
    assert isinstance(site, LayerSite)
    with raises("EF548", "2 Q/DQ pairs", "scale_bits=8"):
        to_float_type(insert_qdq(model, [site], {"input": 1.0}), "bfloat16")
    typed = to_float_type(insert_qdq(model, [site], {"input": 1.0}, scale_bits=8), "bfloat16")
    assert "BFLOAT16" in types(typed).values()
