"""What is published holds no path of the machine that made it, and no notes on the sources."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgeformer.graph.onnx_files import load_model
from edgeformer.pipeline import BuildResult, build
from edgeformer.pipeline.published import without_notes, without_paths
from edgeformer.records.base import Record
from tests.present import present


class Texts(Record):
    text: str
    inner: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    number: float = 0.5


def hidden(text: str, *given: object) -> str:
    return without_paths(Texts(text=text), given).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read {home}/models/a.onnx: gone", "cannot read a.onnx: gone"),
        ("in {tmp}/edgeformer-engine-x1/model.onnx.", "in model.onnx."),
        ("'{tmp}/a', ({tmp}/b/c); {home}/d", "'a', (c); d"),
        ("made in /usr/lib/libx.so here", "made in libx.so here"),
        ("/stages.0/attn/MatMul_output_0 and /a/b", "/stages.0/attn/MatMul_output_0 and /a/b"),
        ("1/2 of input/output, https://example.org/tmp/x", "1/2 of input/output, https://example.org/tmp/x"),
    ],
)
def test_paths_become_names_and_node_names_stay(text: str, expected: str) -> None:
    assert hidden(text.format(home=Path.home(), tmp=tempfile.gettempdir())) == expected


def test_what_the_user_gave_may_have_spaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hidden(f"images of {tmp_path}/My Data, 3", tmp_path / "My Data") == "images of My Data, 3"
    monkeypatch.chdir(tmp_path)
    assert hidden(f"images of {tmp_path}/my set/a", "my set/a", None, 3) == "images of a"


def test_texts_are_found_wherever_they_are(tmp_path: Path) -> None:
    record = Texts(text="", inner={"/key": (f"{tmp_path}/x", "y")})
    assert without_paths(record) == Texts(text="", inner={"/key": ("x", "y")})


def noted_model() -> onnx.ModelProto:
    """A model with notes of its exporter in every place that can hold some."""
    trace = 'File "/home/somebody/secret/model.py", line 3, in forward'
    value = helper.make_tensor_value_info
    inner = helper.make_node("Identity", ["c"], ["i"], doc_string=trace)
    branch = helper.make_graph([inner], "branch", [], [value("i", 1, [1])], doc_string=trace)
    nodes = [
        helper.make_node("If", ["b"], ["y"], then_branch=branch, else_branch=branch, doc_string=trace),
        helper.make_node("F", ["x"], ["z"], domain="own"),
    ]
    nodes[1].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
    nodes[1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'stages.0']")
    nodes[1].metadata_props.add(key="own.note", value="kept")
    weights = [helper.make_tensor("c", TensorProto.FLOAT, [1], [2.0])]
    inputs, outputs = [value("b", 9, []), value("x", 1, [1])], [value("y", 1, [1]), value("z", 1, [1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=weights, doc_string=trace)
    for item in (graph, graph.input[0], graph.output[0], graph.initializer[0]):
        item.metadata_props.add(key="pkg.onnxscript.source", value=trace)
    graph.input[1].doc_string = graph.initializer[0].doc_string = trace
    function = helper.make_function(
        "own",
        "F",
        ["x"],
        ["z"],
        [helper.make_node("Relu", ["x"], ["z"], doc_string=trace)],
        [helper.make_opsetid("", 18)],
    )
    function.doc_string = trace
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], doc_string=trace, ir_version=10)
    model.metadata_props.add(key="args", value=f"data={Path.home()}/secret/data.yaml")
    return model


def test_notes_of_an_exporter_go_wherever_they_are() -> None:
    model = noted_model()
    assert model.SerializeToString().count(b"/secret/") > 12
    without_notes(model)
    assert b"secret" not in model.SerializeToString()
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.graph.node[1].metadata_props] == ["pkg.torch.onnx.name_scopes", "own.note"]
    assert model.metadata_props[0].value == "data=data.yaml"


def test_a_bundle_tells_nothing_of_the_machine_that_made_it(
    nano_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an ONNX file full of notes in a folder with a telling name, its texts and ONNX files have neither."""
    folder = tmp_path / "some body's secret"
    folder.mkdir()
    model = load_model(nano_onnx)
    for node in model.graph.node:
        node.doc_string = f"File {folder}/model.py"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f"File {folder}/model.py")
    onnx.save_model(model, folder / "nano.onnx")
    result: BuildResult = build(folder / "nano.onnx", output=folder / "out", target="jetson-agx-orin")
    searched = [path for path in sorted(result.path.iterdir()) if path.suffix != ".so"]
    assert {"manifest.json", "exported.onnx", "typed.onnx"} <= {path.name for path in searched}
    for path in searched:
        content = path.read_bytes()
        for told in (b"secret", str(tmp_path).encode(), tempfile.gettempdir().encode(), str(Path.home()).encode()):
            assert told not in content, (path.name, told)
    assert result.manifest.model.path == "nano.onnx"


def test_an_engines_report_tells_nothing_either(fp16_bundle: BuildResult) -> None:
    """The engine, too: TensorRT keeps names of layers, not where the model's file lay."""
    for name in ("manifest.json", "model.engine", "model.engine.json", "fused.onnx"):
        content = (fp16_bundle.path / name).read_bytes()
        assert tempfile.gettempdir().encode() + b"/" not in content, name
    assert present(fp16_bundle.manifest.model.path) == "nano.onnx"
