"""What can be tested without a GPU: the failure paths and the pure logic. No engine is run here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeformer.machine.devices import find_gpus
from edgeformer.machine.engine_code import EngineCode
from edgeformer.records.terms import Flavour
from edgeformer.runtime import EngineSession, Session
from edgeformer.runtime import engine_session as module
from edgeformer.runtime.engine_session import choose_flavour, deserialize, tensor_info
from tests.raising import raises

without_gpu = pytest.mark.skipif(bool(find_gpus().gpus), reason="this machine has a GPU")


@without_gpu
def test_no_gpu(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    with raises("EF650", find_gpus().problem):
        EngineSession(path)


@pytest.mark.parametrize("missing", ["model.engine", "plugins.so"])
def test_no_such_file(tmp_path: Path, missing: str) -> None:
    for name in {"model.engine", "plugins.so"} - {missing}:
        (tmp_path / name).write_bytes(b"x")
    with raises("EF102", tmp_path / missing):
        EngineSession(tmp_path / "model.engine", tmp_path / "plugins.so")


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
def test_the_flavour_asked_for(flavour: Flavour) -> None:
    assert choose_flavour(flavour, ()) == flavour


def test_the_only_flavour_there_is() -> None:
    assert choose_flavour(None, ("tensorrt_rtx",)) == "tensorrt_rtx"


def test_no_flavour_and_two_flavours() -> None:
    with raises("EF605", "tensorrt", "tensorrt_rtx", "pip install"):
        choose_flavour(None, ())
    with raises("EF103", "tensorrt", "tensorrt_rtx", "flavour="):
        choose_flavour(None, ("tensorrt", "tensorrt_rtx"))


def test_tensor_info_of_an_engines_tensor() -> None:
    assert tensor_info(np.float32, (-1, 3, 224, -1)) == (np.dtype(np.float32), ("dim0", 3, 224, "dim3"))


def test_bfloat16_at_the_engines_border_is_refused() -> None:
    from polygraphy.datatype import DataType

    with raises("EF807", "bfloat16", "FP32"):
        tensor_info(DataType.BFLOAT16, (1,))


class FakeRunner:
    """As much of Polygraphy's TrtRunner as a session needs: y = 2 x."""

    def __init__(self, dtype: Any = np.float32) -> None:
        self.is_active = True
        self.engine = SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=lambda index: "xy"[index],
            get_tensor_mode=lambda name: SimpleNamespace(name="INPUT" if name == "x" else "OUTPUT"),
            get_tensor_dtype=lambda _: dtype,
            get_tensor_shape=lambda _: (-1, 3),
        )

    def infer(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": 2 * feeds["x"]}

    def deactivate(self) -> None:
        assert self.is_active
        self.is_active = False


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    monkeypatch.setattr(module, "can_run_engine", lambda *_, **__: True)
    return path


def test_a_session_is_closed_once_and_says_so(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FakeRunner()
    monkeypatch.setattr(module, "_make_runner", lambda *_: runner)
    x = np.ones((2, 3), np.float32)
    with EngineSession(engine, flavour="tensorrt_rtx") as session:
        assert isinstance(session, Session)
        np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x)
        assert runner.is_active
    assert not runner.is_active
    session.close()
    with raises("EF803", engine):
        session.run({"x": x})


def test_an_engine_that_cannot_be_described_is_freed(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polygraphy.datatype import DataType

    runner = FakeRunner(DataType.BFLOAT16)
    monkeypatch.setattr(module, "_make_runner", lambda *_: runner)
    with raises("EF807", "bfloat16", "FP32"):
        EngineSession(engine, flavour="tensorrt_rtx")
    assert not runner.is_active


@without_gpu
def test_an_engine_that_cannot_be_loaded_keeps_tensorrts_words(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "model.engine"
    path.write_bytes(b"not an engine" * 20)
    with raises("EF651", path, "tensorrt_rtx", "Serialization"):
        module._make_runner(path, EngineCode(path.read_bytes(), False, None, None), "tensorrt_rtx")


@pytest.mark.parametrize("embedded", [False, True])
def test_host_code_runs_only_where_it_was_embedded_on_purpose(embedded: bool) -> None:
    class Runtime:
        engine_host_code_allowed = not embedded

        def deserialize_cuda_engine(self, content: bytes) -> tuple[bytes, bool]:
            return content, self.engine_host_code_allowed

    assert deserialize(Runtime(), EngineCode(b"engine", embedded, None, None)) == (b"engine", embedded)


def test_an_engine_of_a_bundle_needs_trust(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_make_runner", lambda *_: FakeRunner())
    (engine.parent / "manifest.json").write_text("{}")
    with raises("EF671", engine, "trust_bundle=True", "key="):
        EngineSession(engine, flavour="tensorrt_rtx")
    EngineSession(engine, flavour="tensorrt_rtx", trust_bundle=True).close()
