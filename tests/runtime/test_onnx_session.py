from __future__ import annotations

import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeformer.ops.bi_level_routing_attention import Attributes, reference, with_function
from edgeformer.runtime import OnnxSession, Session
from edgeformer.runtime.onnx_session import PlainSession
from edgeformer.supervision.limits import time_limit
from tests.endless import endless_loop
from tests.raising import raises
from tests.runtime.conftest import make_model, scale_model

X = np.array([[1.0, -2.0, 0.5]], np.float32)


def options_of(session: OnnxSession) -> Any:
    assert session._session is not None
    return session._session.get_session_options()


@pytest.mark.parametrize("form", ["proto", "bytes", "path", "text path"])
def test_it_takes_a_model_in_any_form(tmp_path: Path, form: str) -> None:
    model = scale_model(3.0)
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path)
    source = {"proto": model, "bytes": model.SerializeToString(), "path": path, "text path": str(path)}[form]
    session = OnnxSession(source)
    assert isinstance(session, Session)
    assert session.inputs["x"] == (np.dtype(np.float32), ("batch", 3))
    assert session.outputs["y"] == (np.dtype(np.float32), ("batch", 3))
    np.testing.assert_array_equal(session.run({"x": X})["y"], 3 * X)


def test_external_data_beside_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = scale_model(3.0)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full(3, 3.0, np.float32), "factor"))
    onnx.save_model(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    np.testing.assert_array_equal(OnnxSession(path).run({"x": X})["y"], 3 * X)
    (tmp_path / "m.data").unlink()
    with raises("EF804", path, "m.data"):
        OnnxSession(path)


def test_the_body_of_the_op_is_run() -> None:
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
def test_optimization_and_threads(optimization: Any) -> None:
    session = OnnxSession(scale_model(), optimization=optimization, threads=1)
    options = options_of(session)
    assert options.intra_op_num_threads == 1
    assert options.graph_optimization_level.name.removeprefix("ORT_").lower() in (
        f"enable_{optimization}",
        "disable_all" if optimization == "none" else "",
    )
    np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)


def test_quantization_is_run_as_written() -> None:
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
    assert options_of(session).get_session_config_entry("session.disable_quant_qdq") == "1"


def test_threads_sleep_while_they_wait() -> None:
    assert options_of(OnnxSession(scale_model())).get_session_config_entry("session.intra_op.allow_spinning") == "0"


def chain_model() -> onnx.ModelProto:
    """a = x * factor, b = relu(a), y = a + b; factor is [1, 2, 3]."""
    return make_model(
        [
            helper.make_node("Mul", ["x", "factor"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.FLOAT, ["batch", 3]), ("b", TensorProto.FLOAT, ["batch", 3])],
        {"factor": np.array([1.0, 2.0, 3.0], np.float32)},
    )


CHAIN = {
    "x": X,
    "a": X * [1, 2, 3],
    "b": np.maximum(X * [1, 2, 3], 0),
    "y": X * [1, 2, 3] + np.maximum(X * [1, 2, 3], 0),
    "factor": [1, 2, 3],
}


@pytest.mark.parametrize("optimization", ["none", "all"])
@pytest.mark.parametrize("form", ["proto", "bytes", "path", "external"])
@pytest.mark.parametrize("outputs", [["b"], ["a", "y"], ["a", "a"], ["x", "factor", "y"], []])
def test_it_gives_the_tensors_that_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: list[str], form: str, optimization: Any
) -> None:
    model = chain_model()
    path = tmp_path / "m.onnx"
    external = form == "external"
    onnx.save_model(chain_model(), path, save_as_external_data=external, location="m.data", size_threshold=0)
    monkeypatch.chdir(tmp_path.parent)
    before = model.SerializeToString()
    source = {"proto": model, "bytes": before}.get(form, path)
    session = OnnxSession(source, outputs=outputs, optimization=optimization)
    found = session.run({"x": X})
    assert list(found) == list(session.outputs) == list(dict.fromkeys(outputs))
    for name, value in found.items():
        assert session.outputs[name].dtype == np.float32
        np.testing.assert_array_equal(value, CHAIN[name])
    assert model.SerializeToString() == before


def test_a_tensor_inside_a_bfloat16_model_is_given_rounded() -> None:
    model = make_model(
        [
            helper.make_node("Cast", ["x"], ["half"], to=TensorProto.BFLOAT16),
            helper.make_node("Cast", ["half"], ["y"], to=TensorProto.FLOAT),
        ],
        [("x", TensorProto.FLOAT, [1, 3])],
        [("y", TensorProto.FLOAT, [1, 3])],
    )
    found = OnnxSession(model, outputs=["half"]).run({"x": X + np.float32(1e-3)})
    np.testing.assert_array_equal(found["half"], X)


@pytest.mark.parametrize("form", ["proto", "bytes", "path"])
def test_a_tensor_that_the_model_does_not_have(tmp_path: Path, form: str) -> None:
    onnx.save_model(chain_model(), tmp_path / "m.onnx")
    source = {"proto": chain_model(), "bytes": chain_model().SerializeToString()}.get(form, tmp_path / "m.onnx")
    with raises("EF806", "'c', 'z'", "'y', 'b'"):
        OnnxSession(source, outputs=["a", "c", "z"])


def test_a_closed_session_says_so() -> None:
    with OnnxSession(scale_model()) as session:
        session.run({"x": X})
    with raises("EF803", "'small'"):
        session.run({"x": X})
    session.close()
    assert list(session.inputs) == ["x"]


