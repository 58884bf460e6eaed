"""What no build can take is found in the graph, and named."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.refusals import check_can_be_taken, check_range
from tests.graph.precision_graphs import Builder
from tests.raising import raises


def with_weight(op_type: str, weight: np.ndarray, *, as_node: bool = False, view: bool = False) -> onnx.ModelProto:
    build = Builder((1, 4))
    name = "bad"
    if as_node:
        build.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(weight)))
    else:
        build.const(weight, name)
    read = build.op("Transpose", name, perm=[1, 0]) if view else name
    return build.model(build.op(op_type, "input", read, output="y"))


WEIGHT = np.ones((4, 4), np.float32)


def spoiled(value: float) -> np.ndarray[Any, Any]:
    weight: np.ndarray[Any, Any] = WEIGHT.copy()
    weight[1, 2] = value
    return weight


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "1 NaN of 16"), (np.inf, "1 infinite of 16")])
def test_a_weight_that_is_not_finite_is_named(value: float, word: str, as_node: bool) -> None:
    for view in (False, True):
        with raises("EF343", "'bad'", word):
            check_can_be_taken(with_weight("MatMul", spoiled(value), as_node=as_node, view=view))


def test_masks_of_infinity_are_no_weights() -> None:
    check_can_be_taken(with_weight("Add", spoiled(-np.inf)))
    with raises("EF343", "NaN"):
        check_can_be_taken(with_weight("Add", spoiled(np.nan)))


def test_a_half_weight_that_is_not_finite() -> None:
    model = with_weight("MatMul", WEIGHT)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(spoiled(np.nan).astype(np.float16), "bad"))
    with raises("EF343", "'bad'"):
        check_can_be_taken(model)


def batch_norm(*, opset: int, training: bool) -> onnx.ModelProto:
    build = Builder((1, 4, 2, 2), opset=opset)
    ones = [build.const(np.ones(4, np.float32)) for _ in range(4)]
    outputs = 1 if not training else 3 if opset >= 14 else 5
    attributes = {"training_mode": 1} if training and opset >= 14 else {}
    name = build.op("BatchNormalization", "input", *ones, outputs=outputs, output="bn", **attributes)
    return build.model(name)


@pytest.mark.parametrize("opset", [9, 17])
def test_batch_norm_in_training_mode(opset: int) -> None:
    with raises("EF342", "BatchNormalization 'node_bn'", "model.eval()"):
        check_can_be_taken(batch_norm(opset=opset, training=True))
    check_can_be_taken(batch_norm(opset=opset, training=False))


@pytest.mark.parametrize("training", [True, False])
def test_dropout(training: bool) -> None:
    build = Builder((1, 4))
    ratio, mode = build.const(np.float32(0.5)), build.const(np.asarray(training))
    model = build.model(build.op("Dropout", "input", ratio, mode, output="d"))
    if training:
        with raises("EF342", "Dropout 'node_d'", "model.eval()"):
            check_can_be_taken(model)
    else:
        check_can_be_taken(model)


def test_random_numbers() -> None:
    build = Builder((1, 4))
    noise = build.op("RandomUniformLike", "input", output="noise")
    with raises("EF342", "RandomUniformLike 'node_noise'"):
        check_can_be_taken(build.model(build.op("Add", "input", noise, output="y")))


@pytest.mark.parametrize("domain", ["com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"])
def test_files_that_onnx_runtime_optimized(domain: str) -> None:
    model = with_weight("MatMul", WEIGHT)
    model.graph.node[0].domain = domain
    model.graph.node[0].op_type = "FusedMatMul"
    with raises("EF341", f"{domain}::FusedMatMul", "ONNX Runtime optimized this file", "Give the one before"):
        check_can_be_taken(model)


def test_imports_of_domains_that_no_node_uses_are_none() -> None:
    model = with_weight("MatMul", WEIGHT)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    check_can_be_taken(model)


def test_weights_beyond_fp16() -> None:
    build = Builder((1, 3, 8, 8))
    name = build.conv("input", 3, 4, 1, "conv")
    model = build.model(name)
    check_range(model, 65504.0)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "conv.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[0, 0, 0, 0] = -70000
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    assert tensor.data_type == TensorProto.FLOAT
    with raises("EF307", "'conv.weight' reaches 70000", "65504", "bf16"):
        check_range(model, 65504.0)
