from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="scripts/try_pythons does without torch")
import torch
from torch import Tensor, nn

from edgeformer.export import export_onnx
from edgeformer.graph.fold_batch_norm import fold_batch_norm
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.prepare import prepared
from edgeformer.quantization.module_map import node_modules
from tests.quantization.fake_quantized import SIZE, network


def names(model: nn.Module, *, fold: bool = True) -> list[tuple[str, str]]:
    """Operator and module of the nodes that were told."""
    graph = prepared(export_onnx(model.eval(), input_size=(SIZE, SIZE)))
    paths = {module: name for name, module in model.named_modules()}
    found = node_modules(GraphIndex(fold_batch_norm(graph) if fold else graph), model)
    return [(node.op_type, paths[module]) for node, module in found]


@pytest.mark.parametrize("fold", [True, False])
def test_each_layer_is_told_from_its_node(fold: bool) -> None:
    assert names(network(), fold=fold) == [
        ("Conv", "stem"),
        ("Conv", "depthwise"),
        ("Conv", "down"),
        ("MatMul", "query"),
        ("MatMul", "key"),
        ("MatMul", "twice"),
        ("MatMul", "twice"),
        ("Gemm", "head"),
    ]


def test_nested_modules_of_equal_weights_are_told_apart() -> None:
    torch.manual_seed(0)
    first = nn.Linear(8, 8)
    second = nn.Linear(8, 8)
    second.load_state_dict(first.state_dict())  # exporters share equal initializers
    body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), Transposed(), first, nn.ReLU(), second)
    model = nn.Sequential(body, nn.Sequential(nn.GELU(), Mean(), nn.Linear(8, 2)))
    assert [path for _, path in names(model)] == ["0.0", "0.3", "0.5", "1.2"]


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)
