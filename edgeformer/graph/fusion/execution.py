"""Running graphs, and parts of graphs, in ONNX Runtime, and finding input shapes that a graph takes.

All of it happens on graphs whose 16-bit floating-point tensors were made FLOAT (`widened`): the question is whether two
graphs compute the same function, and the rounding of a narrow type only blurs the answer. ONNX Runtime's CPU provider
moreover has no kernels for most 16-bit types.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from edgeformer.errors import InputError
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.protos import is_standard
from edgeformer.graph.shape_inference import skeleton
from edgeformer.runtime import Array, OnnxSession

__all__ = [
    "Array",
    "ExecutionError",
    "Observation",
    "Session",
    "Shapes",
    "element_types",
    "extract",
    "input_shapes",
    "observe",
    "random_images",
    "widened",
]

# Input name -> shape.
Shapes = dict[str, tuple[int, ...]]

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = ("to", "dtype")
# Sizes to try for axes without a fixed size: of the batch, and of height and width. The strides of a BiFormer are 4 to
# 32, the released models have 7, 8 and 16 regions per side; small sizes come first because a proof at them is quick.
_BATCHES = (2, 1, 3, 4, 8, 16)
_SIZES = (7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 224, 256, 320, 384, 448, 512, 640, 1024)
# Factors on the first size that ran, for height and width of the second.
_GROWTH = ((2, 3), (4, 6), (8, 12), (16, 24))
_OTHERWISE = ((1, 2), (2, 1), (2, 2), (1, 1))


class ExecutionError(Exception):
    """ONNX Runtime does not load or run a graph; the message is ONNX Runtime's own."""


class Session:
    """A model in ONNX Runtime as it is written, with no graph optimization.

    A graph that does not run is a finding of the fuser and not the user's fault: it raises `ExecutionError`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        with _findings():
            self._session = OnnxSession(model, optimization="none")
        self.outputs = list(self._session.outputs)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Outputs by name: those in ``outputs``, or all.

        Raises:
            ExecutionError: the run failed.
        """
        with _findings():
            found = self._session.run(feeds)
        return found if outputs is None else {name: found[name] for name in outputs}


@contextmanager
def _findings() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        # ONNX Runtime's own words where it has some: the fuser says which part of which graph it ran.
        raise ExecutionError(str(error.__cause__ or error)) from error


