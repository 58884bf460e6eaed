"""CUDA graphs, two streams at once, programmatic launch, torch.compile: always the bits of a single plain call."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.kernel_lab.backend import Backend
from benchmarks.kernel_lab.correctness import TYPES, Precision
from benchmarks.kernel_lab.records import Machine
from benchmarks.kernel_lab.shapes import Shape
from edgeformer.models import create_model, use_attention
from edgeformer.models.fused_attention import fused_bi_level_routing_attention
from edgeformer.ops import cuda
from edgeformer.ops.library import Library, default_library

__all__ = ["check"]

_REPEATS = 20


def check(shapes: tuple[Shape, ...], backend: Backend, library: Library, machine: Machine) -> Iterator[str]:
    """What went wrong, one message each."""
    for shape in shapes:
        for precision in TYPES[:1]:
            yield from _graph(shape, precision, backend, library)
            yield from _streams(shape, precision, backend, library)
            if machine.compute_capability >= 90:
                yield from _programmatic_launch(shape, precision, backend, library)
    # The torch op takes the library of the installation, which the run has made this one.
    if default_library() is library:
        yield from _model(backend)


def _inputs(shape: Shape, precision: Precision, backend: Backend, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [
        torch.randn(shape.qkv_shape(2), generator=generator).to(backend.device, precision.torch_type)
        for _ in range(count)
    ]


def _graph(shape: Shape, precision: Precision, backend: Backend, library: Library) -> Iterator[str]:
    first, *others = _inputs(shape, precision, backend, 4)
    attributes = shape.attributes()
    expected = [cuda.bi_level_routing_attention(x, attributes, library=library) for x in (first, *others)]
    fixed, out = first.clone(), torch.zeros_like(expected[0])
    replay = backend.capture(lambda: cuda.bi_level_routing_attention(fixed, attributes, out=out, library=library))
    for number, (x, y) in enumerate(zip((first, *others), expected, strict=True)):
        fixed.copy_(x)
        out.fill_(float("nan"))
        replay()
        backend.synchronize()
        if not torch.equal(out, y):
            yield f"{shape.name}: replay {number} of a CUDA graph differs from a plain call"


def _streams(shape: Shape, precision: Precision, backend: Backend, library: Library) -> Iterator[str]:
    inputs = _inputs(shape, precision, backend, 2)
    attributes = shape.attributes()
    expected = [cuda.bi_level_routing_attention(x, attributes, library=library) for x in inputs]
    outputs = [torch.full_like(y, float("nan")) for y in expected]

    def repeat(index: int) -> None:
        for _ in range(_REPEATS):
            cuda.bi_level_routing_attention(inputs[index], attributes, out=outputs[index], library=library)

    backend.overlap([lambda: repeat(0), lambda: repeat(1)])
    if not all(torch.equal(out, y) for out, y in zip(outputs, expected, strict=True)):
        yield f"{shape.name}: two streams at once differ from one after the other"


def _programmatic_launch(shape: Shape, precision: Precision, backend: Backend, library: Library) -> Iterator[str]:
    (x,) = _inputs(shape, precision, backend, 1)
    attributes = shape.attributes()
    expected = cuda.bi_level_routing_attention(x, attributes, library=library)
    out = torch.empty_like(expected)
    for _ in range(_REPEATS):
        out.fill_(float("nan"))
        cuda.bi_level_routing_attention(x, attributes, out=out, programmatic_launch=True, library=library)
        backend.synchronize()
        if not torch.equal(out, expected):
            yield f"{shape.name}: programmatic launch changes the output"
            return


@torch.no_grad()
def _model(backend: Backend) -> Iterator[str]:
    """A whole model, through the torch op: against the reference attention, and captured into a graph."""
    torch.manual_seed(0)
    model = create_model("biformer_nano", attention="fused").to(backend.device)
    image = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)).to(backend.device)
    fused = model(image)
    out = torch.empty_like(fused)
    replay = backend.capture(lambda: out.copy_(model(image)))
    replay()
    backend.synchronize()
    # The rest of the model may take other algorithms within a graph.
    if not float((out - fused).abs().max() / fused.abs().max()) <= 1e-3:
        yield "biformer_nano with fused attention: a CUDA graph differs from a plain call"
    use_attention(model, "reference")
    # Convolutions and matrix products of the rest may be TF32 on a GPU, the same in both.
    error = float((fused - model(image)).abs().max() / fused.abs().max())
    if not error <= 1e-3:
        yield f"biformer_nano with fused attention differs from the reference by {error:.1e}; at most 1e-3 is rounding"
    compiled = torch.compile(
        lambda x: fused_bi_level_routing_attention(x, **_ARGUMENTS), backend=backend.backend_of_compile
    )
    x = torch.randn(1, 8, 8, 96, generator=torch.Generator().manual_seed(2)).to(backend.device)
    if not torch.equal(compiled(x), fused_bi_level_routing_attention(x, **_ARGUMENTS)):
        yield "the torch op under torch.compile differs from a plain call"


_ARGUMENTS = {"num_heads": 1, "regions": 4, "topk": 4, "qk_dim": 32, "scale": 32**-0.5}
