"""The library inside TensorRT-RTX: parsing, shapes, and engines built ahead of time, on a machine with no GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.ops.bi_level_routing_attention import Attributes, with_function

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install edgeformer[rtx]")

FLOAT_ATTRIBUTES: dict[str, Any] = {"num_heads": 2, "regions": 7, "topk": 4, "qk_dim": 64, "scale": 0.125}
INT8_SCALES = {"q_scale": 0.02, "k_scale": 0.03, "v_scale": 0.01}
LEPE_ATTRIBUTES = {**FLOAT_ATTRIBUTES, "lepe_kernel": 5, "dim": 64}
SHAPE = ("n", 28, 28, 192)


class Builder:
    """Parses and builds, and keeps what TensorRT and the plugin say."""

    def __init__(self, library: Path) -> None:
        self.messages: list[str] = []
        outer = self

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]  # a module that may be missing
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.Severity.ERROR:
                    outer.messages.append(message)

        self.logger = Logger()
        ctypes.CDLL(str(library.with_name("libtensorrt_rtx.so")), mode=ctypes.RTLD_GLOBAL)
        self.builder = trt.Builder(self.logger)
        self.registry = self.builder.get_plugin_registry()
        self.handle = self.registry.load_library(str(library))
        self._take = ctypes.CDLL(str(library)).edgeformerTakeErrors
        self._take.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        self._take.restype = ctypes.c_size_t
        self.plugin_errors()

    def plugin_errors(self) -> str:
        buffer = ctypes.create_string_buffer(1 << 16)
        self._take(buffer, len(buffer))
        return buffer.value.decode()

    def parse(self, model: onnx.ModelProto) -> Any:
        """The network, or ``None`` if the parser refuses the model."""
        network = self.builder.create_network(0)
        parser = trt.OnnxParser(network, self.logger)
        parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
        return network if parser.parse(model.SerializeToString()) else None

    def build(self, network: Any, *, shapes: tuple[tuple[int, ...], ...] | None = None) -> bytes | None:
        """An engine for SM 8.6, with ``shapes`` (min, opt, max) as the profile of input x."""
        config = self.builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        profile = self.builder.create_optimization_profile()
        profile.set_shape("x", *(shapes or ((1, 28, 28, 192), (8, 28, 28, 192), (32, 28, 28, 192))))
        config.add_optimization_profile(profile)
        engine = self.builder.build_serialized_network(network, config)
        return None if engine is None else bytes(engine)


@pytest.fixture(scope="module")
def builder(plugin_library: Path) -> Builder:
    return Builder(plugin_library)


def op_model(
    attributes: dict[str, Any],
    input_type: int,
    output_type: int,
    shape: tuple[Any, ...] = SHAPE,
    nodes: int = 1,
    *,
    quantized_from: int | None = None,
    lepe_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    lepe_type: int | None = None,
) -> onnx.ModelProto:
    """``nodes`` op nodes that read the same input.

    Args:
        quantized_from: type of the model's input, which a QuantizeLinear makes the nodes' INT8 input of.
        lepe_shapes: shapes of LePE's weight and bias where they are not the op's.
        lepe_type: their type where it is not the output's.
    """
    op = Attributes(**attributes)
    outputs = [f"y{i}" for i in range(nodes)]
    weights, lepe, quantize = [], {}, []
    if op.lepe_kernel is not None and op.dim is not None:
        right = ((op.lepe_kernel, op.lepe_kernel, op.dim), (op.dim,))
        dtype = helper.tensor_dtype_to_np_dtype(lepe_type or output_type)
        for name, size in zip(("lepe_weight", "lepe_bias"), lepe_shapes or right, strict=True):
            weights.append(numpy_helper.from_array(np.ones(size, dtype), name))
            lepe[name] = name
    if quantized_from is not None:
        weights.append(helper.make_tensor("step", quantized_from, [], [0.02]))
        weights.append(helper.make_tensor("zero", TensorProto.INT8, [], [0]))
        quantize.append(helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["xq"]))
    qkv = "xq" if quantize else "x"
    graph = helper.make_graph(
        [*quantize, *(op.make_node(qkv, output, f"attn_{output}", **lepe) for output in outputs)],
        "test",
        [helper.make_tensor_value_info("x", quantized_from or input_type, shape)],
        [helper.make_tensor_value_info(output, output_type, None) for output in outputs],
        weights,
    )
    return with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


def plugin_layers(network: Any) -> int:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)


def test_the_registry_finds_the_creator(builder: Builder) -> None:
    assert builder.handle is not None
    creator = builder.registry.get_creator("BiLevelRoutingAttention", "1", "")
    assert creator is not None
    names = [field.name for field in creator.field_names]
    assert names[:5] == ["num_heads", "regions", "topk", "qk_dim", "scale"]


@pytest.mark.parametrize(
    ("onnx_type", "tensorrt_type"),
    [(TensorProto.FLOAT, "FLOAT"), (TensorProto.FLOAT16, "HALF"), (TensorProto.BFLOAT16, "BF16")],
    ids=["fp32", "fp16", "bf16"],
)
def test_float_engines(builder: Builder, onnx_type: int, tensorrt_type: str) -> None:
    network = builder.parse(op_model(FLOAT_ATTRIBUTES, onnx_type, onnx_type, nodes=2))
    assert plugin_layers(network) == network.num_layers == 2
    output = network.get_output(0)
    assert output.dtype == getattr(trt.DataType, tensorrt_type)
    assert tuple(output.shape) == (-1, 28, 28, 64)
    engine = builder.build(network)
    assert engine is not None
    assert engine.count(b"BiLevelRoutingAttention") >= 1


@pytest.mark.parametrize(
    ("output_type", "tensorrt_type"), [(TensorProto.FLOAT16, "HALF"), (TensorProto.FLOAT, "FLOAT")]
)
def test_int8_engines(builder: Builder, output_type: int, tensorrt_type: str) -> None:
    """FP16 activations, quantized straight into the op."""
    attributes = {**FLOAT_ATTRIBUTES, **INT8_SCALES, "output_type": output_type}
    network = builder.parse(op_model(attributes, TensorProto.INT8, output_type, quantized_from=TensorProto.FLOAT16))
    assert plugin_layers(network) == 1
    assert network.get_output(0).dtype == getattr(trt.DataType, tensorrt_type)
    assert builder.build(network) is not None


@pytest.mark.parametrize(
    "onnx_type", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16], ids=["fp32", "fp16", "bf16"]
)
def test_lepe_engines(builder: Builder, onnx_type: int) -> None:
    """Weight and bias are constants of the network; height and width are free as well."""
    network = builder.parse(op_model(LEPE_ATTRIBUTES, onnx_type, onnx_type, ("n", "h", "w", 192), nodes=2))
    assert plugin_layers(network) == 2
    assert tuple(network.get_output(0).shape) == (-1, -1, -1, 64)
    engine = builder.build(network, shapes=((1, 7, 14, 192), (4, 28, 28, 192), (8, 56, 49, 192)))
    assert engine is not None
    assert b"lepe_kernel" in engine


def test_lepe_engine_from_int8(builder: Builder) -> None:
    """Weight and bias are of the output's type."""
    attributes = {**LEPE_ATTRIBUTES, **INT8_SCALES, "output_type": TensorProto.FLOAT16}
    model = op_model(attributes, TensorProto.INT8, TensorProto.FLOAT16, quantized_from=TensorProto.FLOAT16)
    network = builder.parse(model)
    assert plugin_layers(network) == 1
    assert builder.build(network) is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lepe_shapes": ((3, 3, 64), (64,))}, "got a LePE weight [3, 3, 64] and bias [64]; with lepe_kernel=5"),
        ({"lepe_shapes": ((5, 5, 64), (32,))}, "and bias [32]"),
        ({"lepe_type": TensorProto.FLOAT}, "the LePE weight and bias must have the type of the output"),
        ({"shape": ("n", 28, 28, 160)}, "got 32 value channels; the attribute says dim=64"),
    ],
    ids=["kernel", "bias", "type", "dim"],
)
def test_lepe_that_does_not_fit_is_refused_while_parsing(builder: Builder, changes: dict[str, Any], words: str) -> None:
    model = op_model(LEPE_ATTRIBUTES, TensorProto.FLOAT16, TensorProto.FLOAT16, **changes)
    assert builder.parse(model) is None
    assert words in builder.plugin_errors()


