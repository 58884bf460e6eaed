"""The op against a second, independent formulation, its ONNX body in ONNX Runtime, and its attribute rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.ops import bi_level_routing_attention as bra
from tests.raising import raises

# n, h, w, num_heads, regions, topk, qk_dim, dim
SHAPES = {
    "stage1": (2, 28, 28, 2, 7, 1, 64, 64),
    "stage2": (1, 14, 14, 4, 7, 4, 32, 32),
    "one_token_regions": (1, 7, 7, 2, 7, 16, 16, 16),
    "rectangular": (3, 6, 15, 3, 3, 2, 24, 24),
    "all_regions": (1, 8, 4, 1, 2, 4, 8, 8),
    "one_region": (2, 5, 3, 1, 1, 1, 4, 4),
    "narrow_queries": (1, 6, 6, 2, 3, 5, 8, 20),
}


def _case(name: str) -> tuple[bra.Attributes, np.ndarray]:
    n, h, w, heads, regions, topk, qk_dim, dim = SHAPES[name]
    rng = np.random.default_rng(sorted(SHAPES).index(name))
    # Region offsets make the top-k decisive: without them region means of noise nearly tie.
    qkv = rng.standard_normal((n, h, w, 2 * qk_dim + dim))
    tiles = rng.standard_normal((n, regions, 1, regions, 1, 2 * qk_dim + dim))
    qkv += np.broadcast_to(tiles, (n, regions, h // regions, regions, w // regions, 2 * qk_dim + dim)).reshape(
        qkv.shape
    )
    return bra.Attributes(heads, regions, topk, qk_dim, qk_dim**-0.5), qkv.astype(np.float32)


def _one_token(qkv: np.ndarray, attributes: bra.Attributes, n: int, y: int, x: int) -> np.ndarray:
    """The op's output at one token straight from the definition, by loops over positions rather than reshapes."""
    _, height, width, channels = qkv.shape
    side, qk = attributes.regions, attributes.qk_dim
    rows, columns = height // side, width // side

    def tokens(region: int) -> list[np.ndarray]:
        top, left = region // side * rows, region % side * columns
        return [qkv[n, top + i, left + j].astype(np.float64) for i in range(rows) for j in range(columns)]

    mine = (y // rows) * side + x // columns
    query_mean = np.mean([token[:qk] for token in tokens(mine)], axis=0)
    logits = [
        attributes.scale * query_mean @ np.mean([token[qk : 2 * qk] for token in tokens(region)], axis=0)
        for region in range(side * side)
    ]
    picked = sorted(range(side * side), key=lambda region: (-logits[region], region))[: attributes.topk]
    attended = [token for region in picked for token in tokens(region)]
    dim = channels - 2 * qk
    output = np.empty(dim)
    for head in range(attributes.num_heads):
        q_part = slice(head * qk // attributes.num_heads, (head + 1) * qk // attributes.num_heads)
        v_part = slice(head * dim // attributes.num_heads, (head + 1) * dim // attributes.num_heads)
        query = qkv[n, y, x, :qk].astype(np.float64)[q_part]
        scores = np.array([attributes.scale * query @ token[qk : 2 * qk][q_part] for token in attended])
        weights = np.exp(scores - scores.max())
        output[v_part] = weights @ np.array([token[2 * qk :][v_part] for token in attended]) / weights.sum()
    return output


def _model(attributes: bra.Attributes, element: int, output: int, lepe: Sequence[np.ndarray] = ()) -> onnx.ModelProto:
    names = dict(zip(("lepe_weight", "lepe_bias"), lepe, strict=False))
    graph = helper.make_graph(
        [attributes.make_node("qkv", "out", "bra", **{name: name for name in names})],
        "op",
        [helper.make_tensor_value_info("qkv", element, ["n", "h", "w", None])],
        [helper.make_tensor_value_info("out", output, ["n", "h", "w", "dim"])],
        [numpy_helper.from_array(value, name) for name, value in names.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bra.with_function(model)


def _run(model: onnx.ModelProto, qkv: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"qkv": qkv})[0])


@pytest.mark.parametrize("name", SHAPES)
def test_reference_matches_the_definition_token_by_token(name: str) -> None:
    attributes, qkv = _case(name)
    output = bra.reference(qkv, attributes)
    assert output.shape == (*qkv.shape[:3], SHAPES[name][7])
    rng = np.random.default_rng(7)
    for _ in range(6):
        n, y, x = (int(rng.integers(size)) for size in qkv.shape[:3])
        np.testing.assert_allclose(output[n, y, x], _one_token(qkv, attributes, n, y, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_body_matches_the_reference_in_fp32(name: str) -> None:
    attributes, qkv = _case(name)
    expected = bra.reference(qkv, attributes)
    got = _run(_model(attributes, TensorProto.FLOAT, TensorProto.FLOAT), qkv)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("name", SHAPES)
def test_body_matches_the_reference_in_fp16(name: str) -> None:
    attributes, qkv = _case(name)
    half = qkv.astype(np.float16)
    expected = bra.reference(half, attributes)
    got = _run(_model(attributes, TensorProto.FLOAT16, TensorProto.FLOAT16), half)
    assert got.dtype == np.float16
    # A few FP16 roundings (scaled query, logits, weights, output) of 2 ** -11 each.
    assert np.abs(got - expected).max() <= 4e-3 * np.abs(expected).max()


@pytest.mark.parametrize("output_type", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_int8_body_dequantizes_each_part_with_its_own_scale(output_type: int) -> None:
    attributes, qkv = _case("narrow_queries")
    attributes = dataclasses.replace(attributes, q_scale=0.02, k_scale=0.03, v_scale=0.05, output_type=output_type)
    levels = np.clip(np.rint(qkv / 0.03), -128, 127).astype(np.int8)
    steps = np.concatenate([np.full(8, 0.02), np.full(8, 0.03), np.full(20, 0.05)])
    plain = bra.Attributes(
        attributes.num_heads, attributes.regions, attributes.topk, attributes.qk_dim, attributes.scale
    )
    expected = bra.reference(levels * steps, plain)
    np.testing.assert_allclose(bra.reference(levels, attributes), expected, rtol=1e-12)
    got = _run(_model(attributes, TensorProto.INT8, output_type), levels)
    assert got.dtype == helper.tensor_dtype_to_np_dtype(output_type)
    tolerance = 2e-6 if output_type == TensorProto.FLOAT else 2.0**-11
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def _with_lepe(name: str, kernel: int) -> tuple[bra.Attributes, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    attributes, qkv = _case(name)
    dim = SHAPES[name][7]
    rng = np.random.default_rng(kernel)
    weight, bias = rng.standard_normal((kernel, kernel, dim)) / kernel, rng.standard_normal(dim)
    lepe = (weight.astype(np.float32), bias.astype(np.float32))
    return dataclasses.replace(attributes, lepe_kernel=kernel, dim=dim), qkv, lepe


def _lepe_of_one_token(qkv: np.ndarray, dim: int, lepe: Sequence[np.ndarray], n: int, y: int, x: int) -> np.ndarray:
    """LePE at one token straight from the definition: what lies outside the image counts as zero."""
    weight, bias = (given.astype(np.float64) for given in lepe)
    margin = len(weight) // 2
    total: np.ndarray = bias.copy()
    for row in range(y - margin, y + margin + 1):
        for column in range(x - margin, x + margin + 1):
            if 0 <= row < qkv.shape[1] and 0 <= column < qkv.shape[2]:
                total += weight[row - y + margin, column - x + margin] * qkv[n, row, column, -dim:].astype(np.float64)
    return total


# Maps larger than the kernel, smaller than it, of one token, and with borders everywhere.
LEPE_CASES = [
    ("stage2", 5), ("rectangular", 3), ("rectangular", 7), ("all_regions", 5), ("one_region", 7), ("one_region", 1),
    ("narrow_queries", 5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kernel"), LEPE_CASES)
def test_reference_adds_lepe_by_its_definition(name: str, kernel: int) -> None:
    attributes, qkv, lepe = _with_lepe(name, kernel)
    added = bra.reference(qkv, attributes, *lepe) - bra.reference(qkv, _case(name)[0])
    _, height, width, _ = qkv.shape
    for y, x in {(0, 0), (0, width - 1), (height - 1, 0), (height // 2, width // 2), (height - 1, width - 1)}:
        expected = _lepe_of_one_token(qkv, SHAPES[name][7], lepe, 0, y, x)
        np.testing.assert_allclose(added[0, y, x], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "kernel"), LEPE_CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float16, 4e-3)])
def test_body_with_lepe_matches_the_reference(
    name: str, kernel: int, dtype: type[np.floating[Any]], tolerance: float
) -> None:
    attributes, qkv, lepe = _with_lepe(name, kernel)
    weight, bias = (given.astype(dtype) for given in lepe)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    expected = bra.reference(qkv.astype(dtype), attributes, weight, bias)
    got = _run(_model(attributes, element, element, (weight, bias)), qkv.astype(dtype))
    assert got.dtype == dtype
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("output_type", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_int8_body_takes_lepe_of_the_dequantized_values(output_type: int) -> None:
    attributes, qkv, lepe = _with_lepe("narrow_queries", 5)
    attributes = dataclasses.replace(attributes, q_scale=0.02, k_scale=0.03, v_scale=0.05, output_type=output_type)
    dtype = helper.tensor_dtype_to_np_dtype(output_type)
    weight, bias = lepe[0].astype(dtype), lepe[1].astype(dtype)
    levels = np.clip(np.rint(qkv / 0.03), -128, 127).astype(np.int8)
    expected = bra.reference(levels, attributes, weight, bias)
    at_zero = bra.reference(levels, dataclasses.replace(attributes, lepe_kernel=None, dim=None))[0, 0, 0]
    values = levels * np.float64(0.05)
    np.testing.assert_allclose(
        expected[0, 0, 0] - at_zero, _lepe_of_one_token(values, 20, (weight, bias), 0, 0, 0), rtol=1e-9, atol=1e-9
    )
    got = _run(_model(attributes, TensorProto.INT8, output_type, (weight, bias)), levels)
    assert got.dtype == dtype
    tolerance = 2e-6 if output_type == TensorProto.FLOAT else 2.0**-11
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def test_ties_go_to_the_lowest_region() -> None:
    attributes = bra.Attributes(num_heads=1, regions=3, topk=4, qk_dim=2, scale=0.5)
    qkv = np.ones((1, 3, 3, 6), np.float32)
    assert bra.reference_routing(qkv, attributes).tolist() == [[[0, 1, 2, 3]] * 9]
    qkv[0, 1, 2, 2:4] = 3.0  # region 5 has the best key, the others tie
    assert bra.reference_routing(qkv, attributes).tolist() == [[[5, 0, 1, 2]] * 9]


@pytest.mark.parametrize(("size", "qk_dim"), [(16, 32), (48, 96)])
def test_int8_regions_tie_where_their_integers_do(size: int, qk_dim: int) -> None:
    """Steps and scale that are no powers of two, 1 and 9 tokens a region: rounded, they would part equal logits."""
    attributes = bra.Attributes(
        num_heads=1, regions=16, topk=32, qk_dim=qk_dim, scale=qk_dim**-0.5, q_scale=0.02, k_scale=0.03, v_scale=0.01,
        output_type=TensorProto.FLOAT,
    )  # fmt: skip
    qkv = np.random.default_rng(5).integers(-3, 4, (1, size, size, 3 * qk_dim), np.int8)
    sums = qkv.astype(np.int64).reshape(16, size // 16, 16, size // 16, -1).sum(axis=(1, 3)).reshape(256, -1)
    logits = sums[:, :qk_dim] @ sums[:, qk_dim : 2 * qk_dim].T
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :32]
    best = np.take_along_axis(logits, order, axis=-1)
    assert (best[:, 1:] == best[:, :-1]).sum() > 100
    np.testing.assert_array_equal(bra.reference_routing(qkv, attributes)[0], order)


def test_nan_logits_are_picked_first() -> None:
    attributes = bra.Attributes(num_heads=1, regions=2, topk=2, qk_dim=1, scale=1.0)
    qkv = np.ones((1, 2, 2, 3), np.float32)
    qkv[0, 1, 0, 1] = np.nan
    assert bra.reference_routing(qkv, attributes).tolist() == [[[2, 0]] * 4]
    qkv[0, 0, 1, 1] = np.inf  # region 1 answers with +infinity, which comes after NaN and before all finite logits
    assert bra.reference_routing(qkv, attributes).tolist() == [[[2, 1]] * 4]


def test_wrong_routing_would_be_seen() -> None:
    """The FP32 tolerance is far below what one wrong region costs, so the body tests do check routing."""
    attributes, qkv = _case("stage2")
    other = dataclasses.replace(attributes, topk=3)
    difference = np.abs(bra.reference(qkv, attributes) - bra.reference(qkv, other)).max()
    assert difference > 1e-2


@pytest.mark.parametrize("name", ["stage2", "narrow_queries"])
def test_node_round_trip(name: str) -> None:
    attributes, _ = _case(name)
    node = attributes.make_node("qkv", "out", "bra")
    again = bra.Attributes.from_node(node)
    assert again == dataclasses.replace(attributes, scale=float(np.float32(attributes.scale)))
    assert (node.domain, node.op_type, list(node.input), list(node.output)) == (
        "edgeformer", "BiLevelRoutingAttention", ["qkv"], ["out"],
    )  # fmt: skip


def test_node_with_lepe_round_trip() -> None:
    attributes, _, _ = _with_lepe("narrow_queries", 5)
    node = attributes.make_node("qkv", "out", "bra", lepe_weight="w", lepe_bias="b")
    again = bra.Attributes.from_node(node)
    assert (again.lepe_kernel, again.dim, again.lepe) == (5, 20, True)
    assert list(node.input) == ["qkv", "w", "b"]


def test_lepe_and_its_tensors_go_together() -> None:
    attributes, qkv, (weight, bias) = _with_lepe("narrow_queries", 5)
    plain = _case("narrow_queries")[0]
    with raises("EF904", "lepe_kernel=5", "lepe_weight=w", "lepe_bias=None"):
        attributes.make_node("qkv", "out", "bra", lepe_weight="w")
    with raises("EF904", "lepe_kernel=None", "lepe_weight=w", "lepe_bias=b"):
        plain.make_node("qkv", "out", "bra", lepe_weight="w", lepe_bias="b")
    node = attributes.make_node("qkv", "out", "bra", lepe_weight="w", lepe_bias="b")
    del node.input[1:]
    with raises("EF902", "'bra'", "1 inputs", "qkv, lepe_weight and lepe_bias"):
        bra.Attributes.from_node(node)
    node = plain.make_node("qkv", "out", "bra")
    node.input.extend(["w", "b"])
    with raises("EF902", "'bra'", "3 inputs", "qkv alone"):
        bra.Attributes.from_node(node)
    with raises("EF903", "lepe_weight of shape None", "(5, 5, 20) and (20,)"):
        bra.reference(qkv, attributes)
    with raises("EF903", "lepe_weight of shape (3, 5, 20)", "(5, 5, 20)"):
        bra.reference(qkv, attributes, weight[1:4], bias)
    with raises("EF903", "None and None"):
        bra.reference(qkv, plain, weight, bias)


_QUANTIZATION = ["q_scale", "k_scale", "v_scale", "output_type"]
GOOD: dict[str, Any] = {"num_heads": 2, "regions": 7, "topk": 4, "qk_dim": 64, "scale": 0.125}


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"num_heads": 0}, ("num_heads=0", "at least 1")),
        ({"regions": -1}, ("regions=-1", "at least 1")),
        ({"topk": 50}, ("topk=50", "regions ** 2 = 49")),
        ({"qk_dim": 63}, ("qk_dim=63", "num_heads=2")),
        ({"scale": float("nan")}, ("scale=nan", "positive and finite")),
        ({"scale": 0.0}, ("scale=0.0", "positive and finite")),
        ({"q_scale": 0.1}, ("k_scale=None", "q_scale, k_scale, v_scale")),
        ({"q_scale": 0.1, "k_scale": 0.1, "v_scale": 0.0, "output_type": 1}, ("v_scale=0.0",)),
        ({"q_scale": 0.1, "k_scale": 0.1, "v_scale": 0.1}, ("output_type=None", "1 (FLOAT) or 10 (FLOAT16)")),
        ({"output_type": 1}, ("output_type=1", "INT8")),
        ({"lepe_kernel": 4, "dim": 64}, ("lepe_kernel=4", "odd", "at most 7")),
        ({"lepe_kernel": 9, "dim": 64}, ("lepe_kernel=9",)),
        ({"lepe_kernel": -1, "dim": 64}, ("lepe_kernel=-1",)),
        ({"lepe_kernel": 5}, ("dim=None", "num_heads=2")),
        ({"lepe_kernel": 5, "dim": 63}, ("dim=63", "num_heads=2")),
        ({"dim": 64}, ("dim=64", "lepe_kernel")),
    ],
)
def test_attributes_out_of_range_are_refused(change: dict[str, Any], values: tuple[str, ...]) -> None:
    with raises("EF901", *values):
        bra.Attributes(**{**GOOD, **change})


def test_every_fault_is_listed_at_once() -> None:
    with raises("EF901", "num_heads=0", "regions=0", "scale=-1.0"):
        bra.Attributes(num_heads=0, regions=0, topk=1, qk_dim=8, scale=-1.0)


def test_node_faults_are_listed_at_once() -> None:
    node = helper.make_node(
        "BiLevelRoutingAttention", ["a"], ["b"], name="n", domain="edgeformer", num_heads=1.0, regions=2, extra=1
    )
    with raises("EF902", "'n'", "'num_heads' must be INT", "unknown attribute 'extra'", "'topk' is", "'scale' is"):
        bra.Attributes.from_node(node)
    with raises("EF902", "'r'", "::Relu", "edgeformer::BiLevelRoutingAttention"):
        bra.Attributes.from_node(helper.make_node("Relu", ["a"], ["b"], name="r"))


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((14, 14, 192), ("(14, 14, 192)", "[N, H, W, channels]")),
        ((1, 13, 14, 192), ("H=13", "regions=7", "auto_pad")),
        ((1, 14, 20, 192), ("W=20", "regions=7", "auto_pad")),
        ((1, 14, 14, 128), ("128 channels", "qk_dim=64", "num_heads=2")),
        ((1, 14, 14, 131), ("131 channels", "qk_dim=64", "num_heads=2")),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...], values: tuple[str, ...]) -> None:
    attributes = bra.Attributes(**GOOD)
    with raises("EF903", *values):
        attributes.check_shape(shape)
    if len(shape) == 4:
        with raises("EF903", *values):
            bra.reference(np.zeros(shape, np.float32), attributes)


def test_values_must_be_as_wide_as_dim_says() -> None:
    attributes = bra.Attributes(**GOOD, lepe_kernel=5, dim=64)
    attributes.check_shape((1, 14, 14, 192))
    with raises("EF903", "160 channels", "qk_dim=64", "leaves 32", "dim is 64"):
        attributes.check_shape((1, 14, 14, 160))


def test_with_function_is_pure_and_idempotent() -> None:
    attributes, _ = _case("stage2")
    model = _model(attributes, TensorProto.FLOAT, TensorProto.FLOAT)
    before = model.SerializeToString(deterministic=True)
    again = bra.with_function(model)
    assert model.SerializeToString(deterministic=True) == before
    assert again.SerializeToString(deterministic=True) == before
    stripped = bra.without_function(model)
    assert len(model.functions) == 1
    assert len(stripped.functions) == 0
    assert [node.op_type for node in stripped.graph.node] == ["BiLevelRoutingAttention"]


def test_int8_and_float_nodes_cannot_share_one_function() -> None:
    plain = bra.Attributes(**GOOD)
    int8 = bra.Attributes(**GOOD, q_scale=0.1, k_scale=0.1, v_scale=0.1, output_type=10)
    graph = helper.make_graph([plain.make_node("a", "b", "x"), int8.make_node("c", "d", "y")], "mixed", [], [])
    with raises("EF906", "BiLevelRoutingAttention", "INT8"):
        bra.with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def test_nodes_with_and_without_lepe_cannot_share_one_function() -> None:
    plain = bra.Attributes(**GOOD)
    lepe = bra.Attributes(**GOOD, lepe_kernel=5, dim=64)
    nodes = [plain.make_node("a", "b", "x"), lepe.make_node("c", "d", "y", lepe_weight="w", lepe_bias="b")]
    with raises("EF906", "BiLevelRoutingAttention", "LePE"):
        bra.with_function(helper.make_model(helper.make_graph(nodes, "mixed", [], [])))


@pytest.mark.parametrize("lepe", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_every_value_of_the_body_is_named_once(quantized: bool, lepe: bool) -> None:
    function = bra.function_proto(quantized=quantized, lepe=lepe)
    names = [name for node in function.node for name in node.output]
    assert all(name not in ("", "_") for name in names)
    assert len(set(names)) == len(names)
    assert [(opset.domain, opset.version) for opset in function.opset_import] == [("", 18)]
    extra = [*(["lepe_kernel", "dim"] if lepe else []), *(_QUANTIZATION if quantized else [])]
    assert list(function.input)[1:] == (["lepe_weight", "lepe_bias"] if lepe else [])
    assert list(function.attribute) == ["num_heads", "regions", "topk", "qk_dim", "scale", *extra]
