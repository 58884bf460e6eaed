from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeformer.errors import InputError
from edgeformer.ops.bi_level_routing_attention import Attributes, reference, with_function
from edgeformer.runtime import OnnxSession, Session
from tests.runtime.conftest import make_model, scale_model

X = np.array([[1.0, -2.0, 0.5]], np.float32)


@pytest.mark.parametrize("form", ["proto", "bytes", "path", "text path"])
def test_it_takes_a_model_in_any_form(tmp_path, form):
    model = scale_model(3.0)
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path)
    source = {"proto": model, "bytes": model.SerializeToString(), "path": path, "text path": str(path)}[form]
    session = OnnxSession(source)
    assert isinstance(session, Session)
    assert session.inputs["x"] == (np.dtype(np.float32), ("batch", 3))
    assert session.outputs["y"] == (np.dtype(np.float32), ("batch", 3))
    np.testing.assert_array_equal(session.run({"x": X})["y"], 3 * X)


def test_external_data_beside_the_file_is_found(tmp_path):
    path = tmp_path / "m.onnx"
    model = scale_model(3.0)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full(3, 3.0, np.float32), "factor"))
    onnx.save_model(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    np.testing.assert_array_equal(OnnxSession(path).run({"x": X})["y"], 3 * X)
    (tmp_path / "m.data").unlink()
    with pytest.raises(InputError, match=r"m\.onnx cannot be run by ONNX Runtime"):
        OnnxSession(path)


def test_the_body_of_the_op_is_run():
    attributes = Attributes(num_heads=2, regions=2, topk=3, qk_dim=8, scale=8**-0.5)
    node = attributes.make_node("qkv", "out", "block")
    graph = helper.make_graph(
        [node],
        "op",
        [helper.make_tensor_value_info("qkv", TensorProto.FLOAT, ["n", 6, 4, 28])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 6, 4, 12])],
    )
    model = with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    qkv = np.random.default_rng(5).standard_normal((2, 6, 4, 28), np.float32)
    np.testing.assert_allclose(OnnxSession(model).run({"qkv": qkv})["out"], reference(qkv, attributes), atol=1e-5)


@pytest.mark.parametrize("optimization", ["none", "basic", "extended", "all"])
def test_optimisation_and_threads(optimization):
    session = OnnxSession(scale_model(), optimization=optimization, threads=1)
    options = session.inference_session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.graph_optimization_level.name.removeprefix("ORT_").lower() in (
        f"enable_{optimization}",
        "disable_all" if optimization == "none" else "",
    )
    np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)


def test_quantisation_is_run_as_written():
    """Products of +-127 add up beyond what 16 bits hold, where an integer kernel without VNNI saturates."""
    size = 64
    weight = np.full((size, 2), 127, np.int8)
    model = make_model(
        [
            helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "step", "zero"], ["wd"]),
            helper.make_node("MatMul", ["d", "wd"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, [1, size])],
        [("y", TensorProto.FLOAT, [1, 2])],
        {"w": weight, "step": np.array(0.5, np.float32), "zero": np.array(0, np.int8)},
    )
    session = OnnxSession(model)
    y = session.run({"x": np.full((1, size), 63.5, np.float32)})["y"]
    np.testing.assert_array_equal(y, np.full((1, 2), size * 63.5 * 63.5, np.float32))
    assert session.inference_session.get_session_options().get_session_config_entry("session.disable_quant_qdq") == "1"


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": X.astype(np.float16)}, r"expected float32 \[batch, 3\], got float16 \[1, 3\]"),
        ({"x": X[:, :2]}, r"expected float32 \[batch, 3\], got float32 \[1, 2\]"),
        ({"input": X}, "input 'x' is missing"),
    ],
)
def test_feeds_that_do_not_fit(feeds, message):
    with pytest.raises(InputError, match=message):
        OnnxSession(scale_model()).run(feeds)


def test_a_run_that_fails_says_why():
    model = make_model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], "squeeze")],
        [("x", TensorProto.FLOAT, ["n", 3])],
        [("y", TensorProto.FLOAT, [2, 3])],
        {"shape": np.array([2, 3])},
    )
    with pytest.raises(InputError, match=r"the model 'small' failed in ONNX Runtime.*squeeze"):
        OnnxSession(model).run({"x": X})


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.onnx: there is no such file"):
        OnnxSession(tmp_path / "nothing.onnx")


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "words.onnx"
    path.write_bytes(b"\xff\xfenot a model")
    with pytest.raises(InputError, match=r"words\.onnx: not an ONNX model"):
        OnnxSession(path)


def test_bytes_that_are_no_model():
    with pytest.raises(InputError, match="these 4 bytes are not an ONNX model"):
        OnnxSession(b"\xff\xff\xff\xff")


def test_an_op_that_the_runtime_does_not_know():
    graph = helper.make_graph(
        [helper.make_node("Nothing", ["x"], ["y"], domain="nowhere")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("nowhere", 1)])
    with pytest.raises(InputError, match=r"cannot be run by ONNX Runtime.*nowhere"):
        OnnxSession(model)


def test_an_output_that_is_no_tensor():
    model = make_model(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        [("x", TensorProto.FLOAT, [1])],
        [],
    )
    model.graph.output.add().CopyFrom(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    with pytest.raises(InputError, match=r"'s' is a seq\(tensor\(float\)\)"):
        OnnxSession(model)
