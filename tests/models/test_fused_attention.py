"""The fused kernels as a PyTorch op and in whole models, through the library that runs them on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgeformer.models import create_model, from_reference, use_attention
from edgeformer.models.attention import BiLevelRoutingAttention, BiLevelRoutingAttentionNCHW
from edgeformer.models.attention import bi_level_routing_attention as reference_attention
from edgeformer.models.fused_attention import fused_bi_level_routing_attention
from edgeformer.ops.library_files import ENVIRONMENT_VARIABLE
from tests.plugins.conftest import emulated_kernels as emulated_kernels
from tests.raising import raises

ARGUMENTS: dict[str, Any] = {"num_heads": 2, "regions": 3, "topk": 4, "qk_dim": 32, "scale": 32**-0.5}


@pytest.fixture(autouse=True)
def fused_on_the_cpu(emulated_kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(emulated_kernels))


def qkv(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or (2, 6, 9, 96), generator=torch.Generator().manual_seed(seed))


def check(out: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert out.shape == expected.shape
    assert out.dtype == expected.dtype
    assert (out - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_op_is_the_reference() -> None:
    x = qkv(0)
    check(fused_bi_level_routing_attention(x, **ARGUMENTS), reference_attention(x, **ARGUMENTS))
    strided = qkv(1, 2, 96, 6, 9).permute(0, 2, 3, 1)
    check(fused_bi_level_routing_attention(strided, **ARGUMENTS), reference_attention(strided, **ARGUMENTS))


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_lepe_is_the_depthwise_convolution(kernel: int) -> None:
    x = qkv(2)
    lepe = torch.nn.Conv2d(32, 32, kernel, padding=kernel // 2, groups=32)
    with torch.no_grad():
        expected = reference_attention(x, **ARGUMENTS) + lepe(x[..., 64:].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out = fused_bi_level_routing_attention(x, **ARGUMENTS, lepe_weight=lepe.weight, lepe_bias=lepe.bias)
    check(out, expected)


def test_torch_checks_the_op() -> None:
    """Schema, fake implementation against the real one, and dispatch under AOTAutograd with free shapes."""
    op = torch.ops.edgeformer.bi_level_routing_attention.default
    weight, bias = torch.randn(5, 5, 32), torch.randn(32)
    for sample in ((qkv(3), None, None), (qkv(4), weight, bias)):
        results = torch.library.opcheck(op, (*sample, *ARGUMENTS.values()))
        assert set(results.values()) == {"SUCCESS"}


def test_gradients_are_refused_when_they_are_asked_for() -> None:
    x = qkv(5).requires_grad_()
    out = fused_bi_level_routing_attention(x, **ARGUMENTS)
    with raises("EF905", "torch.no_grad()", 'attention="reference"'):
        torch.autograd.backward(out.sum())


def test_export_keeps_the_op_as_one_node() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return fused_bi_level_routing_attention(x, **ARGUMENTS)

    program = torch.export.export(Model(), (qkv(6),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("edgeformer.bi_level_routing_attention.default") == 1
    larger = qkv(7, 5, 6, 9, 96)
    check(program.module()(larger), reference_attention(larger, **ARGUMENTS))


@torch.no_grad()
def test_compile_takes_a_whole_model() -> None:
    torch.manual_seed(0)
    model = create_model("biformer_nano", attention="fused")
    image = qkv(8, 1, 3, 112, 112)
    expected = model(image)
    torch._dynamo.reset()
    # Without code generation: what is tested is that tracing finds no graph break and the fake shapes fit.
    check(torch.compile(model, backend="aot_eager", fullgraph=True)(image), expected)


def pair(name: str, **overrides: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(1)
    fused = create_model(name, attention="fused", **overrides)
    reference = create_model(name, **overrides)
    reference.load_state_dict(fused.state_dict())
    return fused, reference


@torch.no_grad()
def test_a_whole_model() -> None:
    fused, reference = pair("biformer_nano")
    image = qkv(9, 2, 3, 112, 112)
    check(fused(image), reference(image), 1e-4)


@torch.no_grad()
def test_padding_and_wide_lepe_stay_outside_the_op() -> None:
    small = {"depths": (1, 1, 1, 1), "dims": (32, 32, 32, 32), "num_classes": 0, "topks": (1, 2, 4, -2)}
    fused, reference = pair("biformer_nano", **small, dense=True, auto_pad=True, regions=4, lepe_kernel=9)
    image = qkv(10, 1, 3, 72, 104)
    for ours, expected in zip(fused(image), reference(image), strict=True):
        check(ours, expected, 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 12), (9, 13)], ids=["divisible", "padded"])
def test_nchw_layout(size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    block = BiLevelRoutingAttentionNCHW(32, num_heads=2, regions=4, topk=3, lepe_kernel=5).eval()
    x = qkv(11, 2, 32, *size)
    expected = block(x)
    use_attention(block, "fused")
    check(block(x), expected, 1e-4)


@torch.no_grad()
def test_autocast() -> None:
    torch.manual_seed(3)
    options: dict[str, Any] = {"num_heads": 2, "regions": 2, "topk": 2, "qk_dim": 32, "scale": None, "lepe_kernel": 5}
    block = BiLevelRoutingAttention(32, **options, output_projection=True, auto_pad=False).eval()
    x = qkv(12, 1, 4, 4, 32)
    expected = block(x)
    use_attention(block, "fused")
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x)
    assert out.dtype == torch.bfloat16
    check(out.float(), expected, 3e-2)


def test_attention_can_be_changed_back() -> None:
    small = {"depth": [1, 1, 1, 1], "embed_dim": [64, 64, 64, 64], "n_win": 7, "topks": [1, 4, 16, -2]}
    model = from_reference("BiFormer", **small, kv_downsample_mode="identity")
    blocks = [module for module in model.modules() if isinstance(module, BiLevelRoutingAttention)]
    assert len(blocks) == 3
    use_attention(model, "fused")
    assert all(block.fused for block in blocks)
    use_attention(model, "reference")
    assert not any(block.fused for block in blocks)


def test_unknown_attention_is_refused() -> None:
    with raises("EF201", "'flash'", "'reference', 'fused'"):
        create_model("biformer_nano", attention="flash")  # type: ignore[arg-type]


def test_without_the_library_construction_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "gone.so"))
    with raises("EF611", tmp_path / "gone.so"):
        create_model("biformer_nano", attention="fused")
