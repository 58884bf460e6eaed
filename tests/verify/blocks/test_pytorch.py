from __future__ import annotations

import pytest

from edgeformer.verify.blocks.graphs import FormGraph
from edgeformer.verify.blocks.pytorch import module_tensors
from tests.verify.blocks.conftest import Forms


@pytest.mark.whole
def test_modules_and_what_they_became(forms: Forms) -> None:
    graph = FormGraph(forms.exported)
    found = module_tensors(graph)
    made = {name: node.op_type for node in forms.exported.graph.node for name in node.output}
    # A block ends with the move back to channels first; its MLP with the bias of its last Linear.
    assert made[found["stages.1.0"]] == "Transpose"
    assert made[found["stages.1.0.mlp"]] == "Add"
    assert found["stages.1.0.mlp"] == found["stages.1.0.mlp.3"]
    assert made[found["stages.1.0.norm2"]] == "LayerNormalization"
    # Nodes that the exporter makes without a note, as a Split, do not tear a module apart.
    assert found["stages.1.0.attn"] == found["stages.1.0.attn.wo"]
    # A batch norm that went into its convolution took the convolution's place.
    assert "downsample_layers.1.0" not in found
    assert found["downsample_layers.1"] == found["downsample_layers.1.1"]
    assert found["head"] == "logits"
