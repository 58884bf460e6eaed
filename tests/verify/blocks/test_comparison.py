"""Graphs block by block: right ones pass, and each planted fault is named where it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeformer.ops.bi_level_routing_attention import is_op
from tests.present import present
from tests.verify.blocks.conftest import Forms, compared, copy_of, edit, nodes_of, producer, quantizers, raised, wrong

pytestmark = pytest.mark.whole

BLOCKS = ["stages.0.0", "stages.1.0", "stages.2.0", "stages.3.0"]


def set_topk(node: onnx.NodeProto, change: int) -> None:
    for item in node.attribute:
        if item.name == "topk":
            item.i += change


def test_the_fused_graph_is_the_exported_one(forms: Forms) -> None:
    checks = compared(forms, forms.exported, forms.fused)
    assert [name for name in checks if name.startswith("stages")] == BLOCKS
    assert wrong(checks) == []
    for name in BLOCKS:
        assert present(checks[name].isolated_snr_db) > 110
        assert present(checks[name].verdict).limit == 1e-5
    assert checks["stages.0.0"].routing_agreement == 1.0
    assert checks["stages.3.0"].routing_agreement is None


def test_fp16_is_what_rounding_explains(forms: Forms) -> None:
    checks = compared(forms, forms.fused, forms.fp16, "fp16")
    assert wrong(checks) == []
    for name in BLOCKS:
        assert 50 < present(checks[name].isolated_snr_db) < 90
        # What came before adds to it.
        assert present(checks[name].accumulated_snr_db) <= present(checks[name].isolated_snr_db) + 1


def test_bf16_is_what_rounding_explains(forms: Forms) -> None:
    from edgeformer.graph.types import to_float_type

    checks = compared(forms, forms.fused, to_float_type(forms.fused, "bfloat16"), "bf16", images=2)
    assert wrong(checks) == []
    assert 30 < present(checks["stages.0.0"].isolated_snr_db) < 60


def test_int8_is_what_calibration_explains(forms: Forms) -> None:
    checks = compared(forms, forms.fused, forms.int8, "int8", ranges=forms.ranges)
    assert wrong(checks) == []
    assert all(15 < present(checks[name].isolated_snr_db) < 60 for name in BLOCKS)


@pytest.mark.parametrize("module", ["stages.0.0.attn.wo", "stages.2.0.mlp.0", "stages.3.0.attn.qkv"])
def test_one_weight_of_the_fused_graph(forms: Forms, module: str) -> None:
    bad = copy_of(forms.fused)
    (layer,) = nodes_of(bad, module, "MatMul")
    edit(bad, layer.input[1], raised(5, 0.1))
    checks = compared(forms, forms.exported, bad, images=2)
    assert wrong(checks) == [module[:10]]
    fault = checks[module[:10]].faults[0]
    assert (fault.kind, fault.module) == ("values", module)
    assert layer.name in fault.node or any(layer.name in node for node in fault.between)


def test_one_weight_of_the_fp16_graph(forms: Forms) -> None:
    bad = copy_of(forms.fp16)
    (layer,) = nodes_of(bad, "stages.1.0.mlp.3", "Conv")
    edit(bad, layer.input[1], raised(7, 0.1))
    checks = compared(forms, forms.fused, bad, "fp16")
    assert wrong(checks) == ["stages.1.0"]
    assert checks["stages.1.0"].faults[0].module == "stages.1.0.mlp.3"


def test_one_weight_of_the_int8_graph(forms: Forms) -> None:
    bad = copy_of(forms.int8)
    (layer,) = nodes_of(bad, "stages.2.0.mlp.0", "MatMul")
    weight = producer(bad, layer.input[1]).input[0]

    def turned(values: np.ndarray) -> np.ndarray:
        values[3, 4] = -127 if values[3, 4] > 0 else 127
        return values

    edit(bad, weight, turned)
    checks = compared(forms, forms.fused, bad, "int8", ranges=forms.ranges)
    assert wrong(checks) == ["stages.2.0"]
    assert checks["stages.2.0"].faults[0].module == "stages.2.0.mlp.0"


def test_a_weight_scale_that_is_doubled(forms: Forms) -> None:
    bad = copy_of(forms.int8)
    (layer,) = nodes_of(bad, "stages.1.0.mlp.0", "MatMul")
    edit(bad, producer(bad, layer.input[1]).input[1], lambda scale: scale * 2)
    checks = compared(forms, forms.fused, bad, "int8", ranges=forms.ranges)
    assert wrong(checks) == ["stages.1.0"]
    assert checks["stages.1.0"].faults[0].module == "stages.1.0.mlp.0"


def test_an_activation_scale_that_is_doubled(forms: Forms) -> None:
    """Both sides of the pair have it: half as many steps, which no figure of a network tells from a hard layer."""
    bad = copy_of(forms.int8)
    quantizer = next(quantizers(bad, "stages.2.0.mlp.3"))
    before = float(numpy_helper.to_array(next(t for t in bad.graph.initializer if t.name == quantizer.input[1])))
    edit(bad, quantizer.input[1], lambda scale: scale * 2)
    checks = compared(forms, forms.fused, bad, "int8", ranges=forms.ranges)
    assert wrong(checks) == ["stages.2.0"]
    fault = checks["stages.2.0"].faults[0]
    assert fault.kind == "scale"
    assert quantizer.name in fault.node
    assert (present(fault.value), present(fault.limit)) == (2 * before, before)


@pytest.mark.parametrize("change", [-1, 1])
def test_topk_off_by_one(forms: Forms, change: int) -> None:
    bad = copy_of(forms.fused)
    node = [node for node in bad.graph.node if is_op(node)][1]
    set_topk(node, change)
    checks = compared(forms, forms.exported, bad, images=2)
    assert wrong(checks) == ["stages.1.0"]
    fault = checks["stages.1.0"].faults[0]
    assert (fault.kind, fault.value, fault.limit) == ("topk", 5 + change, 5)
    assert node.name in fault.node
    assert present(fault.module).startswith("stages.1.0.attn")


def test_topk_off_by_one_in_a_graph_that_is_not_fused(forms: Forms) -> None:
    bad = copy_of(forms.exported)
    node = [node for node in bad.graph.node if node.op_type == "TopK"][2]
    bad.graph.initializer.append(numpy_helper.from_array(np.array([2]), "fewer"))
    node.input[1] = "fewer"
    checks = compared(forms, forms.exported, bad, images=2)
    assert wrong(checks) == ["stages.2.0"]
    assert checks["stages.2.0"].faults[0].kind == "topk"


def test_a_permutation_that_is_swapped(forms: Forms) -> None:
    """Height and width are the same here, so that nothing but the values tells."""
    bad = copy_of(forms.fp16)
    node = next(
        node
        for node in bad.graph.node
        if node.op_type == "Transpose"
        and list(node.attribute[0].ints) == [0, 2, 3, 1]
        and after(bad, node, "stages.2.0")
    )
    node.attribute[0].CopyFrom(helper.make_attribute("perm", [0, 3, 2, 1]))
    checks = compared(forms, forms.fused, bad, "fp16")
    assert wrong(checks)[0] == "stages.2.0"
    fault = checks["stages.2.0"].faults[0]
    assert node.name in fault.node or any(node.name in one for one in fault.between)


def after(model: onnx.ModelProto, node: onnx.NodeProto, module: str) -> bool:
    """Whether what a node makes is read in a module."""
    from edgeformer.graph.network_parts import module_scopes

    return any(node.output[0] in one.input and module in module_scopes(one) for one in model.graph.node)


def test_a_permutation_that_no_longer_fits(forms: Forms) -> None:
    """Channels in the place of rows: what follows cannot run, and the node before it is named."""
    bad = copy_of(forms.fused)
    node = next(
        node
        for node in bad.graph.node
        if node.op_type == "Transpose"
        and list(node.attribute[0].ints) == [0, 2, 3, 1]
        and after(bad, node, "stages.1.0")
    )
    node.attribute[0].CopyFrom(helper.make_attribute("perm", [0, 1, 2, 3]))
    checks = compared(forms, forms.exported, bad, images=2)
    assert wrong(checks)[0] == "stages.1.0"
    fault = checks["stages.1.0"].faults[0]
    assert fault.kind in ("shape", "does not run")
    assert node.name in fault.node or any(node.name in one for one in fault.between)
    # What comes behind gets the right tensors, and is right.
    assert wrong(checks) == ["stages.1.0"]
    assert checks["stages.3.0"].accumulated_snr_db is None


def test_the_scale_of_an_attention(forms: Forms) -> None:
    bad = copy_of(forms.fused)
    node = next(node for node in bad.graph.node if is_op(node))
    for item in node.attribute:
        if item.name == "scale":
            item.f *= 2
    checks = compared(forms, forms.exported, bad, images=2)
    assert wrong(checks) == ["stages.0.0"]
    assert node.name in checks["stages.0.0"].faults[0].node
