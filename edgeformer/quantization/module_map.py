"""Which module of a PyTorch model a node of its exported graph comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx

from edgeformer.graph.graph_index import GraphIndex

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OPERATORS", "node_modules"]

OPERATORS = ("Conv", "Gemm", "MatMul")
# Where PyTorch's exporter says from which modules, outermost first, a node comes; the last entry is the node itself.
_SCOPES = "pkg.torch.onnx.name_scopes"


def node_modules(index: GraphIndex, model: nn.Module) -> Iterator[tuple[onnx.NodeProto, nn.Module]]:
    """The nodes that multiply with the weight of a Linear or a convolution, and that module, in graph order.

    The weight's name tells the module, or where the exporter has transposed it, the scope that the node comes from. A
    convolution that took in a batch norm has that norm's scope, and its own weight's name.

    Args:
        index: of the graph.
        model: what it was exported from.
    """
    from torch import nn

    modules = dict(model.named_modules(remove_duplicate=False))
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for node in index.model.graph.node:
        if node.op_type not in OPERATORS or not index.is_constant(node.input[1]):
            continue
        shape = index.shape(node.input[1]) or ()
        for path in _paths(node):
            module = modules.get(path)
            # Without reading the weight: a parametrization would compute it.
            if isinstance(module, layers) and sorted(_shape(module)) == sorted(size or 0 for size in shape):
                yield node, module
                break


def _paths(node: onnx.NodeProto) -> Iterator[str]:
    path, found, _ = node.input[1].rpartition(".weight")
    if found:
        yield path
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            # Written as Python writes a list of strings; module names hold no quotes.
            scopes = [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
            yield from scopes[-2:-1]


def _shape(module: nn.Module) -> tuple[int, ...]:
    from torch import nn

    if isinstance(module, nn.Linear):
        return (module.out_features, module.in_features)
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
