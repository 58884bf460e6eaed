from __future__ import annotations

import json

import numpy as np
import pytest

from edgeformer.ops.bi_level_routing_attention import reference_routing
from edgeformer.verify.decisions import RoutingOutput
from edgeformer.verify.routing import RoutingAccumulator, compare_routing
from tests.raising import raises
from tests.verify.conftest import ATTRIBUTES, gather_attention, linear_model, routing_model

A, B = RoutingOutput("a", 1, 0), RoutingOutput("b", None, 3)


def inputs(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4, 6, 12)).astype(np.float32)


def test_sets_are_compared_not_orders() -> None:
    accumulator = RoutingAccumulator((A,), (B,))
    want = np.array([[[0, 1, 2], [3, 1, 0]]])
    accumulator.update({"a": want}, {"b": np.array([[[2, 0, 1], [0, 1, 2]]])})
    accumulator.update({"a": want}, {"b": np.array([[[4, 5, 6], [3, 0, 1]]])})
    block = accumulator.result().blocks[0]
    assert (block.stage, block.block, block.topk, block.rows) == (1, 0, 3, 4)
    assert block.agreement == 2 / 4
    assert block.overlap == pytest.approx((3 + 2 + 0 + 3) / 12)


def test_equal_indices_of_different_rows_do_not_count() -> None:
    accumulator = RoutingAccumulator((A,), (A,))
    accumulator.update({"a": np.array([[[0, 1], [2, 3]]])}, {"a": np.array([[[2, 3], [0, 1]]])})
    assert accumulator.result().overlap == 0.0


def test_mean_over_blocks_and_stages() -> None:
    names = (RoutingOutput("a", 0, 0), RoutingOutput("b", 2, 0), RoutingOutput("c", 2, 1))
    accumulator = RoutingAccumulator(names, names)
    zero, one = np.zeros((1, 2, 1), np.int64), np.ones((1, 2, 1), np.int64)
    half = np.array([[[0], [1]]])
    accumulator.update({"a": zero, "b": zero, "c": zero}, {"a": zero, "b": one, "c": half})
    result = accumulator.result()
    assert [block.agreement for block in result.blocks] == [1.0, 0.0, 0.5]
    assert result.agreement == 0.5
    assert result.stages == {0: 1.0, 2: 0.25}
    document = json.loads(result.model_dump_json())
    assert document["stages"] == {"0": 1.0, "2": 0.25}
    assert document["blocks"][1]["agreement"] == 0.0


def test_a_graph_agrees_with_itself() -> None:
    x = [{"input": inputs(3, seed=5)}, {"input": inputs(2, seed=6)}]
    result = compare_routing(routing_model(), routing_model(named=False), x)
    assert (result.agreement, result.overlap) == (1.0, 1.0)
    assert [(block.topk, block.rows) for block in result.blocks] == [(1, 20), (3, 20)]


def test_a_shifted_query_moves_the_first_blocks_regions() -> None:
    x = inputs(4, seed=7)
    shifted = x.copy()
    shifted[..., :3] += 0.75
    want, have = reference_routing(x, ATTRIBUTES[0]), reference_routing(shifted, ATTRIBUTES[0])
    expected = float((want == have).all(-1).mean())
    assert 0.0 < expected < 1.0
    result = compare_routing(routing_model(), routing_model(shift=0.75), [{"input": x}])
    assert result.blocks[0].agreement == expected
    assert result.blocks[1].overlap >= result.blocks[1].agreement


def test_a_gain_changes_nothing() -> None:
    """Scaling q and k scales all logits of a row alike."""
    result = compare_routing(routing_model(), routing_model(gains=(1.0, 2.0)), [{"input": inputs(2, seed=8)}])
    assert result.agreement == 1.0


def test_no_block_routes() -> None:
    model = linear_model(np.eye(3))
    with raises("EF814", "no block"):
        compare_routing(model, model, [{"input": np.zeros((1, 3), np.float32)}])


def test_no_sample() -> None:
    with raises("EF813"):
        compare_routing(routing_model(), routing_model(), [])


def test_different_numbers_of_blocks() -> None:
    with raises("EF814", "2 blocks", "candidate in 1"):
        compare_routing(routing_model(), gather_attention("one"), [])


def test_different_numbers_of_regions() -> None:
    accumulator = RoutingAccumulator((A,), (A,))
    with raises("EF814", "block 0", (1, 4, 2), (1, 9, 2)):
        accumulator.update({"a": np.zeros((1, 4, 2), int)}, {"a": np.zeros((1, 9, 2), int)})
