"""`check_export`: an export against its PyTorch model. `export_model` is tested through the command line."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from edgeformer.errors import InputError
from edgeformer.export import export_onnx
from edgeformer.pipeline.exporting import check_export
from edgeformer.runtime import OnnxSession, TorchSession
from edgeformer.verify import check, worst
from tests.export.conftest import Tiny, make_tiny
from tests.export.conftest import tiny as tiny
from tests.export.conftest import tiny_dense as tiny_dense
from tests.present import present
from tests.raising import raises


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export_onnx(make_tiny(), input_size=(10, 14))


@pytest.mark.parametrize("seed", [0, 1])
def test_check_export_meets_the_gate(exported: onnx.ModelProto, tiny: Tiny, seed: int) -> None:
    figures = check_export(tiny, exported, seed=seed)
    assert list(figures) == ["logits"]
    assert figures["logits"].samples == 4
    assert present(figures["logits"].max_abs_relative) < 1e-5
    assert check("export", vars(worst(figures))).passed


def test_check_export_sees_another_weight(exported: onnx.ModelProto, tiny: Tiny) -> None:
    with torch.no_grad():
        tiny.head.weight[3, 5] += 0.05
    verdict = check("export", vars(worst(check_export(tiny, exported))))
    assert not verdict.passed
    assert verdict.metric == "max_abs_relative"


def test_check_export_of_another_models_export(exported: onnx.ModelProto, tiny_dense: Tiny) -> None:
    with raises("EF213", "2 outputs"):
        check_export(tiny_dense, exported)


def test_check_export_needs_fixed_sizes(exported: onnx.ModelProto, tiny: Tiny) -> None:
    exported.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    try:
        with raises("EF321", "height"):
            check_export(tiny, exported)
    finally:
        exported.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 10


@pytest.mark.parametrize("fails", [False, True])
def test_check_export_closes_what_it_opened(
    exported: onnx.ModelProto, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    opened: list[OnnxSession | TorchSession] = []

    def comparing(reference: TorchSession, candidate: OnnxSession, _: object) -> dict[str, object]:
        opened.extend((reference, candidate))
        if fails:
            raise InputError("EF123", "broken")
        return {}

    monkeypatch.setattr("edgeformer.verify.compare_models", comparing)
    if fails:
        with raises("EF123"):
            check_export(tiny, exported)
    else:
        assert check_export(tiny, exported) == {}
    assert len(opened) == 2
    for session in opened:
        with raises("EF803"):
            session.run({"input": np.zeros((1, 3, 10, 14), np.float32)})
