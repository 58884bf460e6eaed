"""The project's own models through export, check and routing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeformer.export import export_onnx
from edgeformer.models import create_model
from edgeformer.pipeline.exporting import check_export
from edgeformer.runtime import TorchSession
from edgeformer.verify import Form, check, expose_routing, require, verify_forms, worst
from tests.present import present
from tests.raising import raises


def make(name: str, **overrides: Any) -> nn.Module:
    """A model whose norms are not the identity, so that folding and epsilons show."""
    torch.manual_seed(13)
    model = create_model(name, **overrides)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.05)
    return model


@pytest.mark.slow
def test_nano_from_pytorch_to_onnx() -> None:
    model = make("biformer_nano", num_classes=10)
    proto = export_onnx(model, input_size=(112, 112), name="biformer_nano")
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert kinds["LayerNormalization"] == 10, "two per block"
    assert kinds["TopK"] == 4, "one per routing block"
    assert kinds["BatchNormalization"] == 1, "the head's; those after a convolution are folded into it"
    figures = check_export(model, proto)
    assert figures["logits"].samples == 4
    assert check("export", vars(worst(figures))).passed
    images = np.random.default_rng(1).standard_normal((3, 3, 112, 112)).astype(np.float32)
    pytorch = Form.from_session("pytorch", TorchSession(model, input_size=(112, 112)))
    report = verify_forms([pytorch, Form.from_onnx("exported", proto, "export")], [images[:2], images[2:]])
    require(report)
    assert report.forms[1].first is not None
    assert present(report.forms[1].first["logits"].snr_db) > 100
    places = [(output.stage, output.block) for output in expose_routing(proto)[1]]
    assert places == [(0, 0), (1, 0), (2, 0), (2, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_padded_dense_backbone_of_odd_size(dynamic: bool) -> None:
    model = make("biformer_nano", depths=(1, 1, 1, 1), dense=True, auto_pad=True, regions=4)
    proto = export_onnx(model, input_size=(72, 100), dynamic_batch=dynamic)
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.output]
    batch = "batch" if dynamic else 1
    assert [v.name for v in proto.graph.output] == ["stage0", "stage1", "stage2", "stage3"]
    assert shapes == [[batch, 32, 18, 25], [batch, 64, 9, 13], [batch, 96, 5, 7], [batch, 128, 3, 4]]
    figures = check_export(model, proto)
    assert list(figures) == ["stage0", "stage1", "stage2", "stage3"]
    assert check("export", vars(worst(figures))).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["biformer_stl", "biformer_stl_nchw"])
def test_the_swin_like_layouts(name: str) -> None:
    model = make(name, depths=(1, 1, 1, 1), dims=(32, 64, 64, 64), num_classes=5)
    proto = export_onnx(model, input_size=(224, 224))
    figures = check_export(model, proto, batches=(1, 2))
    assert check("export", vars(worst(figures))).passed
    assert present(figures["logits"].snr_db) > 100


def test_a_size_that_the_model_does_not_take() -> None:
    with raises("EF204", "100x112", "height 100"):
        export_onnx(make("biformer_nano"), input_size=(100, 112))
