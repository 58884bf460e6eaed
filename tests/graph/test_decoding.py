"""Outputs behind a ranking are found; routing is none."""

from __future__ import annotations

import numpy as np

from edgeformer.graph.decoding import decoded_outputs
from tests.graph.blocks import Block, dynamo
from tests.graph.precision_graphs import Builder


def test_outputs_behind_a_top_k() -> None:
    build = Builder((1, 8))
    count = build.const(np.asarray([3], np.int64))
    scores = build.op("Relu", "input", output="scores")
    build.op("TopK", scores, count, output="best", outputs=2)
    picked = build.op("GatherElements", "input", "best_1", output="picked", axis=1)
    model = build.model("scores", "best", picked)
    assert decoded_outputs(model) == {"best": "TopK 'node_best'", "picked": "TopK 'node_best'"}


def test_routing_is_no_decoding() -> None:
    import torch

    torch.manual_seed(0)
    assert decoded_outputs(dynamo(Block(), torch.randn(2, 8, 8, 16))) == {}
