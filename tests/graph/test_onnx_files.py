"""Loading and saving ONNX files: the good case, and every way in which a file can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph import onnx_files
from edgeformer.graph.onnx_files import load_model, save_model
from tests.raising import raises

WEIGHT = np.arange(2048, dtype=np.float32).reshape(32, 64)


def small_model() -> onnx.ModelProto:
    """``output = input @ weight``."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weight lies in ``weights.bin`` beside it."""
    path = tmp_path / "model.onnx"
    onnx.save_model(small_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_saved_and_loaded_again_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "model.onnx"
    save_model(small_model(), path)

    assert load_model(path) == small_model()
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_external_data_is_read_into_the_model(external: Path) -> None:
    model = load_model(external)

    assert model == small_model()


def test_missing_file(tmp_path: Path) -> None:
    with raises("EF102", tmp_path / "absent.onnx"):
        load_model(tmp_path / "absent.onnx")


def test_folder(tmp_path: Path) -> None:
    with raises("EF102", tmp_path, "folder"):
        load_model(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    save_model(small_model(), path)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with raises("EF102", path, "Permission denied"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "missing"),
    [(b"", "IR version"), (b"\x08\x07", "node"), (b"\x12\x03abc", "IR version")],
    ids=["empty", "version only", "no version"],
)
def test_protobuf_that_is_not_a_model(tmp_path: Path, content: bytes, missing: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with raises("EF301", path, f"without {missing}"):
        load_model(path)


@pytest.mark.parametrize("content", [b"not a model at all", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_other_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with raises("EF301", path):
        load_model(path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.95])
def test_truncated_file(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "model.onnx"
    content = small_model().SerializeToString()
    path.write_bytes(content[: int(len(content) * kept)])
    with raises("EF301", path):
        load_model(path)


def test_empty_graph(tmp_path: Path) -> None:
    model = small_model()
    del model.graph.node[:]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with raises("EF301", path, "without node"):
        load_model(path)


def test_model_that_breaks_the_rules_of_onnx(tmp_path: Path) -> None:
    model = small_model()
    model.graph.node[0].input[1] = "absent"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with raises("EF302", path, "absent"):
        load_model(path)


def test_nodes_in_another_order_are_sorted(tmp_path: Path) -> None:
    model = small_model()
    model.graph.node.insert(0, helper.make_node("Relu", ["output"], ["positive"]))
    model.graph.output[0].name = "positive"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())

    assert [node.op_type for node in load_model(path).graph.node] == ["MatMul", "Relu"]


def test_missing_external_data(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with raises("EF303", external, "weights.bin is missing"):
        load_model(external)


def test_external_data_that_is_too_short(external: Path) -> None:
    weights = external.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with raises("EF303", external, weights, "100 bytes"):
        load_model(external)


@pytest.mark.parametrize("absolute", [True, False])
def test_external_data_outside_the_folder(external: Path, absolute: bool) -> None:
    folder = external.parent / "inner"
    folder.mkdir()
    model = onnx.load_model(external, load_external_data=False)
    location = str(external.parent / "weights.bin") if absolute else "../weights.bin"
    next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with raises("EF303", repr(location), "outside"):
        load_model(folder / "model.onnx")


def test_external_data_behind_a_link_out_of_the_folder(external: Path) -> None:
    folder = external.parent / "inner"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(external.read_bytes())
    (folder / "weights.bin").symlink_to(external.parent / "weights.bin")
    with raises("EF303", "'weights.bin'", "outside"):
        load_model(folder / "model.onnx")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [("offset", "-4", "weights.bin"), ("length", "many", "'many'"), ("location", "", "'weight'")],
)
def test_external_data_with_nonsense_in_it(external: Path, key: str, value: str, named: str) -> None:
    model = onnx.load_model(external, load_external_data=False)
    entries = {entry.key: entry for entry in model.graph.initializer[0].external_data}
    (entries.get(key) or model.graph.initializer[0].external_data.add(key=key)).value = value
    external.write_bytes(model.SerializeToString())
    with raises("EF303", external, named):
        load_model(external)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    model = small_model()
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "second"))
    for tensor, location in zip(model.graph.initializer, ("one.bin", "two.bin"), strict=True):
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with raises("EF303", "one.bin is missing", "two.bin is missing"):
        load_model(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old one")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(small_model(), path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_beyond_the_limit_of_protobuf_gets_a_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "_LARGEST_MESSAGE", 4096)
    path = tmp_path / "model.onnx"
    model = small_model()
    neighbour = tmp_path / "model.onnx.data"
    neighbour.write_bytes(b"weights of the file that is replaced")

    save_model(model, path)

    assert neighbour.read_bytes() == b"weights of the file that is replaced"
    neighbour.unlink()

    assert model == small_model()
    assert path.stat().st_size < 4096
    (data,) = [file for file in tmp_path.iterdir() if file != path]
    assert data.name.startswith("model.onnx.")
    assert data.stat().st_size == WEIGHT.nbytes
    assert load_model(path) == small_model()
    # Another model does not touch the file that the first one needs before it is replaced.
    other = small_model()
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT + 1, "weight"))
    save_model(other, path)
    assert data.exists()
    np.testing.assert_array_equal(numpy_helper.to_array(load_model(path).graph.initializer[0]), WEIGHT + 1)
