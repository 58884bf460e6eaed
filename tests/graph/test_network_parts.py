"""Blocks are found by what exporters note, by the names of older ones, or by the op nodes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest
from onnx import TensorProto, helper

from edgeformer.graph.network_parts import network_parts
from edgeformer.ops.bi_level_routing_attention import Attributes

SCOPES = "pkg.torch.onnx.name_scopes"


def chain(count: int) -> list[onnx.NodeProto]:
    """Nodes that each read what the one before makes: t0, t1, ..."""
    names = ["input", *(f"t{number}" for number in range(count))]
    return [helper.make_node("Relu", [names[number]], [names[number + 1]]) for number in range(count)]


def model(nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """A graph of these nodes; what it is fed and gives has no shape here."""
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph)


def note(node: onnx.NodeProto, modules: Sequence[str]) -> None:
    node.metadata_props.add(key=SCOPES, value=str([*modules, node.output[0]]))


def test_modules_as_the_exporter_notes_them() -> None:
    nodes = chain(9)
    paths: list[list[str]] = [
        ["", "stem", "stem.0"],
        ["", "stages.0", "stages.0.0", "stages.0.0.attn"],
        [],  # a pass of ours made it
        ["", "stages.0", "stages.0.0"],
        ["", "stages.0", "stages.0.1"],
        ["", "stages.1", "stages.1.downsample"],
        ["", "stages.1", "stages.1.blocks", "stages.1.blocks.0"],
        ["", "head"],
        [""],
    ]
    for node, path in zip(nodes, paths, strict=True):
        if path:
            note(node, path)
    parts = network_parts(model(nodes))
    assert [part.name for part in parts] == [
        *("stem", "stages.0.0", "stages.0.1", "stages.1.downsample", "stages.1.blocks.0", "head"),
    ]
    assert [part.ends for part in parts] == [["t0"], ["t3"], ["t4"], ["t5"], ["t6"], ["t8"]]
    assert [node.output[0] for node in parts[1].nodes] == ["t1", "t2", "t3"]


def test_modules_around_a_network_are_no_part() -> None:
    nodes = chain(3)
    for node, path in zip(
        nodes, (["", "net", "net.stem"], ["", "net", "net.stages.0", "net.stages.0.0"], ["", "net"]), strict=True
    ):
        note(node, path)
    assert [part.name for part in network_parts(model(nodes))] == ["net.stem", "net.stages.0.0"]


def test_modules_in_the_names_of_nodes() -> None:
    nodes = chain(3)
    for node, name in zip(nodes, ("/stem/Relu", "/stages.0/stages.0.0/attn/Relu", "/head/Relu"), strict=True):
        node.name = name
    assert [part.name for part in network_parts(model(nodes))] == ["stem", "stages.0.0", "head"]


def test_op_nodes_divide_what_tells_no_modules() -> None:
    attributes = Attributes(num_heads=1, regions=1, topk=1, qk_dim=1, scale=1.0)
    nodes = chain(5)
    for position in (1, 3):
        nodes[position] = attributes.make_node(f"t{position - 1}", f"t{position}", f"bra_{position}")
    parts = network_parts(model(nodes))
    assert [part.name for part in parts] == ["bra_1", "bra_3", "behind the last block"]
    assert [part.ends for part in parts] == [["t1"], ["t3"], ["t4"]]


@pytest.mark.parametrize("name", ["", "/stem/Relu", "hostile"])
def test_other_networks_have_no_parts(name: str) -> None:
    nodes = chain(2)
    nodes[0].name = name
    if name == "hostile":
        nodes[0].metadata_props.add(key=SCOPES, value="['" * 1000)
    assert network_parts(model(nodes)) == []