class Observation:
    """What one run of a graph at one set of input shapes showed.

    Attributes:
        values: static tensors by name.
        shapes: shapes of data tensors by name.
    """

    def __init__(self, values: dict[str, Array], shapes: dict[str, tuple[int, ...]]) -> None:
        self.values = values
        self.shapes = shapes


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """``TensorProto.DataType`` of every tensor whose type can be inferred, or else is noted in the graph."""
    bare = skeleton(model)
    # Notes that converters left may be wrong, and inference fails where it meets one.
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare).graph
    values = (*model.graph.value_info, *graph.value_info, *graph.input, *graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return {name: kind for name, kind in found.items() if kind != onnx.TensorProto.UNDEFINED}


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` in which every FLOAT16 and BFLOAT16 tensor is FLOAT, its names and its nodes unchanged."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _widen_graph(result.graph)
    return result


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.type == AttributeProto.INT and attribute.i in _NARROW:
                attribute.i = TensorProto.FLOAT
            if attribute.type == AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            for inner in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                _widen_graph(inner)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def random_images(rng: np.random.Generator, model: onnx.ModelProto, shapes: Shapes) -> dict[str, Array]:
    """Random inputs for a whole graph, smooth over neighbouring positions so that regions differ from each other.

    Independent noise would have the same mean in every region, and every routing decision would be a near-tie.

    Args:
        rng: source of randomness.
        model: the graph's inputs say the element types; floating-point inputs and images of whole pixel values are
            drawn, all others are zero.
        shapes: shape of every input.
    """
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        if value.name not in shapes:
            continue
        shape = shapes[value.name]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        pixels = np.issubdtype(dtype, np.integer) and len(shape) == 4
        if not np.issubdtype(dtype, np.floating) and not pixels:
            feeds[value.name] = np.zeros(shape, dtype)
            continue
        image = rng.standard_normal(shape)
        for axis in range(1, len(shape)):
            # Blocks of equal values at four scales, along each axis with more than a few positions.
            for blocks in (2, 5, 11, 23):
                if shape[axis] > blocks:
                    coarse = rng.standard_normal(
                        [blocks if a == axis else (n if a == 0 else 1) for a, n in enumerate(shape)]
                    )
                    image += np.take(coarse, np.arange(shape[axis]) * blocks // shape[axis], axis=axis)
        if pixels:
            image = np.rint(np.clip(127.5 + 32 * image, 0, 127 if dtype == np.int8 else 255))
        feeds[value.name] = image.astype(dtype)
    return feeds


def input_shapes(model: onnx.ModelProto, large_enough: Callable[[Shapes], bool]) -> list[Shapes]:
    """Sets of input shapes at which ONNX Runtime runs the model: one for a static model, up to two for a dynamic one.

    Axis 0 without a fixed size is taken for the batch, any other for height or width. The two sets differ in every
    axis that is free, as far as the model takes it.

    Args:
        model: the graph, widened.
        large_enough: whether a proof at these shapes tells rows from columns. The second set grows until it does, where
            height and width are free.

    Raises:
        ExecutionError: the model runs at none of the sizes that were tried; ONNX Runtime's last message.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    declared = {
        value.name: [
            axis.dim_value if axis.HasField("dim_value") else axis.dim_param or f"{value.name}.{i}"
            for i, axis in enumerate(value.type.tensor_type.shape.dim)
        ]
        for value in model.graph.input
        if value.name not in stored
    }
    batches = {axis for axes in declared.values() for axis in axes[:1] if isinstance(axis, str)}
    # In order of appearance: height before width.
    sides = [axis for axes in declared.values() for axis in axes[1:] if isinstance(axis, str) and axis not in batches]
    sides = list(dict.fromkeys(sides))
    session = Session(model)
    errors: list[ExecutionError] = []

    def at(batch: int, height: int, width: int) -> Shapes | None:
        """The inputs' shapes at these sizes if the model runs at them."""
        free = dict.fromkeys(batches, batch) | dict(zip(sides, itertools.cycle((height, width)), strict=False))
        shapes = {
            name: tuple(axis if isinstance(axis, int) else free[axis] for axis in axes)
            for name, axes in declared.items()
        }
        try:
            session.run(random_images(np.random.default_rng(0), model, shapes))
        except ExecutionError as error:
            errors.append(error)
            return None
        return shapes

    tries = itertools.product(_SIZES if sides else _SIZES[:1], _BATCHES if batches else _BATCHES[:1])
    runs = ((size, batch, at(batch, size, size)) for size, batch in tries)
    size, batch, first = next((found for found in runs if found[2] is not None), (0, 0, None))
    if first is None:
        raise errors[-1]
    second: Shapes | None = None
    other_batches = [other for other in _BATCHES if other != batch] if batches else [batch]
    if sides:
        for (high, wide), other in itertools.product(_GROWTH, other_batches[:1]):
            found = at(other, high * size, wide * size)
            second = found or second
            if found and large_enough(found):
                break
    if second is None and (sides or batches):
        rest = itertools.product(_OTHERWISE if sides else _OTHERWISE[-1:], other_batches)
        more = (at(other, high * size, wide * size) for (high, wide), other in rest)
        second = next((found for found in more if found is not None and found != first), None)
    return [first] if second is None else [first, second]


def observe(
    model: onnx.ModelProto, shapes: Sequence[Shapes], statics: Iterable[str], data: Iterable[str]
) -> list[Observation]:
    """Run the model once per set of input shapes and look at tensors inside.

    Args:
        model: the graph, widened.
        shapes: sets of input shapes, as `input_shapes` gives them.
        statics: static tensors whose values are wanted.
        data: data tensors whose shapes are wanted.

    Returns:
        One observation per set of input shapes.

    Raises:
        ExecutionError: the model does not run.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    statics, data = sorted(set(statics)), sorted(set(data))
    # ONNX Runtime fills in the types of outputs that are declared by name only.
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in statics if name not in known)
    for name in data:
        probe.graph.node.append(helper.make_node("Shape", [name], [_shape_name(name)]))
        probe.graph.output.append(helper.make_tensor_value_info(_shape_name(name), TensorProto.INT64, [None]))
    session = Session(probe)
    found = []
    for case in shapes:
        results = session.run(random_images(np.random.default_rng(0), model, case))
        found.append(
            Observation(
                {name: results[name] for name in statics},
                {name: tuple(int(size) for size in results[_shape_name(name)]) for name in data},
            )
        )
    return found


def _shape_name(name: str) -> str:
    return f"{name}/edgeformer.shape"


def extract(
    flow: Dataflow,
    opset: Sequence[onnx.OperatorSetIdProto],
    nodes: Sequence[int],
    inputs: Mapping[str, int],
    outputs: Sequence[str],
    statics: Mapping[str, Array],
) -> onnx.ModelProto:
    """A model of some nodes of a graph alone.

    Args:
        flow: the graph.
        opset: its opset imports.
        nodes: positions of the nodes, in graph order.
        inputs: tensors to feed and their ranks, all FLOAT; they may be static ones.
        outputs: tensors to return.
        statics: values of the static tensors that other nodes make and these read.
    """
    constants: dict[str, onnx.TensorProto] = {}
    needed: list[onnx.NodeProto] = []
    for name in dict.fromkeys(name for index in nodes for name in flow.reads(index)):
        if name in inputs or name not in flow.static:
            continue
        if name in flow.initializers:
            constants[name] = flow.initializers[name]
        elif is_standard(flow.nodes[flow.producer[name]], "Constant"):
            needed.append(flow.nodes[flow.producer[name]])
        else:
            constants[name] = numpy_helper.from_array(statics[name], name)
    graph = helper.make_graph(
        [*needed, *(flow.nodes[index] for index in nodes)],
        "part",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        list(constants.values()),
    )
    return helper.make_model(graph, opset_imports=list(opset), ir_version=10)
