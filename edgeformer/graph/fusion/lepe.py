"""Folding LePE into the op: the depthwise convolution of v that stands beside every op node, and the sum of the two.

As with the blocks: found by what the graph looks like (an op node, a sum, one depthwise convolution between them and a
tensor that both come from), folded only where the old nodes and the op with LePE gave the same on the same random
inputs. One graph has one body for its op nodes, so LePE is folded into all of them or into none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeformer.graph.editing import remove_unused, unique_names
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.draws import draw_block_input
from edgeformer.graph.fusion.execution import (
    Array,
    ExecutionError,
    Observation,
    Session,
    Shapes,
    element_types,
    extract,
    observe,
    widened,
)
from edgeformer.graph.fusion.geometry import PERM, RejectedError
from edgeformer.graph.fusion.projection import Layout
from edgeformer.graph.fusion.proof import TOLERANCE
from edgeformer.graph.fusion.wiring import Wiring
from edgeformer.graph.protos import is_standard, label
from edgeformer.ops.bi_level_routing_attention import MAX_LEPE_KERNEL, Attributes, is_op, with_function
from edgeformer.records.fusion import LepeReport

__all__ = ["fold_lepe"]

# What may stand between v and the sum besides the convolution, reading one tensor that carries data.
_PATH_OPS = ("Add", "Gather", "Pad", "Slice", "Split")
_PLAIN = {"strides": 1, "dilations": 1}


@dataclass(frozen=True)
class _Site:
    """An op node and the LePE beside it.

    Attributes:
        op: position of the op node.
        source: the tensor that qkv and the convolved values come from, qkv itself or the same in another layout.
        layout: its layout.
        attended: the op's output as the sum reads it.
        encoded: LePE as the sum reads it.
        total: the sum.
        region: positions of all nodes from ``source`` to ``total``.
        weight: name of the convolution's weight, ``[dim, 1, k, k]``.
        attributes: the op's attributes with LePE's.
    """

    op: int
    source: str
    layout: Layout
    attended: str
    encoded: str
    total: str
    region: tuple[int, ...]
    weight: str
    attributes: Attributes


@dataclass(frozen=True)
class _Fold:
    """A site whose fold is proven: LePE's weight ``[k, k, dim]`` and bias ``[dim]``, as the widened graph has them."""

    site: _Site
    weight: Array
    bias: Array


