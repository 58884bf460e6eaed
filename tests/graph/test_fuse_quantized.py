"""Graphs that other tools have quantized: their attention is found, and left with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from edgeformer.graph.fuse import fuse
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import LayerSite, layer_site
from edgeformer.graph.qdq_types import StoredWeight, fp8_weight, insert_typed_qdq, int4_weight, int8_weight
from tests.graph.blocks import Block, torchscript
from tests.graph.graphs import difference, ops, run
from tests.raising import raises


class Images(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime's class is seen as Any
    """Two random inputs."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.feeds = [{"input": rng.standard_normal((2, 8, 8, 16)).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        return self.feeds.pop() if self.feeds else None


def block(**parts: Any) -> onnx.ModelProto:
    torch.manual_seed(0)
    return torchscript(Block(**parts), torch.randn(2, 8, 8, 16))


def with_pairs(model: onnx.ModelProto, *tensors: str) -> onnx.ModelProto:
    """The model with a Q/DQ pair on each of ``tensors``."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.05), "step"), numpy_helper.from_array(np.int8(0), "zero")]
    )
    nodes = []
    for node in result.graph.node:
        node.input[:] = [f"{name}_dequantized" if name in tensors else name for name in node.input]
        nodes.append(node)
        for name in node.output:
            if name in tensors:
                pair = [[name, f"{name}_quantized"], [f"{name}_quantized", f"{name}_dequantized"]]
                nodes += [
                    helper.make_node(op, [source, "step", "zero"], [target], name=f"{op}_{name}")
                    for op, (source, target) in zip(("QuantizeLinear", "DequantizeLinear"), pair, strict=True)
                ]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    return result


def left(model: onnx.ModelProto) -> str:
    result = fuse(model)
    assert [report.status for report in result.blocks] == ["left"]
    assert result.model.SerializeToString() == model.SerializeToString()
    return str(result.blocks[0].reason)


@pytest.mark.parametrize("which", ["both", "weights"])
def test_pairs_on_the_products(which: str) -> None:
    model = block()
    (softmax,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    product = next(node for node in model.graph.node if softmax.output[0] in node.input)
    (queries,) = [n.input[0] for n in model.graph.node if n.output[0] == softmax.input[0]]
    tensors = [softmax.output[0], *([product.input[1], queries] if which == "both" else [])]

    reason = left(with_pairs(model, *tensors))

    assert "products are quantized" in reason
    assert f"{2 * len(tensors)} nodes" in reason
    assert "float model" in reason


def test_a_pair_before_the_projection_keeps_nothing_from_fusing() -> None:
    model = block(linear="image")
    projection = next(node for node in model.graph.node if node.op_type == "MatMul")
    bias = next(node for node in model.graph.node if projection.output[0] in node.input)
    quantized = with_pairs(model, bias.output[0])

    result = fuse(quantized)

    assert [report.reason for report in result.blocks] == [None]
    assert ops(result.model)["QuantizeLinear"] == 1
    feeds = {"input": np.random.default_rng(1).standard_normal((2, 8, 8, 16)).astype(np.float32)}
    assert difference(run(quantized, feeds), run(result.model, feeds)) <= 1e-5


def test_quantized_operators_of_onnx_runtime_are_refused(tmp_path: Path) -> None:
    onnx.save(block(), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Images(), quant_format=QuantFormat.QOperator)
    with raises("EF341", "QLinearSoftmax", "the float model"):
        fuse(onnx.load(tmp_path / "int8.onnx"))


def test_static_quantization_of_onnx_runtime(tmp_path: Path) -> None:
    onnx.save(block(), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Images(), quant_format=QuantFormat.QDQ)
    reason = left(onnx.load(tmp_path / "int8.onnx"))
    assert "products are quantized" in reason
    assert "float model" in reason


def test_dynamic_quantization_of_onnx_runtime(tmp_path: Path) -> None:
    onnx.save(block(), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    reason = left(onnx.load(tmp_path / "int8.onnx"))
    assert "projection is quantized (MatMulInteger" in reason
    assert "float model" in reason


@pytest.mark.parametrize("kind", ["int8", "int4", "fp8"])
def test_a_block_whose_linears_have_stored_weights_is_fused(kind: str) -> None:
    """As a tool leaves them that stores the weights of a float graph, with FP8 what they read, too."""

    def stored(site: LayerSite, weight: Any) -> StoredWeight:
        if kind == "int4":
            return int4_weight(weight, site.axis, 16)
        return int8_weight(weight, site.axis) if kind == "int8" else fp8_weight(weight, site.axis)

    model = block(linear="image")
    index = GraphIndex(model)
    found = [layer_site(index, node) for node in model.graph.node if node.op_type == "MatMul"]
    sites = [site for site in found if isinstance(site, LayerSite)]
    assert len(sites) >= 2
    ranges = {site.activation: 4.0 for site in sites} if kind == "fp8" else None
    quantized = insert_typed_qdq(model, sites, stored, ranges=ranges, index=index)
    result = fuse(quantized)
    assert ops(result.model)["BiLevelRoutingAttention"] == 1
    assert ops(result.model)["DequantizeLinear"] == ops(quantized)["DequantizeLinear"]
    feeds = {"input": np.random.default_rng(1).standard_normal((2, 8, 8, 16)).astype(np.float32)}
    assert difference(run(quantized, feeds), run(result.model, feeds)) < 1e-4
