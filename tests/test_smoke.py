"""Before a commit, in seconds: every link from PyTorch to a typed INT8 graph holds on the model that ships.

The commit hook runs this file. Each link has a room of tests of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import edgeformer as ef
from edgeformer.cli import COMMANDS
from edgeformer.models import model_info
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.quantization import Recipe
from edgeformer.runtime import OnnxSession
from edgeformer.verify import top1_accuracy
from tests.graph.blocks import torchscript

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "calibration" / "digits"
INFO = model_info("biformer_nano")


def accuracy(model: onnx.ModelProto) -> float:
    """Percent of 40 evaluation images."""
    samples = ef.open_samples(DIGITS / "evaluate", INFO.preprocessing, limit=40)
    return top1_accuracy(OnnxSession(model), samples.batches(20)).value


@pytest.fixture(scope="module")
def fused() -> onnx.ModelProto:
    network = ef.create_model(INFO.name)
    ef.load_checkpoint(network, ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors")
    # The old exporter: the one that users get takes ten seconds to import, and the fuser takes what either writes.
    exported = torchscript(network, torch.zeros(2, 3, *INFO.input_size), dynamic={0: "batch"})
    result = ef.fuse(exported)
    assert [block.reason for block in result.blocks] == [None] * 4
    return result.model


def test_the_fused_model_tells_digits_apart(fused: onnx.ModelProto) -> None:
    assert sum(bra.is_op(node) for node in fused.graph.node) == 4
    assert accuracy(fused) >= 95.0


def test_so_does_the_quantized_one(fused: onnx.ModelProto) -> None:
    samples = ef.open_samples(DIGITS / "calibrate", INFO.preprocessing, limit=20)
    quantized = ef.quantize(fused, samples, recipe=Recipe(name="smoke"))
    assert sum(decision.quantized for decision in quantized.decisions) >= 20
    typed = ef.to_float_type(quantized.model, "float16")
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in typed.graph.initializer}
    assert accuracy(typed) >= 95.0


def test_the_op_computes_what_the_reference_says() -> None:
    attributes = bra.Attributes(num_heads=2, regions=4, topk=3, scale=0.2, qk_dim=32)
    qkv = np.random.default_rng(0).standard_normal((1, 8, 12, 3 * 32)).astype(np.float32)
    graph = helper.make_graph(
        [attributes.make_node("qkv", "out", "bra")],
        "op",
        [helper.make_tensor_value_info("qkv", TensorProto.FLOAT, qkv.shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, 12, 32])],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = bra.with_function(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    out = OnnxSession(model).run({"qkv": qkv})["out"]
    np.testing.assert_allclose(out, bra.reference(qkv, attributes), rtol=0, atol=2e-5)


def test_the_command_line_names_its_commands() -> None:
    shown = subprocess.run([sys.executable, "-m", "edgeformer", "--help"], capture_output=True, text=True, check=True)
    assert all(f"  {command} " in shown.stdout for command in COMMANDS)
