"""The blocks of a network, and what stands between them, found in its graph.

The exporter notes at each node in which modules it was made; older ones write the modules into the node's name. Where
a graph tells neither, its op nodes divide it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from edgeformer.graph.protos import is_standard, label
from edgeformer.ops.bi_level_routing_attention import is_op

__all__ = ["NetworkPart", "module_scopes", "network_parts"]

_NAME_SCOPES = "pkg.torch.onnx.name_scopes"
_SCOPE = re.compile(r"'([^']*)'")
# A block's path, as PyTorch names modules; the Swin-like layout has `.blocks` in between.
_BLOCK = re.compile(r"(?:^|\.)stages\.\d+\.(?:blocks\.)?\d+$")
_BEHIND = "behind the last block"


@dataclass
class NetworkPart:
    """A block, or what stands between two.

    Attributes:
        name: path of its module, or the name of its op node where modules are not known.
        nodes: its nodes, in graph order.
        ends: the tensors that later parts read or the graph gives, the last one made first.
    """

    name: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


def network_parts(model: onnx.ModelProto) -> list[NetworkPart]:
    """The parts of a graph in topological order; none where it tells no blocks and has no op node."""
    nodes = [node for node in model.graph.node if not is_standard(node, "Constant")]
    names = _by_modules(nodes) or _by_op_nodes(nodes)
    parts: dict[str, NetworkPart] = {}
    for node, name in zip(nodes, names, strict=False):
        parts.setdefault(name, NetworkPart(name)).nodes.append(node)
    given = {value.name for value in model.graph.output}
    for part in parts.values():
        own = {id(node) for node in part.nodes}
        read = given.union(*(node.input for node in nodes if id(node) not in own))
        part.ends = [name for node in reversed(part.nodes) for name in node.output if name in read]
    return list(parts.values())


def _by_modules(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """For each node the block or other module that it belongs to; nothing where no block is known."""
    scopes = [module_scopes(node) for node in nodes]
    blocks = {scope for path in scopes for scope in path if _BLOCK.search(scope)}
    if not blocks:
        return []
    around = {block[:end] for block in blocks for end in range(len(block)) if block[end] == "."}
    found = [
        next((s for s in path if s in blocks), next((s for s in path if s and s not in around), "")) for path in scopes
    ]
    # What an exporter or a pass of ours made without a note belongs to what comes before it; at first, to what follows.
    first = next(name for name in found if name)
    names = []
    for name in found:
        first = name or first
        names.append(first)
    return names


def module_scopes(node: onnx.NodeProto) -> list[str]:
    """The modules around a node, the outermost first."""
    for entry in node.metadata_props:
        if entry.key == _NAME_SCOPES:
            return _SCOPE.findall(entry.value)[:-1]
    return node.name.split("/")[1:-1] if node.name.startswith("/") else []


def _by_op_nodes(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """For each node the op node up to which it stands; nothing where there is none."""
    names: list[str] = []
    for position, node in enumerate(nodes):
        if is_op(node):
            names += [label(node)] * (position + 1 - len(names))
    return names and names + [_BEHIND] * (len(nodes) - len(names))