def test_symbolic_height_and_width(builder: Builder) -> None:
    model = op_model(FLOAT_ATTRIBUTES, TensorProto.FLOAT16, TensorProto.FLOAT16, ("n", "h", "w", 192))
    network = builder.parse(model)
    assert tuple(network.get_output(0).shape) == (-1, -1, -1, 64)
    assert builder.build(network, shapes=((1, 7, 14, 192), (4, 28, 28, 192), (8, 56, 49, 192))) is not None


def test_values_wider_than_queries(builder: Builder) -> None:
    network = builder.parse(op_model({**FLOAT_ATTRIBUTES, "qk_dim": 32}, TensorProto.FLOAT, TensorProto.FLOAT))
    assert tuple(network.get_output(0).shape) == (-1, 28, 28, 128)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("topk", None, "field 'topk' is missing"),
        ("topk", 50, "topk=50; at most regions ** 2 = 49 regions exist"),
        ("num_heads", 3, "qk_dim=64; it must be a multiple of num_heads=3"),
        ("scale", -1.0, "scale=-1; it must be positive and finite"),
    ],
    ids=["missing", "topk", "num_heads", "scale"],
)
def test_wrong_attributes_are_refused_by_name(
    builder: Builder, capfd: pytest.CaptureFixture[str], name: str, value: float | None, words: str
) -> None:
    model = op_model(FLOAT_ATTRIBUTES, TensorProto.FLOAT, TensorProto.FLOAT)
    node = model.graph.node[0]
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))
    assert builder.parse(model) is None
    assert any("Could not create the plugin" in message for message in builder.messages)
    message = builder.plugin_errors()
    assert message.startswith("BiLevelRoutingAttention 'attn_y0': ")
    assert words in message
    # TensorRT-RTX has no logger for plugins at this point, so the message is on stderr as well.
    assert words in capfd.readouterr().err
    # The process lives, and the builder still works.
    assert builder.parse(op_model(FLOAT_ATTRIBUTES, TensorProto.FLOAT, TensorProto.FLOAT)) is not None


def test_sizes_that_do_not_fit_are_refused_while_parsing(builder: Builder) -> None:
    model = op_model(FLOAT_ATTRIBUTES, TensorProto.FLOAT, TensorProto.FLOAT, ("n", 28, 27, 192))
    assert builder.parse(model) is None
    assert "got W=27; it must be a positive multiple of regions=7" in builder.plugin_errors()


def test_profiles_that_do_not_fit_are_refused_while_building(builder: Builder) -> None:
    model = op_model(FLOAT_ATTRIBUTES, TensorProto.FLOAT, TensorProto.FLOAT, ("n", "h", 28, 192))
    network = builder.parse(model)
    assert builder.build(network, shapes=((1, 28, 28, 192), (1, 28, 28, 192), (1, 30, 28, 192))) is None
    assert "got H=30; it must be a positive multiple of regions=7" in builder.plugin_errors()


def test_input_types_the_op_does_not_know_are_refused(builder: Builder) -> None:
    model = op_model(FLOAT_ATTRIBUTES, TensorProto.INT32, TensorProto.INT32)
    assert builder.parse(model) is None
    assert "the input must be FLOAT, HALF or BF16" in builder.plugin_errors()
