from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeformer.machine.devices import Gpu, GpuSurvey
from edgeformer.runtime import OnnxSession
from edgeformer.verify import Form, RoutingOutput, forms
from tests.raising import raises
from tests.runtime.conftest import make_model
from tests.verify.conftest import FunctionSession, gather_attention, images, linear_model, routing_model


def test_a_session_is_used_as_it_is() -> None:
    session = FunctionSession(lambda x: {"a": x, "r": x}, outputs=("a", "r"))
    routing = (RoutingOutput("r", 0, 1),)
    form = Form.from_session("pytorch", session, "export", routing=routing)
    assert (form.name, form.gate, form.runs, form.reason) == ("pytorch", "export", True, "")
    with form.opened() as opened:
        assert opened.session is session
        assert (opened.outputs, opened.routing) == (("a",), routing)


@pytest.mark.parametrize("close", [False, True])
def test_a_session_is_closed_where_that_is_asked_for(close: bool) -> None:
    session = FunctionSession(lambda x: x)
    with Form.from_session("pytorch", session, close=close).opened():
        assert not session.closed
    assert session.closed == close


def test_a_form_that_cannot_run_says_why() -> None:
    form = Form.not_run("engine", "engine not run: no GPU", "fp16")
    assert (form.gate, form.runs, form.reason) == ("fp16", False, "engine not run: no GPU")
    with raises("EF815", "'engine'", "no GPU"):
        form.opened()


@pytest.mark.parametrize("as_file", [False, True])
def test_an_onnx_model_shows_its_routing_and_its_own_outputs(as_file: bool, tmp_path: Path) -> None:
    model = routing_model()
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path)
    with Form.from_onnx("fused", path if as_file else model, threads=1).opened() as opened:
        assert isinstance(opened.session, OnnxSession)
        assert opened.outputs == ("logits",)
        assert [(output.stage, output.block) for output in opened.routing] == [(0, 5), (2, 5)]
        x = np.random.default_rng(1).standard_normal((2, 4, 6, 12)).astype(np.float32)
        given = opened.session.run({"input": x})
        np.testing.assert_array_equal(given["logits"], OnnxSession(model).run({"input": x})["logits"])
        assert [given[output.name].shape for output in opened.routing] == [(2, 4, 1), (2, 4, 3)]
    with raises("EF803"):
        opened.session.run({"input": x})
    assert model == routing_model()


def test_routing_that_is_an_output_stays_one() -> None:
    model = gather_attention("one")
    model.graph.output.append(helper.make_tensor_value_info("picked", TensorProto.INT64, ["n", 4, 2]))
    with Form.from_onnx("exported", model).opened() as opened:
        assert opened.outputs == ("y", "picked")
        assert [output.name for output in opened.routing] == ["picked"]


def test_a_file_is_read_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    form = Form.from_onnx("exported", path)
    with raises("EF301", path), form.opened():
        pass
    onnx.save_model(linear_model(np.eye(3)), path)
    with form.opened() as opened:
        assert opened.session.run({"input": images(2)})["logits"].shape == (2, 3)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with raises("EF102", tmp_path / "gone.onnx"):
        Form.from_onnx("exported", tmp_path / "gone.onnx")


def test_outputs_that_are_no_numbers_are_named() -> None:
    model = make_model(
        [helper.make_node("Cast", ["x"], ["text"], to=TensorProto.STRING)],
        [("x", TensorProto.FLOAT, ["n", 2])],
        [("text", TensorProto.STRING, ["n", 2])],
    )
    with raises("EF807", "'text'", "tensor(string)"), Form.from_onnx("exported", model).opened():
        pass


def survey(*gpus: Gpu) -> GpuSurvey:
    return GpuSurvey(gpus, "580.65" if gpus else None, "13.0" if gpus else None, "" if gpus else "no driver (test)")


def test_an_engine_without_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(forms, "find_gpus", survey)
    engine = Form.from_engine("engine", tmp_path / "model.engine", "int8")
    assert (engine.runs, engine.gate, engine.reason) == (False, "int8", "engine not run: no GPU")


def test_an_engine_of_another_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(forms, "find_gpus", lambda: survey(Gpu(0, "RTX 3070", 86, 1 << 33)))
    engine = Form.from_engine("engine", tmp_path / "model.engine", "int8", sms=(89,))
    assert engine.reason == "engine not run: it is for SM 89, and this machine's GPU is a RTX 3070 (SM 86)"
    several = Form.from_engine("engine", tmp_path / "model.engine", "int8", sms=(80, 89, 120))
    assert "it is for SM 80, 89, 120, and" in several.reason
    assert not engine.runs


@pytest.mark.parametrize("sms", [(86,), (), (80, 86, 89)])
def test_an_engine_without_tensorrt(sms: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = survey(Gpu(0, "GPU", 86, 1 << 33))
    monkeypatch.setattr(forms, "find_gpus", lambda: found)
    monkeypatch.setattr("edgeformer.runtime.gpu.find_gpus", lambda: found)
    monkeypatch.setattr("edgeformer.runtime.gpu.has_tensorrt", lambda _: False)
    engine = Form.from_engine(
        "engine", tmp_path / "model.engine", "int8", flavour="tensorrt_rtx", sms=sms, trusted=True
    )
    assert not engine.runs
    assert engine.reason.startswith("engine not run: the library of tensorrt_rtx is not there: pip install")


def test_an_engine_that_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(forms, "find_gpus", lambda: survey(Gpu(0, "GPU", 86, 1 << 33)))
    monkeypatch.setattr(forms, "can_run_engine", lambda *_, **__: True)
    engine = Form.from_engine("engine", tmp_path / "model.engine", "int8", flavour="tensorrt", sms=(86,))
    assert (engine.runs, engine.reason) == (False, "engine not run: untrusted, give --trust-bundle or --key")


def test_an_engine_is_loaded_when_it_is_opened_and_closed_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events: list[object] = []

    class Engine(FunctionSession):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(lambda x: x)
            events.append((arguments, options))

        def close(self) -> None:
            events.append("closed")

    monkeypatch.setattr(forms, "find_gpus", lambda: survey(Gpu(0, "GPU", 86, 1 << 33)))
    monkeypatch.setattr(forms, "can_run_engine", lambda *_, **__: True)
    monkeypatch.setattr(forms, "EngineSession", Engine)
    path, plugin = tmp_path / "model.engine", tmp_path / "plugin.so"
    form = Form.from_engine("engine", path, "fp16", plugin_library=plugin, flavour="tensorrt", sms=(86,), trusted=True)
    assert events == []
    with form.opened() as opened:
        assert opened.outputs == ("logits",)
        options = {"flavour": "tensorrt", "trust_bundle": True, "embedded_plugin": False}
        assert events == [((path, plugin), options)]
    assert events[1:] == ["closed"]
