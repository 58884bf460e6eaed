"""Which channels of a projection are q, k and v, found by sending numbers through the block."""

from __future__ import annotations

import pytest
import torch

from edgeformer.graph.fusion.anchors import find_anchors
from edgeformer.graph.fusion.candidate import Candidate
from edgeformer.graph.fusion.columns import find_columns
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import observe
from edgeformer.graph.fusion.stacking import Columns
from tests.graph.blocks import Block, torchscript

Q, K, V = (tuple(range(start, start + 16)) for start in (0, 16, 32))
HEADS = [tuple(range(start, start + 8)) for start in range(0, 48, 8)]


def found(linear: str, linears: int) -> list[Columns]:
    """What is found along the first route with so many Linears."""
    torch.manual_seed(0)
    model = torchscript(Block(linear=linear), torch.randn(2, 8, 8, 16))
    flow = Dataflow(model)
    (anchors,) = find_anchors(flow)
    candidate = Candidate.of(flow, anchors)
    (observation,) = observe(model, [{"input": (2, 8, 8, 16)}], candidate.statics(flow), candidate.data)
    route = next(route for route in candidate.routes if len(route.linears) == linears)
    return find_columns(flow, model.opset_import, anchors, route, "NHWC", observation)


@pytest.mark.parametrize(
    ("linear", "linears", "query", "key", "value"),
    [
        ("image", 1, Q, K, V),
        ("value_first", 1, V, K, Q),
        # Per head its queries, keys and values.
        ("by_head", 1, (*HEADS[0], *HEADS[3]), (*HEADS[1], *HEADS[4]), (*HEADS[2], *HEADS[5])),
        ("separate", 3, V, K, Q),  # the exporter writes them in the order in which they were computed
        ("q_vk", 2, Q, V, K),
        ("qk_v", 2, Q, K, V),
        ("key_is_value", 2, K, Q, Q),
    ],
)
def test_channels_are_told_apart(linear: str, linears: int, query: object, key: object, value: object) -> None:
    first, second = found(linear, linears)
    parts = [(one.indices[:16], one.indices[16:32], one.indices[32:]) for one in (first, second)]
    # By the routing alone the queries cannot be told from the keys: the second guess has them the other way round.
    assert parts == [(query, key, value), (key, query, value)]
    assert first.qk_dim == second.qk_dim == 16