def test_closing_frees_the_model() -> None:
    session = OnnxSession(scale_model())
    alive = weakref.ref(session._session)
    session.close()
    assert alive() is None


def test_it_keeps_no_copy_of_the_model() -> None:
    """ONNX Runtime's Python session would keep the bytes it was made from."""
    model = make_model(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 1024])],
        [("y", TensorProto.FLOAT, ["batch", 1024])],
        {"weight": np.ones((1024, 1024), np.float32)},
    )
    tracemalloc.start()
    try:
        session = OnnxSession(model)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 4 << 20, "the serialized weights are traced"
    assert kept < 1 << 20
    assert session.run({"x": np.ones((1, 1024), np.float32)})["y"][0, 0] == 1024


@pytest.mark.slow
def test_memory_is_given_back_after_a_run() -> None:
    """Forty activations of 64 MB, of which two live at a time: the arena would keep them, and the layout of all."""
    code = """
import numpy as np, onnx, sys
from onnx import TensorProto, helper
from edgeformer.runtime import OnnxSession

def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20

nodes = [helper.make_node('Sin', [f't{i}'], [f't{i + 1}']) for i in range(40)]
nodes.append(helper.make_node('ReduceMean', ['t40'], ['y'], keepdims=0))
values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (('t0', ['n', 1024]), ('y', []))]
graph = helper.make_graph(nodes, 'g', values[:1], values[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
session = OnnxSession(model)
small, large = (np.ones((rows, 1024), np.float32) for rows in (16, 16384))
session.run({'t0': small})
before = resident()
session.run({'t0': large})
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 32


def test_a_failing_session_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with raises("EF805"):
        OnnxSession(broken_reshape()).run({"x": X})
    with raises("EF804"):
        OnnxSession(unknown_op())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("feeds", "named"),
    [
        ({"x": X.astype(np.float16)}, "float16 [1, 3]"),
        ({"x": X[:, :2]}, "float32 [1, 2]"),
        ({"input": X}, "'input'"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, np.ndarray], named: str) -> None:
    with raises("EF802", "'x'", "float32 [batch, 3]", named):
        OnnxSession(scale_model()).run(feeds)


def broken_reshape() -> onnx.ModelProto:
    return make_model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], "squeeze")],
        [("x", TensorProto.FLOAT, ["n", 3])],
        [("y", TensorProto.FLOAT, [2, 3])],
        {"shape": np.array([2, 3])},
    )


def test_a_run_that_fails_says_why() -> None:
    with raises("EF805", "'small'", "squeeze"):
        OnnxSession(broken_reshape()).run({"x": X})


def test_no_such_file(tmp_path: Path) -> None:
    with raises("EF102", tmp_path / "nothing.onnx"):
        OnnxSession(tmp_path / "nothing.onnx")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "words.onnx"
    path.write_bytes(b"\xff\xfenot a model")
    with raises("EF301", path):
        OnnxSession(path)


def test_bytes_that_are_no_model() -> None:
    with raises("EF301", "4 bytes"):
        OnnxSession(b"\xff\xff\xff\xff")


def unknown_op() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Nothing", ["x"], ["y"], domain="nowhere")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("nowhere", 1)])


def test_an_op_that_the_runtime_does_not_know() -> None:
    with raises("EF804", "'g'", "nowhere"):
        OnnxSession(unknown_op())


def test_an_output_that_is_no_tensor() -> None:
    model = make_model(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        [("x", TensorProto.FLOAT, [1])],
        [],
    )
    model.graph.output.add().CopyFrom(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    with raises("EF807", "'s'", "seq(tensor(float))", "float32"):
        OnnxSession(model)


def test_a_run_that_never_ends_is_stopped_and_the_next_one_runs() -> None:
    image = {"x": np.ones((1, 3, 32, 32), np.float32)}
    with OnnxSession(endless_loop()) as session, raises("EF881", "'endless'", "0.5 s", "time_limit"), time_limit(0.5):
        session.run(image)
    with OnnxSession(endless_loop(rounds=20_000)) as session:
        with raises("EF881"), time_limit(0.001):
            session.run(image)
        assert np.array_equal(session.run(image)["y"], image["x"])


def test_loading_that_takes_long_is_stopped() -> None:
    """Constants that ONNX Runtime computes when it loads the model."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c0"], value=helper.make_tensor("v", 1, [1], [1.0])),
        *(helper.make_node("MatMul", [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(12)),
        helper.make_node("ReduceMax", ["c12"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2000, 2000])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "folded", values[:1], values[1:], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with raises("EF881", "loading", "'folded'", "0.2 s"), time_limit(0.2):
        OnnxSession(model)


def test_a_plain_session_is_onnx_runtimes_own(tmp_path: Path) -> None:
    path = tmp_path / "add.onnx"
    model = make_model(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT16, ["batch", 2])],
        [("y", TensorProto.FLOAT16, ["batch", 2])],
    )
    path.write_bytes(model.SerializeToString())
    plain = PlainSession.load(path, threads=1)
    assert plain.inputs["x"].dtype == np.float16
    assert list(plain.inputs["x"].shape) == ["batch", 2]
    assert (plain.provider, plain.version) == ("CPUExecutionProvider", onnxruntime.__version__)
    (found,) = plain.session.run(None, {"x": np.ones((3, 2), np.float16)})
    assert found.tolist() == [[2, 2]] * 3
    path.write_bytes(b"no model")
    with raises("EF804", path):
        PlainSession.load(path)
