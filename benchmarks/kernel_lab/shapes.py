"""The shapes that are measured, and how much work each of them is at least."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer.ops.bi_level_routing_attention import Attributes

__all__ = ["BATCHES", "TABLE", "TINY", "Shape", "Work"]

BATCHES = (32, 1, 8)  # most telling first: what comes last is dropped first


@dataclass(frozen=True)
class Work:
    """The least that any implementation must do.

    Attributes:
        bytes: every input read once, every output written once.
        qk_flops: of the products of queries and keys.
        pv_flops: of the products of weights and values.
        exponentials: one per query, key and head.
    """

    bytes: int
    qk_flops: int
    pv_flops: int
    exponentials: int


@dataclass(frozen=True)
class Shape:
    """One routing attention of a model.

    Attributes:
        name: as tables show it.
        height: tokens.
        width: tokens.
        dim: channels of q, of k and of v.
        regions: per side.
        topk: regions each region attends to.
        head_dim: channels of a head.
    """

    name: str
    height: int
    width: int
    dim: int
    regions: int
    topk: int
    head_dim: int = 32

    @property
    def tokens(self) -> int:
        """Tokens of a region."""
        return (self.height // self.regions) * (self.width // self.regions)

    @property
    def keys(self) -> int:
        """Keys that a query attends to."""
        return self.topk * self.tokens

    @property
    def num_heads(self) -> int:
        """Heads."""
        return self.dim // self.head_dim

    def attributes(
        self, step: float | None = None, output_type: int | None = None, lepe_kernel: int | None = None
    ) -> Attributes:
        """The op's attributes: a quantization step and an output type for an INT8 input, LePE's kernel or none."""
        return Attributes(
            num_heads=self.num_heads,
            regions=self.regions,
            topk=self.topk,
            qk_dim=self.dim,
            scale=self.dim**-0.5,
            q_scale=step,
            k_scale=step,
            v_scale=step,
            output_type=output_type,
            lepe_kernel=lepe_kernel,
            dim=None if lepe_kernel is None else self.dim,
        )

    def qkv_shape(self, batch: int) -> tuple[int, int, int, int]:
        """``[batch, height, width, 3 * dim]``."""
        return (batch, self.height, self.width, 3 * self.dim)

    def work(self, batch: int, input_bytes: int, output_bytes: int) -> Work:
        """The least work for a batch, with elements of these sizes."""
        tokens = batch * self.height * self.width
        products = 2 * tokens * self.keys * self.dim
        return Work(
            bytes=tokens * self.dim * (3 * input_bytes + output_bytes),
            qk_flops=products,
            pv_flops=products,
            exponentials=tokens * self.keys * self.num_heads,
        )


# BiFormer-T and -S: classification at 224, segmentation at 512, detection at 800 x 1344 (padded to 16 regions a side).
TABLE = (
    Shape("224 stage 1", 56, 56, 64, 7, 1),
    Shape("224 stage 2", 28, 28, 128, 7, 4),
    Shape("224 stage 3", 14, 14, 256, 7, 16),
    Shape("512 stage 1", 128, 128, 64, 8, 1),
    Shape("512 stage 2", 64, 64, 128, 8, 4),
    Shape("512 stage 3", 32, 32, 256, 8, 16),
    Shape("det stage 1", 208, 336, 64, 16, 1),
    Shape("det stage 2", 112, 176, 128, 16, 4),
    Shape("det stage 3", 64, 96, 256, 16, 16),
)

# For rehearsals: the same three kinds of stage, small enough for kernels that run on the CPU.
TINY = (
    Shape("224 stage 1", 8, 8, 32, 2, 1),
    Shape("224 stage 2", 6, 6, 32, 3, 4),
    Shape("224 stage 3", 4, 4, 64, 4, 16),
)
