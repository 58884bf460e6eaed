"""The configuration of a BiFormer, checked as a whole, and the input sizes it can take. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from edgeformer.errors import InputError
from edgeformer.text import shortened

__all__ = ["FULL_ATTENTION_HEADS", "BiFormerConfig", "Layout"]

Layout = Literal["biformer", "stl", "stl_nchw"]

FULL_ATTENTION_HEADS = 8
"""Heads of the plain attention of topk -1 and -2, whatever ``head_dim`` says (as in the released checkpoints)."""

_LAYOUTS = ("biformer", "stl", "stl_nchw")
_NORMS = ("batch", "layer")
_TOPK_BELOW_ONE = {"biformer": (0, -1, -2), "stl": (0, -1, -2), "stl_nchw": (-1,)}
_STAGES = 4


# More than 70 times the largest model of the registry: a typing error rather than a model.
_MOST_PARAMETERS = 2**32
# Beyond it a float32 overflows soon.
_LARGEST_SCALE = 1e30
# Sizes in pixels among which a message looks for one that fits.
_SEARCHED = 10_000


@dataclass(frozen=True)
class BiFormerConfig:
    """Everything that decides a model's parameters and its output; all four-tuples have one entry per stage.

    Lists are turned into tuples; one number for ``regions``, ``topks`` or ``mlp_ratios`` stands for all stages.

    Attributes:
        depths: blocks in each stage.
        dims: channels of each stage.
        topks: regions each region attends to (bi-level routing attention); 0 is a convolution block, -1 plain
            attention, -2 plain attention with LePE. ``stl_nchw`` has only positive numbers and -1, with LePE there.
        regions: regions per side (the reference's ``n_win``).
        qk_dims: query and key channels of each stage; None means ``dims``.
        head_dim: query channels of a head of the routing attention: ``num_heads = qk_dim // head_dim``.
        mlp_ratios: hidden channels of the MLP over the stage's channels.
        qk_scale: factor on the attention and routing logits; None means ``qk_dim ** -0.5``.
        layout: "biformer" (overlapping convolution stem, NHWC blocks), "stl" (the layout of Swin-T), "stl_nchw" (the
            same with 1x1 convolutions and an attention that pads after the projection).
        in_channels: channels of the image.
        num_classes: outputs of the head; 0 gives the pooled features.
        dense: no head; the outputs are the four stages' normalized feature maps. Only "biformer".
        auto_pad: pad each routing block's input to a multiple of ``regions`` and crop after it. Only "biformer".
        lepe_kernel: side of the depthwise convolution on the values (0: none, otherwise odd).
        pos_embed_kernel: 3, or 0 for none: depthwise convolution before each block. The STL layouts have none.
        mlp_dwconv: depthwise 3x3 convolution inside the MLP. Only "biformer".
        layer_scale: initial value of the learned residual scales; 0 or less means none. Only "biformer".
        pre_norm: norm before attention and MLP rather than after the addition. Only "biformer" can do without.
        output_projection: a Linear after the routing attention. Only "biformer" can do without.
        norm: norm in stem, downsampling and head of the STL layouts: "batch" (as released) or "layer".
        head_norm: norm before the head, for the STL layouts; None means ``norm``.

    Raises:
        InputError: a value is out of range, or values do not go together; one message lists them all.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    topks: tuple[int, ...] = (1, 4, 16, -2)
    regions: tuple[int, ...] = (7, 7, 7, 7)
    qk_dims: tuple[int, ...] | None = None
    head_dim: int = 32
    mlp_ratios: tuple[float, ...] = (3.0, 3.0, 3.0, 3.0)
    qk_scale: float | None = None
    layout: Layout = "biformer"
    in_channels: int = 3
    num_classes: int = 1000
    dense: bool = False
    auto_pad: bool = False
    lepe_kernel: int = 5
    pos_embed_kernel: int = 3
    mlp_dwconv: bool = False
    layer_scale: float = 0.0
    pre_norm: bool = True
    output_projection: bool = True
    norm: Literal["batch", "layer"] = "batch"
    head_norm: Literal["batch", "layer"] | None = None

    def __post_init__(self) -> None:
        for name in ("depths", "dims", "topks", "regions", "qk_dims", "mlp_ratios"):
            value = getattr(self, name)
            if name in ("regions", "topks", "mlp_ratios") and isinstance(value, (int, float)):
                value = (value,) * _STAGES
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        problems = self._wrong_types() or self._wrong_values()
        if problems:
            raise InputError(
                "EF202",
                "this model cannot be built:\n" + "\n".join(f"  - {shortened(problem, 300)}" for problem in problems),
            )

    @property
    def query_dims(self) -> tuple[int, ...]:
        """Query and key channels of each stage."""
        return self.dims if self.qk_dims is None else self.qk_dims

    @property
    def routing_heads(self) -> tuple[int, ...]:
        """Heads of each stage's routing attention; for a stage without one, what it would have."""
        return tuple(dim // self.head_dim for dim in self.query_dims)

    def stage_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Height and width, in tokens, of the four stages for an input of ``height`` x ``width`` pixels.

        The "biformer" stem and downsampling are 3x3 convolutions of stride 2 and padding 1, which round up; the STL
        layouts cut 4x4 and then 2x2 patches, which round down.
        """
        heights, widths = self._axis_sizes(height), self._axis_sizes(width)
        return tuple(zip(heights, widths, strict=True))

    def check_input_size(self, height: int, width: int) -> None:
        """Check that the model takes an input of this size.

        Raises:
            InputError: a stage would be empty, or its size is not a multiple of its regions per side; the message names
                the nearest sizes that work.
        """
        faults = []
        # A plain loop: torch.compile traces this, and stumbles over an assignment within a comprehension.
        for axis, size in (("height", height), ("width", width)):
            fault = self._axis_fault(size)
            if fault is not None:
                faults.append(f"{axis} {size} ({fault}): use {self._sizes_near(size)}")
        if faults:
            way_out = "" if self.auto_pad or self.layout != "biformer" else "; or build the model with auto_pad=True"
            raise InputError("EF204", f"the model cannot take a {height}x{width} input: {'; '.join(faults)}{way_out}")

    def _axis_sizes(self, size: int) -> tuple[int, ...]:
        if self.layout == "biformer":
            first = -(-size // 4)
            return tuple(-(-first // 2**stage) for stage in range(_STAGES))
        return tuple(size // 4 // 2**stage for stage in range(_STAGES))

    def _axis_fault(self, size: int) -> str | None:
        for stage, tokens in enumerate(self._axis_sizes(size)):
            if tokens < 1:
                return f"stage {stage + 1} would be empty"
            if self.topks[stage] <= 0 or self.auto_pad:
                continue
            regions = self.regions[stage]
            if self.layout == "stl_nchw":
                if tokens < regions:
                    return f"stage {stage + 1} has {tokens} tokens for {regions} regions"
            elif tokens % regions:
                return f"stage {stage + 1} has {tokens} tokens, not a multiple of its {regions} regions"
        return None

    def _sizes_near(self, size: int) -> str:
        # 32 pixels are one token of the last stage: a multiple of 32 and of every stage's regions always works.
        period = 32 * math.lcm(*self.regions)
        size = max(size, 0)
        smaller = next((s for s in range(size - 1, max(size - _SEARCHED, 0), -1) if self._axis_fault(s) is None), None)
        above = (s for s in range(size + 1, size + _SEARCHED) if self._axis_fault(s) is None)
        larger = next(above, (size // period + 1) * period)
        return str(larger) if smaller is None else f"{smaller} or {larger}"

    def _wrong_types(self) -> list[str]:
        problems = []
        for name in ("depths", "dims", "topks", "regions", "qk_dims"):
            value = getattr(self, name)
            if name == "qk_dims" and value is None:
                continue
            if not (isinstance(value, tuple) and len(value) == _STAGES and all(type(item) is int for item in value)):
                problems.append(f"{name} is {value!r}; it must be {_STAGES} integers, one per stage")
        ratios = self.mlp_ratios
        if not (isinstance(ratios, tuple) and len(ratios) == _STAGES and all(type(r) in (int, float) for r in ratios)):
            problems.append(f"mlp_ratios is {ratios!r}; it must be {_STAGES} numbers, one per stage")
        for name in ("head_dim", "in_channels", "num_classes", "lepe_kernel", "pos_embed_kernel"):
            if type(getattr(self, name)) is not int:
                problems.append(f"{name} is {getattr(self, name)!r}; it must be an integer")
        for name in ("dense", "auto_pad", "mlp_dwconv", "pre_norm", "output_projection"):
            if type(getattr(self, name)) is not bool:
                problems.append(f"{name} is {getattr(self, name)!r}; it must be True or False")
        if type(self.layer_scale) not in (int, float):
            problems.append(f"layer_scale is {self.layer_scale!r}; it must be a number")
        if self.qk_scale is not None and type(self.qk_scale) not in (int, float):
            problems.append(f"qk_scale is {self.qk_scale!r}; it must be a number or None")
        for name, value, accepted in (
            ("layout", self.layout, _LAYOUTS),
            ("norm", self.norm, _NORMS),
            ("head_norm", self.head_norm, (*_NORMS, None)),
        ):
            if value not in accepted:
                problems.append(f"{name} is {value!r}; it must be one of {', '.join(map(repr, accepted))}")
        return problems

    def _wrong_values(self) -> list[str]:
        problems = []
        for name, least in (("depths", 1), ("dims", 1), ("regions", 1), ("query_dims", 1)):
            if min(getattr(self, name)) < least:
                problems.append(f"{name} is {getattr(self, name)}; every entry must be at least {least}")
        if self.in_channels < 1 or self.num_classes < 0 or self.head_dim < 1 or min(self.mlp_ratios) <= 0:
            problems.append(
                f"in_channels {self.in_channels}, head_dim {self.head_dim} and mlp_ratios {self.mlp_ratios} must be "
                f"above 0, num_classes {self.num_classes} at least 0"
            )
        if self.qk_scale is not None and not 0 < self.qk_scale <= _LARGEST_SCALE:
            problems.append(
                f"qk_scale is {self.qk_scale}; it must be above 0, at most {_LARGEST_SCALE} (None: qk_dim ** -0.5)"
            )
        if not abs(self.layer_scale) <= _LARGEST_SCALE:
            problems.append(
                f"layer_scale is {self.layer_scale}; it must be between -{_LARGEST_SCALE} and {_LARGEST_SCALE}"
            )
        if self.lepe_kernel < 0 or (self.lepe_kernel and self.lepe_kernel % 2 == 0):
            problems.append(f"lepe_kernel is {self.lepe_kernel}; it must be 0 (none) or odd, to keep the size")
        if problems:
            return problems
        for stage in range(_STAGES):
            problems += self._wrong_stage(stage)
        about = self._parameters()
        if about > _MOST_PARAMETERS:
            problems.append(
                f"the model would have about {about:.3g} parameters, at most {_MOST_PARAMETERS:.3g} are built"
            )
        return problems + self._wrong_layout()

    def _parameters(self) -> float:
        """Roughly how many parameters the model has: the large ones are right."""
        total = float(self.num_classes) * self.dims[-1]
        before = self.in_channels
        for depth, dim, qk_dim, ratio in zip(self.depths, self.dims, self.query_dims, self.mlp_ratios, strict=True):
            block = dim * (2.0 * qk_dim + 2.0 * dim + 2.0 * ratio * dim + self.lepe_kernel**2.0)
            total += depth * block + 9.0 * before * dim
            before = dim
        return total

    def _wrong_stage(self, stage: int) -> list[str]:
        problems = []
        topk, regions, dim, qk_dim = self.topks[stage], self.regions[stage], self.dims[stage], self.query_dims[stage]
        where = f"stage {stage + 1}"
        if topk > 0:
            heads = self.routing_heads[stage]
            if topk > regions**2:
                problems.append(
                    f"{where}: topk is {topk}, but there are only {regions} x {regions} = {regions**2} regions"
                )
            if heads < 1 or qk_dim % heads or dim % heads:
                problems.append(
                    f"{where}: {qk_dim} query channels and {dim} channels do not split into heads of head_dim "
                    f"{self.head_dim} (num_heads = {qk_dim} // {self.head_dim} = {heads} must divide both)"
                )
        elif topk not in _TOPK_BELOW_ONE[self.layout]:
            accepted = ", ".join(map(str, _TOPK_BELOW_ONE[self.layout]))
            problems.append(f"{where}: topk is {topk}; layout {self.layout!r} takes a positive number or {accepted}")
        elif topk != 0 and dim % FULL_ATTENTION_HEADS:
            problems.append(f"{where}: {dim} channels do not split into {FULL_ATTENTION_HEADS} heads (topk {topk})")
        return problems

    def _wrong_layout(self) -> list[str]:
        if self.layout == "biformer":
            problems = []
            if self.dims[0] % 2:
                problems.append(f"dims[0] is {self.dims[0]}; it must be even, because the stem starts with half of it")
            if self.pos_embed_kernel not in (0, 3):
                problems.append(f"pos_embed_kernel is {self.pos_embed_kernel}; it must be 0 (none) or 3 (padding is 1)")
            if self.norm != "batch" or self.head_norm not in (None, "batch"):
                problems.append("norm and head_norm: layout 'biformer' has BatchNorm only")
            return problems
        fixed = {
            "qk_dims": (None, self.dims),
            "qk_scale": (None,),
            "dense": (False,),
            "auto_pad": (False,),
            "pos_embed_kernel": (0,),
            "mlp_dwconv": (False,),
            "pre_norm": (True,),
            "output_projection": (True,),
        }
        problems = [
            f"{name} is {getattr(self, name)!r}; layout {self.layout!r} has only {accepted[0]!r}"
            for name, accepted in fixed.items()
            if getattr(self, name) not in accepted
        ]
        if self.layer_scale > 0:
            problems.append(f"layer_scale is {self.layer_scale}; layout {self.layout!r} has none")
        return problems


CONFIG_FIELDS = tuple(field.name for field in fields(BiFormerConfig))
"""Names that ``create_model`` accepts as overrides."""
