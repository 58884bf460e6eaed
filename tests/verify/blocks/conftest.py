"""A small BiFormer of one block a stage in all its forms, made once, and faults to plant in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgeformer.export import export_onnx
from edgeformer.graph.fuse import fuse
from edgeformer.graph.network_parts import module_scopes
from edgeformer.graph.pointwise import linears_as_convolutions
from edgeformer.graph.types import to_float_type
from edgeformer.models import create_model
from edgeformer.models.biformer import BiFormer
from edgeformer.quantization import quantize
from edgeformer.quantization.recipe import Recipe
from edgeformer.records.blocks import BlockCheck
from edgeformer.records.terms import Precision
from edgeformer.verify.blocks.comparison import compare_blocks
from edgeformer.verify.blocks.cuts import blocks_of
from edgeformer.verify.blocks.graphs import FormGraph
from edgeformer.verify.blocks.references import GraphReference
from edgeformer.verify.recording import Store
from tests.quantization.conftest import ArraySamples

SIZE = 64


@dataclass(frozen=True)
class Forms:
    """The model in its forms, and images; what calibration found for the INT8 one."""

    pytorch: BiFormer
    exported: onnx.ModelProto
    fused: onnx.ModelProto
    fp16: onnx.ModelProto
    int8: onnx.ModelProto
    ranges: dict[str, float]
    images: npt.NDArray[np.float32]


def small_biformer() -> BiFormer:
    torch.manual_seed(3)
    model = create_model(
        "biformer_nano",
        depths=(1, 1, 1, 1),
        dims=(16, 32, 48, 64),
        topks=(2, 5, 3, -2),
        regions=(4, 4, 2, 1),
        head_dim=16,
        num_classes=10,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            # As training leaves them: larger than they begin, and no two alike.
            parameter.mul_(4.0 if parameter.ndim == 2 else 1.0).add_(0.05 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model.eval()


def smooth_images(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 3, 8, 8)).repeat(SIZE // 8, 2).repeat(SIZE // 8, 3)
    return (coarse + 0.3 * rng.standard_normal((count, 3, SIZE, SIZE))).astype(np.float32)


@pytest.fixture(scope="session")
def forms() -> Forms:
    model = small_biformer()
    exported = export_onnx(model, input_size=(SIZE, SIZE))
    fused = fuse(exported).model
    recipe = Recipe(name="test")
    quantized = quantize(fused, ArraySamples(smooth_images(32, 1)), recipe=recipe)
    return Forms(
        pytorch=model,
        exported=exported,
        fused=fused,
        fp16=to_float_type(linears_as_convolutions(fused)[0], "float16"),
        int8=to_float_type(quantized.model, "float16"),
        ranges=dict(quantized.calibration.ranges),
        images=smooth_images(4, 2),
    )


def compared(
    forms: Forms,
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    precision: Precision = "fp32",
    *,
    ranges: dict[str, float] | None = None,
    images: int = 4,
) -> dict[str, BlockCheck]:
    """The checks of a pair of graphs by the block's name."""
    batches = [forms.images[start : start + 2] for start in range(0, images, 2)]
    ours, theirs = FormGraph(reference), FormGraph(candidate)
    for graph in (ours, theirs):
        graph.settle(batches[0])
    with Store() as store:
        checks = compare_blocks(
            GraphReference(ours, batches, store),
            theirs,
            blocks_of(forms.fused),
            batches,
            precision=precision,
            store=store,
            ranges=ranges,
        )
    return {check.name: check for check in checks}


def wrong(checks: dict[str, BlockCheck]) -> list[str]:
    """The names of the blocks in which something goes wrong."""
    return [name for name, check in checks.items() if not check.passed]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def nodes_of(model: onnx.ModelProto, module: str, op_type: str) -> list[onnx.NodeProto]:
    """The nodes of an operator that stem from a module."""
    return [node for node in model.graph.node if node.op_type == op_type and module in module_scopes(node)]


def edit(model: onnx.ModelProto, name: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    """Put another value in place of an initializer's, of the same type."""
    (tensor,) = [one for one in model.graph.initializer if one.name == name]
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(array.copy())).astype(array.dtype), name))


def producer(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(one for one in model.graph.node if tensor in one.output)
    return found


def quantizers(model: onnx.ModelProto, module: str) -> Iterator[onnx.NodeProto]:
    """The QuantizeLinear nodes of the activations that layers of a module read."""
    for op_type in ("MatMul", "Conv", "Gemm"):
        for layer in nodes_of(model, module, op_type):
            made = [one for one in model.graph.node if layer.input[0] in one.output]
            if made and made[0].op_type == "DequantizeLinear":
                yield producer(model, made[0].input[0])


def raised(position: int, by: float) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """A change of one element, counted in the order in which they lie."""

    def change(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array.flat[position] += by
        return array

    return change
