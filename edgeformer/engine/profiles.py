"""Optimization profiles: the range of shapes an engine serves, worked out from the graph before TensorRT runs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.protos import fed_inputs
from edgeformer.records.base import Record
from edgeformer.records.engine import ShapeRange

__all__ = ["BatchProfile", "ShapeRange", "shape_ranges"]


class BatchProfile(Record):
    """Smallest, most frequent and largest batch an engine serves, in images.

    Raises:
        InputError: not 1 <= min <= opt <= max.
    """

    min: int
    opt: int
    max: int

    def model_post_init(self, context: object, /) -> None:
        """Check the order; pydantic calls this after the fields are set."""
        if not 1 <= self.min <= self.opt <= self.max:
            raise InputError(
                "EF620",
                f"batch {self} is out of order: 1 <= smallest <= most frequent <= largest must hold",
            )

    @classmethod
    def parse(cls, text: str) -> BatchProfile:
        """Read ``8``, or ``1:8:32`` for smallest, most frequent and largest.

        Raises:
            InputError: the text has neither form, or its numbers are out of order.
        """
        if not re.fullmatch(r"[0-9]{1,18}(:[0-9]{1,18}:[0-9]{1,18})?", text.strip()):
            raise InputError(
                "EF620",
                f"batch '{text[:40]}': write one number such as 8, or smallest:frequent:largest such as 1:8:32",
            )
        numbers = [int(part) for part in text.split(":")] * (1 if ":" in text else 3)
        return cls(min=numbers[0], opt=numbers[1], max=numbers[2])

    def __str__(self) -> str:
        return str(self.opt) if self.min == self.max else f"{self.min}:{self.opt}:{self.max}"


def shape_ranges(
    model: onnx.ModelProto, batch: BatchProfile, input_shapes: Mapping[str, ShapeRange] | None = None
) -> dict[str, ShapeRange]:
    """The range of every input of ``model``.

    Axis 0 of an input is its batch. A dynamic batch takes ``batch``; a fixed one must be what ``batch`` asks for.
    Other dynamic axes, and inputs whose batch is not ``batch``, are given in ``input_shapes``.

    Args:
        model: the graph.
        batch: batch sizes to serve.
        input_shapes: by input name, whole shapes with the batch.

    Raises:
        InputError: a fixed batch differs from ``batch``, a dynamic axis has no size, or ``input_shapes`` contradicts
            the graph. One message lists every fault.
    """
    given = dict(input_shapes or {})
    ranges: dict[str, ShapeRange] = {}
    wrong: list[str] = []
    for value in fed_inputs(model.graph):
        axes = _axes(value)
        if axes is None:
            wrong.append(f"input '{value.name}' has no shape in the graph: export it with one")
        elif value.name in given:
            asked = given[value.name]
            if problem := _contradiction(axes, asked):
                wrong.append(f"input '{value.name}' is {_text(axes)} in the graph and {asked} was asked for: {problem}")
            ranges[value.name] = asked
        else:
            problems = _undecided(value.name, axes, batch)
            wrong.extend(problems)
            if not problems:
                ranges[value.name] = _with_batch(axes, batch)
        given.pop(value.name, None)
    if given:
        names = ", ".join(value.name for value in model.graph.input)
        wrong.append(f"shapes are given for {', '.join(sorted(given))}, but the graph has only these inputs: {names}")
    if wrong:
        raise InputError("EF621", "the shapes do not fit the graph:\n" + "\n".join(f"  {line}" for line in wrong))
    return ranges


def _axes(value: onnx.ValueInfoProto) -> list[int | str] | None:
    """Sizes of the input's axes; a dynamic axis is its name, ``?`` where it has none. ``None`` without a shape."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in tensor.shape.dim]


def _text(axes: list[int | str]) -> str:
    return "x".join(map(str, axes)) or "a scalar"


def _undecided(name: str, axes: list[int | str], batch: BatchProfile) -> list[str]:
    """What ``batch`` alone does not decide about this input."""
    wrong = []
    if axes and isinstance(axes[0], int) and not axes[0] == batch.min == batch.max:
        wrong.append(
            f"input '{name}' is {_text(axes)}: its batch is fixed at {axes[0]}, and {batch} was asked for. "
            f"Ask for batch {axes[0]}, or export the model with a dynamic batch"
        )
    if open_axes := [f"{index} ({size})" for index, size in enumerate(axes) if index and isinstance(size, str)]:
        wrong.append(f"input '{name}' is {_text(axes)}: give the size of its dynamic axes {', '.join(open_axes)}")
    return wrong


def _with_batch(axes: list[int | str], batch: BatchProfile) -> ShapeRange:
    rest = tuple(size for size in axes[1:] if isinstance(size, int))
    if not axes:
        return ShapeRange(min=(), opt=(), max=())
    return ShapeRange(min=(batch.min, *rest), opt=(batch.opt, *rest), max=(batch.max, *rest))


def _contradiction(axes: list[int | str], asked: ShapeRange) -> str:
    """Why ``asked`` cannot be a range of an input with these axes; empty if it can."""
    if len(axes) != len(asked.min):
        return f"the graph has {len(axes)} axes, the shape {len(asked.min)}"
    fixed = [
        f"axis {index} is fixed at {size}"
        for index, size in enumerate(axes)
        if isinstance(size, int) and not size == asked.min[index] == asked.max[index]
    ]
    return ", ".join(fixed)