def fold_lepe(
    model: onnx.ModelProto, shapes: Sequence[Shapes], *, draws: int, seed: int
) -> tuple[onnx.ModelProto, tuple[LepeReport, ...]]:
    """Fold LePE into every op node of a graph, where it can be proven for all of them.

    Args:
        model: a fused graph.
        shapes: sets of input shapes at which it runs.
        draws: random inputs per node that both sides are run on; every set of shapes gets one at least.
        seed: seed of the random inputs.

    Returns:
        The new graph and a report per op node without LePE; the given graph where not all of them can be folded.
    """
    wide = widened(with_function(model))
    flow = Dataflow(wide)
    types = element_types(model) | {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    positions = [i for i, node in enumerate(flow.nodes) if is_op(node) and not Attributes.from_node(node).lepe]
    folds: list[_Fold] = []
    reports: list[LepeReport] = []
    for number, position in enumerate(positions):
        name, record = label(flow.nodes[position]), _Record()
        try:
            site = _find(flow, position, types)
            observations = observe(wide, shapes, _statics(flow, site), [site.source, site.encoded])
            folds.append(
                _prove(flow, wide.opset_import, site, observations, record, max(draws, len(shapes)), (seed, number))
            )
        except (RejectedError, ExecutionError) as failure:
            reports.append(record.report(name, str(failure)))
        else:
            reports.append(record.report(name, None))
    if len(folds) == len(positions):
        return _rewrite(model, folds) if folds else model, tuple(reports)
    culprit = next(report.op for report in reports if report.status == "left")
    why = f"LePE can be folded into all op nodes of a graph or none, and {culprit} has none that could"
    return model, tuple(
        report.model_copy(update={"status": "left", "reason": why}) if report.status == "fused" else report
        for report in reports
    )


@dataclass
class _Record:
    """How far a proof got."""

    error: float | None = None
    draws: int = 0

    def report(self, op: str, reason: str | None) -> LepeReport:
        """The report on op node ``op``; ``reason`` says why its LePE was left."""
        status: Literal["fused", "left"] = "fused" if reason is None else "left"
        return LepeReport(op=op, status=status, proof_error=self.error, draws=self.draws, reason=reason)


def _find(flow: Dataflow, op: int, types: Mapping[str, int]) -> _Site:
    node = flow.nodes[op]
    attended = str(node.output[0])
    while True:
        readers = flow.readers(attended)
        if attended in flow.outputs or len(readers) != 1:
            raise RejectedError(f"{attended}, the attention's output, is used by more than one sum", 0)
        if flow.view_source(readers[0]) is None:
            break
        attended = str(flow.nodes[readers[0]].output[0])
    add = flow.nodes[readers[0]]
    others = [name for name in add.input if name != attended]
    if not is_standard(add, "Add") or len(others) != 1 or others[0] in flow.static:
        raise RejectedError(f"no LePE is added to {attended}: {add.op_type} ({label(add)}) reads it", 0)
    total, encoded = str(add.output[0]), str(others[0])
    source = flow.dominator(total)
    region = flow.between(source, [total]) if source is not None else []
    if source is None or op not in region:
        raise RejectedError(f"what {label(add)} adds to the attention does not come from its q, k and v", 1)
    path = flow.between(source, [encoded])
    convolutions = [index for index in path if is_standard(flow.nodes[index], "Conv")]
    strange = [
        flow.nodes[index]
        for index in region
        if index not in (op, readers[0], *convolutions)
        and flow.view_source(index) is None
        and not (is_standard(flow.nodes[index], *_PATH_OPS) and len(flow.data_inputs(index)) == 1)
    ]
    if strange or len(convolutions) != 1:
        found = f"{strange[0].op_type} ({label(strange[0])})" if strange else f"{len(convolutions)} convolutions"
        raise RejectedError(f"what {label(add)} adds to the attention is not LePE: it has {found}", 2)
    convolution = flow.nodes[convolutions[0]]
    kernel, dim = _kernel(flow, convolution)
    if types.get(convolution.input[1]) != types.get(node.output[0]):
        raise RejectedError(f"the weight of {label(convolution)} has another type than the attention", 3)
    attributes = replace(Attributes.from_node(node), lepe_kernel=kernel, dim=dim)
    layout: Layout = "NHWC" if source == node.input[0] else "NCHW"
    return _Site(op, source, layout, attended, encoded, total, tuple(region), str(convolution.input[1]), attributes)


def _kernel(flow: Dataflow, convolution: onnx.NodeProto) -> tuple[int, int]:
    """Side and channels of a depthwise convolution with a constant weight."""
    weight = _constant(flow, convolution.input[1])
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in convolution.attribute}
    shape = () if weight is None else weight.shape
    depthwise = len(shape) == 4 and shape[1] == 1 and values.get("group", 1) == shape[0]
    plain = all(step == size for name, size in _PLAIN.items() for step in values.get(name, ()))
    if not (depthwise and plain and shape[2] == shape[3] and shape[2] % 2 == 1 and shape[2] <= MAX_LEPE_KERNEL):
        raise RejectedError(
            f"{label(convolution)} with a weight of shape {list(shape)} is not a depthwise convolution with an odd "
            f"kernel of at most {MAX_LEPE_KERNEL} x {MAX_LEPE_KERNEL} and stride 1",
            3,
        )
    return shape[2], shape[0]


def _constant(flow: Dataflow, name: str) -> Array | None:
    if name in flow.initializers:
        return numpy_helper.to_array(flow.initializers[name])
    producer = flow.nodes[flow.producer[name]] if name in flow.producer else None
    if producer is not None and is_standard(producer, "Constant") and producer.attribute[0].name == "value":
        return numpy_helper.to_array(producer.attribute[0].t)
    return None


def _statics(flow: Dataflow, site: _Site) -> set[str]:
    """Static tensors that the region reads and that nodes other than Constant make."""
    names = {name for index in site.region for name in flow.reads(index) if name in flow.static}
    made = {name for name in names if name in flow.producer}
    return {name for name in made if not is_standard(flow.nodes[flow.producer[name]], "Constant")}


