from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeformer.errors import InputError
from edgeformer.ops.bi_level_routing_attention import reference, reference_routing
from edgeformer.runtime import OnnxSession
from edgeformer.verify.routing import RoutingAccumulator, RoutingOutput, compare_routing, expose_routing
from tests.runtime.conftest import make_model
from tests.verify.conftest import ATTRIBUTES, linear_model, routing_model

A, B = RoutingOutput("a", 1, 0), RoutingOutput("b", None, 3)


def inputs(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4, 6, 12)).astype(np.float32)


def test_sets_are_compared_not_orders():
    accumulator = RoutingAccumulator((A,), (B,))
    want = np.array([[[0, 1, 2], [3, 1, 0]]])
    accumulator.update({"a": want}, {"b": np.array([[[2, 0, 1], [0, 1, 2]]])})
    accumulator.update({"a": want}, {"b": np.array([[[4, 5, 6], [3, 0, 1]]])})
    block = accumulator.result().blocks[0]
    assert (block.stage, block.block, block.topk, block.rows) == (1, 0, 3, 4)
    assert block.agreement == 2 / 4
    assert block.overlap == pytest.approx((3 + 2 + 0 + 3) / 12)


def test_equal_indices_of_different_rows_do_not_count():
    accumulator = RoutingAccumulator((A,), (A,))
    accumulator.update({"a": np.array([[[0, 1], [2, 3]]])}, {"a": np.array([[[2, 3], [0, 1]]])})
    assert accumulator.result().overlap == 0.0


def test_mean_over_blocks_and_stages():
    names = (RoutingOutput("a", 0, 0), RoutingOutput("b", 2, 0), RoutingOutput("c", 2, 1))
    accumulator = RoutingAccumulator(names, names)
    zero, one = np.zeros((1, 2, 1), np.int64), np.ones((1, 2, 1), np.int64)
    half = np.array([[[0], [1]]])
    accumulator.update({"a": zero, "b": zero, "c": zero}, {"a": zero, "b": one, "c": half})
    result = accumulator.result()
    assert [block.agreement for block in result.blocks] == [1.0, 0.0, 0.5]
    assert result.agreement == 0.5
    assert result.by_stage() == {0: 1.0, 2: 0.25}
    assert result.to_dict()["stages"] == {"0": 1.0, "2": 0.25}
    assert result.to_dict()["blocks"][1]["agreement"] == 0.0


def test_exposed_indices_are_the_ops_own():
    model, outputs = expose_routing(routing_model())
    x = inputs(2, seed=3)
    found = OnnxSession(model).run({"input": x})
    assert [(output.stage, output.block) for output in outputs] == [(0, 5), (2, 5)]
    first = reference_routing(x, ATTRIBUTES[0])
    np.testing.assert_array_equal(found[outputs[0].name], first)
    middle = np.tile(reference(x, ATTRIBUTES[0]), 3)
    np.testing.assert_array_equal(
        np.sort(found[outputs[1].name], -1), np.sort(reference_routing(middle, ATTRIBUTES[1]), -1)
    )


def test_exposing_leaves_the_model_and_its_outputs_alone():
    model = routing_model()
    before = model.SerializeToString()
    exposed, _ = expose_routing(model)
    assert model.SerializeToString() == before
    x = inputs(1, seed=4)
    np.testing.assert_array_equal(
        OnnxSession(exposed).run({"input": x})["logits"], OnnxSession(model).run({"input": x})["logits"]
    )


def test_weights_without_such_names():
    _, outputs = expose_routing(routing_model(named=False))
    assert [(output.stage, output.block) for output in outputs] == [(None, 0), (None, 1)]


def test_weights_that_two_blocks_share_are_not_believed():
    model = routing_model()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name.startswith("stages.2"):
                node.input[index] = "again"
    extra = model.graph.node.add()
    extra.CopyFrom(helper.make_node("Slice", ["stages.0.5.attn.qkv.weight", "zero", "four"], ["again"]))
    model.graph.node.insert(0, model.graph.node.pop())
    model.graph.initializer.extend(
        [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("zero", 0), ("four", 4))]
    )
    exposed, outputs = expose_routing(model)
    assert [(output.stage, output.block) for output in outputs] == [(None, 0), (None, 1)]
    assert OnnxSession(exposed).run({"input": inputs(1, seed=1)})[outputs[0].name].shape == (1, 4, 1)


def test_a_graph_agrees_with_itself():
    x = [{"input": inputs(3, seed=5)}, {"input": inputs(2, seed=6)}]
    result = compare_routing(routing_model(), routing_model(named=False), x)
    assert (result.agreement, result.overlap) == (1.0, 1.0)
    assert [(block.topk, block.rows) for block in result.blocks] == [(1, 20), (3, 20)]


def test_a_shifted_query_moves_the_first_blocks_regions():
    x = inputs(4, seed=7)
    shifted = x.copy()
    shifted[..., :3] += 0.75
    want, have = reference_routing(x, ATTRIBUTES[0]), reference_routing(shifted, ATTRIBUTES[0])
    expected = float((want == have).all(-1).mean())
    assert 0.0 < expected < 1.0
    result = compare_routing(routing_model(), routing_model(shift=0.75), [{"input": x}])
    assert result.blocks[0].agreement == expected
    assert result.blocks[1].overlap >= result.blocks[1].agreement


def test_a_gain_changes_nothing():
    """Scaling q and k scales all logits of a row alike."""
    result = compare_routing(routing_model(), routing_model(gains=(1.0, 2.0)), [{"input": inputs(2, seed=8)}])
    assert result.agreement == 1.0


def topk_model(index_output: bool):
    values = [("v", TensorProto.FLOAT, ["n", 2]), ("i", TensorProto.INT64, ["n", 2])]
    return make_model(
        [helper.make_node("TopK", ["x", "k"], ["v", "i"])],
        [("x", TensorProto.FLOAT, ["n", 5])],
        values if index_output else values[:1],
        {"k": np.array([2])},
    )


@pytest.mark.parametrize("index_output", [True, False])
def test_indices_become_an_output_once(index_output):
    exposed, outputs = expose_routing(topk_model(index_output))
    assert [output.name for output in exposed.graph.output] == ["v", "i"]
    assert [output.name for output in outputs] == ["i"]
    found = OnnxSession(exposed).run({"x": np.array([[0, 5, 1, 7, 2]], np.float32)})
    np.testing.assert_array_equal(found["i"], [[3, 1]])


def test_no_block_routes():
    model = linear_model(np.eye(3))
    assert expose_routing(model)[1] == ()
    with pytest.raises(InputError, match="no block routes"):
        compare_routing(model, model, [{"input": np.zeros((1, 3), np.float32)}])


def test_no_sample():
    with pytest.raises(InputError, match="no sample"):
        compare_routing(routing_model(), routing_model(), [])


def test_different_numbers_of_blocks():
    with pytest.raises(InputError, match="reference routes in 2 blocks, the candidate in 1"):
        compare_routing(routing_model(), topk_model(False), [])


def test_different_numbers_of_regions():
    accumulator = RoutingAccumulator((A,), (A,))
    with pytest.raises(InputError, match=r"block 0: the reference is \(1, 4, 2\), the candidate \(1, 9, 2\)"):
        accumulator.update({"a": np.zeros((1, 4, 2), int)}, {"a": np.zeros((1, 9, 2), int)})
