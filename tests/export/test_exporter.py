from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edgeformer
from edgeformer.export import export_onnx
from edgeformer.pipeline.exporting import check_export
from edgeformer.runtime import OnnxSession
from tests.export.conftest import Tiny, make_tiny
from tests.present import present
from tests.raising import raises

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export_onnx(make_tiny(), input_size=(10, 14))


def shape_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_names_shapes_and_origin(exported: onnx.ModelProto) -> None:
    assert [(v.name, shape_of(v)) for v in exported.graph.input] == [("input", ["batch", 3, 10, 14])]
    assert [(v.name, shape_of(v)) for v in exported.graph.output] == [("logits", ["batch", 7])]
    assert exported.producer_name == "edgeformer"
    assert exported.producer_version == edgeformer.__version__
    assert {p.key: p.value for p in exported.metadata_props}["edgeformer.model"] == "Tiny"
    assert [(o.domain, o.version) for o in exported.opset_import] == [("", 20)]


def test_the_name_and_the_channels_are_the_models() -> None:
    class Grey(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(in_channels=1)
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.conv(x).mean((2, 3))

    torch.manual_seed(3)
    model = Grey()
    proto = export_onnx(model, input_size=(5, 6), name="grey_one")
    assert shape_of(proto.graph.input[0]) == ["batch", 1, 5, 6]
    assert proto.graph.name == "grey_one"
    assert {p.key: p.value for p in proto.metadata_props}["edgeformer.model"] == "grey_one"
    assert present(check_export(model, proto)["logits"].max_abs_relative) < 1e-5


def test_norms_are_single_nodes(exported: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in exported.graph.node]
    assert kinds.count("LayerNormalization") == 1
    assert kinds.count("Conv") == 1
    assert "BatchNormalization" not in kinds, "a BatchNorm after a Conv is folded into it"
    assert "Dropout" not in kinds


def test_equal_exports_are_equal_bytes_without_paths(exported: onnx.ModelProto) -> None:
    again = export_onnx(make_tiny(), input_size=(10, 14)).SerializeToString(deterministic=True)
    assert again == exported.SerializeToString(deterministic=True)
    assert b"stack_trace" not in again
    assert b".py" not in again


def test_static_batch(tiny: Tiny) -> None:
    proto = export_onnx(tiny, input_size=(6, 8), dynamic_batch=False, batch=3)
    assert shape_of(proto.graph.input[0]) == [3, 3, 6, 8]
    assert check_export(tiny, proto)["logits"].samples == 6


def test_dense_outputs(tiny_dense: Tiny) -> None:
    proto = export_onnx(tiny_dense, input_size=(6, 10))
    assert [(v.name, shape_of(v)) for v in proto.graph.output] == [
        ("stage0", ["batch", 12, 3, 5]),
        ("stage1", ["batch", 12, 3, 5]),
    ]
    figures = check_export(tiny_dense, proto)
    assert all(present(value.max_abs_relative) < 1e-5 and value.top1_agreement is None for value in figures.values())


def test_output_names_can_be_given(tiny_dense: Tiny) -> None:
    proto = export_onnx(tiny_dense, input_size=(6, 10), output_names=["a", "b"], opset=18)
    assert [v.name for v in proto.graph.output] == ["a", "b"]
    assert proto.opset_import[0].version == 18


def test_modes_are_restored_and_eval_was_used(tiny: Tiny) -> None:
    tiny.train()
    tiny.stem.eval()
    proto = export_onnx(tiny, input_size=(6, 8))
    assert (tiny.training, tiny.stem.training, tiny.stem[1].training, tiny.drop.training) == (True, False, False, True)
    x = np.random.default_rng(3).standard_normal((2, 3, 6, 8), np.float32)
    tiny.eval()
    with torch.no_grad():
        want = tiny(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(OnnxSession(proto).run({"input": x})["logits"], want, atol=1e-5)


def test_the_exporter_is_silent_on_both_streams() -> None:
    code = "from tests.export.conftest import make_tiny; from edgeformer.export import export_onnx; "
    code += "export_onnx(make_tiny(), input_size=(6, 8))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.filterwarnings("ignore:mind the gap")
def test_what_it_would_say_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Warns(Tiny):
        def forward(self, x: torch.Tensor) -> Any:
            import warnings

            warnings.warn("mind the gap", UserWarning, stacklevel=2)
            return super().forward(x)

    caplog.set_level(logging.INFO, logger="edgeformer.export")
    export_onnx(Warns(), input_size=(6, 8))
    assert any("UserWarning: mind the gap" in record.message for record in caplog.records)


def test_a_size_the_model_refuses_gives_the_models_message(tiny: Tiny) -> None:
    with raises("EF204", "7x8"):
        export_onnx(tiny, input_size=(7, 8))


def test_a_failing_forward_keeps_torchs_words() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
    with raises("EF211", "Sequential", [2, 3, 4, 4], "mat1 and mat2 shapes"):
        export_onnx(model, input_size=(4, 4))


def test_what_torch_cannot_export_keeps_torchs_words() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> Any:
            return (x * self.scale).sum((1, 2, 3)) if x.sum() > 0 else x.mean((1, 2, 3))

    with raises("EF214", "Branches", "4x4", "data-dependent") as caught:
        export_onnx(Branches(), input_size=(4, 4))
    assert caught.value.__cause__ is not None


def test_a_model_that_fixes_its_batch_is_refused_with_dynamic_batch() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> Any:
            return x.reshape(2, 48) * self.scale

    with raises("EF215", "Fixed", "2", "fixed batch"):
        export_onnx(Fixed(), input_size=(4, 4))


def test_every_bad_option_is_listed(tiny: Tiny) -> None:
    with raises("EF210", "opset is 17", 18, (0, 8), "float16", "model.float()", "batch is 0"):
        export_onnx(tiny.half(), input_size=(0, 8), opset=17, dynamic_batch=False, batch=0)


@pytest.mark.parametrize("names", [["a", "b"], []])
def test_output_names_that_do_not_fit(tiny: Tiny, names: list[str]) -> None:
    with raises("EF213", "1 outputs", names):
        export_onnx(tiny, input_size=(6, 8), output_names=names)


def test_batch_below_one(tiny: Tiny) -> None:
    with raises("EF210", "batch is 0"):
        export_onnx(tiny, input_size=(6, 8), dynamic_batch=False, batch=0)


def test_a_model_that_gives_no_tensor() -> None:
    class Words(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"logits": x}

    with raises("EF212", "dict"):
        export_onnx(Words(), input_size=(4, 4))


def test_slices_are_not_paired_while_a_model_is_exported(
    exported: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxscript import rewriter
    from onnxscript.rewriter.rules.common import slice_split_rule

    rules = rewriter._DEFAULT_REWRITE_RULES
    assert slice_split_rule in rules  # else the exporter need not leave it out any more
    seen = []

    class Watched(rewriter.RewritePass):  # type: ignore[misc]  # onnxscript has no types
        def __init__(self, given: Any) -> None:
            seen.append(given)
            super().__init__(given)

    monkeypatch.setattr(rewriter, "RewritePass", Watched)
    assert export_onnx(make_tiny(), input_size=(10, 14)) == exported
    assert [set(rules) - set(given) for given in seen] == [{slice_split_rule}] * len(seen) != []
    assert rewriter._DEFAULT_REWRITE_RULES is rules