def _prove(
    flow: Dataflow,
    opset: Sequence[onnx.OperatorSetIdProto],
    site: _Site,
    observations: Sequence[Observation],
    record: _Record,
    draws: int,
    seed: Sequence[int],
) -> _Fold:
    """Run the old nodes and the op with LePE on the same random inputs.

    Raises:
        RejectedError: they differ, or no decisive input was found.
        ExecutionError: ONNX Runtime does not run one of them.
    """
    kernels = _constant(flow, site.weight)
    assert kernels is not None  # _find saw it
    weight = np.ascontiguousarray(kernels[:, 0].transpose(1, 2, 0))
    bias = _bias(flow, opset, site, observations[0])
    rng = np.random.default_rng(list(seed))
    old, new = [], []
    for observation in observations:
        part = extract(flow, opset, site.region, {site.source: 4}, [site.total], observation.values)
        old.append(Session(with_function(part)))
        rest = sorted({*flow.between(site.source, [site.attended])})
        folded = extract(flow, opset, rest, {site.source: 4}, [site.attended], observation.values)
        _set_lepe(folded, flow.nodes[site.op].output[0], site.attributes, weight, bias)
        new.append(Session(with_function(folded)))
    worst = 0.0
    for number in range(draws):
        case = number % len(observations)
        shape = observations[case].shapes[site.source]
        batch, height, width, channels = (shape[axis] for axis in PERM[site.layout])
        wiring = Wiring.plain(channels, linear=False, bias=False)
        draw = draw_block_input(rng, site.attributes, (batch, height, width, channels), wiring)
        if draw is None:
            raise RejectedError("no random input was found that makes the routing decisive", 4)
        feeds = {site.source: draw.image.transpose(np.argsort(PERM[site.layout])).copy()}
        expected, got = old[case].run(feeds)[site.total], new[case].run(feeds)[site.attended]
        same = expected.shape == got.shape
        error = float(np.abs(expected - got).max() / np.abs(expected).max()) if same else math.inf
        worst = max(worst, error if math.isfinite(error) else math.inf)
        record.draws, record.error = number + 1, worst
        if worst > TOLERANCE:
            raise RejectedError(
                f"the attention with what is added to it and the op with LePE differ by {worst:.1e} of the greatest "
                f"output (at most {TOLERANCE:.0e} is rounding)",
                5,
            )
    return _Fold(site, weight, bias)


def _bias(flow: Dataflow, opset: Sequence[onnx.OperatorSetIdProto], site: _Site, observation: Observation) -> Array:
    """LePE of v = 0, however it is written: the same at every token."""
    path = flow.between(site.source, [site.encoded])
    model = extract(flow, opset, path, {site.source: 4}, [site.encoded], observation.values)
    zeros = np.zeros(observation.shapes[site.source], np.float32)
    made = Session(model).run({site.source: zeros})[site.encoded]
    for axis in (made.ndim - 1, 1):
        if made.ndim == 4 and made.shape[axis] == site.attributes.dim:
            tokens = np.moveaxis(made, axis, -1).reshape(-1, made.shape[axis])
            if np.array_equal(tokens, np.broadcast_to(tokens[0], tokens.shape)):
                return np.ascontiguousarray(tokens[0])
    raise RejectedError(
        f"for v = 0, {site.encoded} is not the same bias of {site.attributes.dim} channels at every token", 4
    )


def _set_lepe(model: onnx.ModelProto, output: str, attributes: Attributes, weight: Array, bias: Array) -> None:
    """Give, in place, the op node that makes ``output`` LePE, its tensors as new initializers."""
    free = unique_names(model)
    node = next(node for node in model.graph.node if output in node.output)
    names = {what: free(f"{node.name}/{what}") for what in ("lepe_weight", "lepe_bias")}
    new = attributes.make_node(node.input[0], output, node.name, **names)
    new.metadata_props.extend(node.metadata_props)
    new.doc_string = node.doc_string
    node.CopyFrom(new)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), names[what])
        for what, array in (("lepe_weight", weight), ("lepe_bias", bias))
    )


def _rewrite(model: onnx.ModelProto, folds: Sequence[_Fold]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    types = element_types(model)
    for fold in folds:
        site = fold.site
        output = model.graph.node[site.op].output[0]
        kind = helper.tensor_dtype_to_np_dtype(types[output])
        _set_lepe(result, output, site.attributes, fold.weight.astype(kind), fold.bias.astype(kind))
    made = {fold.site.attended: fold.site.total for fold in folds}
    sums = set(made.values())
    kept = [node for node in result.graph.node if sums.isdisjoint(node.output)]
    for node in kept:
        # Whoever made the attention's output makes the sum now, under the sum's name.
        node.output[:] = [made.get(name, name) for name in node.output]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    remove_unused(result)
    return with_function(result)
