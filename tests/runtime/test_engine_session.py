"""Engines in the runtime library. There is no GPU: driver and TensorRT are stand-ins where an engine is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.runtime_faults.faults import Flavour, make_bundle
from edgeformer.inference.description import TensorDescription
from edgeformer.machine.devices import find_gpus
from edgeformer.machine.engine_code import EngineCode
from edgeformer.ops.memory import bfloat16
from edgeformer.runtime import EngineSession
from edgeformer.runtime import engine_session as module
from edgeformer.runtime.engine_session import tensor_infos
from tests.raising import raises
from tests.stand_ins import run_with_stand_ins

without_gpu = pytest.mark.skipif(bool(find_gpus().gpus), reason="this machine has a GPU")

# What an engine of the stand-ins computes: logits[n, k] = (k + 1) * sum(image[n]).
USE = """
import sys
import numpy as np
from edgeformer.errors import EdgeformerError
from edgeformer.runtime import EngineSession, Session
images = np.random.default_rng(3).normal(size=(3, 3, 2, 2)).astype(np.float32)
def attempt(call):
    try:
        return call()
    except EdgeformerError as error:
        print(error.code, error)
with EngineSession(sys.argv[1], **eval(sys.argv[2])) as session:
    assert isinstance(session, Session)
    print({name: str(info) for name, info in (*session.inputs.items(), *session.outputs.items())})
    logits = session.run({"image": images})["logits"]
    expected = images.sum((1, 2, 3))[:, None] * np.arange(1, 6)
    print(np.abs(logits - expected).max() < 1e-5, session.run({"image": images[::-1]})["logits"] is not logits)
    attempt(lambda: session.run({"image": images.astype(np.float64)}))
    attempt(lambda: session.run({"image": np.zeros((9, 3, 2, 2), np.float32)}))
session.close()
attempt(lambda: session.run({"image": images}))
"""


def put_engine(folder: Path, flavour: Flavour = "tensorrt_rtx") -> Path:
    """An engine in no bundle."""
    bundle = make_bundle(folder / "bundle", flavour)
    return (bundle / "model.engine").rename(folder / "model.engine")


@pytest.mark.parametrize(
    ("flavour", "options"),
    [("tensorrt_rtx", {"flavour": "tensorrt_rtx"}), ("tensorrt_rtx", {}), ("tensorrt", {"flavour": "tensorrt"})],
)
def test_an_engine_runs(flavour: Flavour, options: dict[str, Any], tmp_path: Path) -> None:
    engine = put_engine(tmp_path, flavour)
    done = run_with_stand_ins(USE, engine, repr(options), folder=tmp_path, flavour=flavour)
    tensors, right, wrong_type, too_many, closed = done.printed
    assert tensors == str({"image": "float32 [dim0, 3, 2, 2]", "logits": "float32 [dim0, 5]"})
    assert right == "True True"
    assert wrong_type.startswith("EF802 ")
    assert "float64" in wrong_type
    assert too_many.startswith("EF760 ")
    assert "[9, 3, 2, 2]" in too_many
    assert closed.startswith(f"EF803 {engine}")
    assert done.done == ["deserialized", "enqueued", "enqueued"]


OPEN = """
import sys
from edgeformer.errors import EdgeformerError
from edgeformer.runtime import EngineSession
try:
    EngineSession(sys.argv[1], **eval(sys.argv[2])).close()
    print("opened")
except EdgeformerError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize("embedded", [False, True])
def test_host_code_runs_only_where_it_was_embedded_on_purpose(embedded: bool, tmp_path: Path) -> None:
    done = run_with_stand_ins(
        OPEN, put_engine(tmp_path), repr({"embedded_plugin": embedded}), folder=tmp_path, flavour="tensorrt_rtx"
    )
    assert done.printed == ["opened"]
    assert done.done == [*(["host_code_allowed"] if embedded else []), "deserialized"]


def test_an_engine_of_a_bundle_needs_trust(tmp_path: Path) -> None:
    engine = make_bundle(tmp_path / "bundle") / "model.engine"
    with raises("EF671", engine, "trust_bundle=True", "key="):
        EngineSession(engine, flavour="tensorrt_rtx")
    done = run_with_stand_ins(OPEN, engine, repr({"trust_bundle": True}), folder=tmp_path)
    assert done.printed == ["opened"]


def test_an_engine_that_is_damaged_is_not_deserialized(tmp_path: Path) -> None:
    engine = put_engine(tmp_path)
    engine.write_bytes(engine.read_bytes()[:-100])
    done = run_with_stand_ins(OPEN, engine, "{}", folder=tmp_path)
    (message,) = done.printed
    assert message.startswith("EF630 ")
    assert str(engine) in message
    assert done.done == []


def test_the_bytes_that_were_checked_are_those_that_are_loaded(tmp_path: Path) -> None:
    """Whatever becomes of the file meanwhile."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom edgeformer.inference.loading import load_engine\n"
        "content = Path(sys.argv[1]).read_bytes()\nPath(sys.argv[1]).unlink()\n"
        "print(load_engine(sys.argv[1], content).describe().file)\n"
    )
    engine = put_engine(tmp_path)
    done = run_with_stand_ins(code, engine, folder=tmp_path)
    assert done.printed == [str(engine)]
    assert done.done == ["deserialized"]


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


def described(dtype: Any) -> TensorDescription:
    return TensorDescription("x", np.dtype(dtype), (None, 3, 224, None), (1, 3, 224, 1), (1, 3, 224, 1), (1, 3, 224, 9))


def test_free_sizes_have_names() -> None:
    assert tensor_infos([described(np.float32)]) == {"x": (np.dtype(np.float32), ("dim0", 3, 224, "dim3"))}


def test_bfloat16_at_the_engines_border_is_refused() -> None:
    with raises("EF807", "x", "bfloat16", "FP32"):
        tensor_infos([described(bfloat16)])


class FakeModel:
    """What the runtime library would load."""

    def __init__(self) -> None:
        self.closed = False

    def describe(self) -> Any:
        return type("Description", (), {"inputs": [described(bfloat16)], "outputs": []})

    def close(self) -> None:
        self.closed = True


def test_an_engine_that_cannot_be_described_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model, asked = tmp_path / "model.engine", FakeModel(), []
    path.write_bytes(b"engine")
    plugins = tmp_path / "plugins.so"
    plugins.write_bytes(b"library")

    def load_engine(*arguments: Any, **options: Any) -> FakeModel:
        asked.append((arguments, options))
        return model

    monkeypatch.setattr(module, "can_run_engine", lambda *_, **__: True)
    monkeypatch.setattr(module, "load_engine", load_engine)
    with raises("EF807", "bfloat16", "FP32"):
        EngineSession(path, plugins, flavour="tensorrt", embedded_plugin=True)
    assert model.closed
    code = EngineCode(b"engine", True, plugins)
    options = {"flavour": "tensorrt", "plugin_library": code.library, "embedded_plugin": code.host_code}
    assert asked == [((path, code.content), options)]
