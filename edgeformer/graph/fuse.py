"""Fuse bi-level routing attention: replace every block that is provably the op by one op node.

The fuser knows no exporter. It looks for TopK -> gather -> Softmax -> product, guesses the op's attributes from shapes
and values, and runs the guessed op and the block's own nodes on the same random inputs. Only a block that comes out
equal is replaced; any other stays as it was, with the reason in the report. So graphs that nobody here wrote are safe
to feed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from edgeformer.errors import InputError
from edgeformer.graph.editing import unique_names
from edgeformer.graph.fusion.anchors import Anchors, find_anchors
from edgeformer.graph.fusion.candidate import Candidate
from edgeformer.graph.fusion.dataflow import Dataflow
from edgeformer.graph.fusion.execution import (
    Array,
    ExecutionError,
    Session,
    Shapes,
    element_types,
    input_shapes,
    observe,
    random_images,
    widened,
)
from edgeformer.graph.fusion.lepe import fold_lepe
from edgeformer.graph.fusion.proof import TOLERANCE, Verdict, prove
from edgeformer.graph.fusion.report import FuseResult
from edgeformer.graph.fusion.rewrite import rewrite
from edgeformer.graph.opset import raise_opset
from edgeformer.graph.prepare import prepared
from edgeformer.graph.protos import fed_inputs, is_standard, label
from edgeformer.graph.repairs import with_true_types
from edgeformer.graph.trained_qdq import is_trained, mark_trained, with_trained_rounding, without_qdq
from edgeformer.ops.bi_level_routing_attention import (
    FUNCTION_OPSET,
    OP_TYPE,
    Attributes,
    is_op,
    with_function,
)
from edgeformer.progress import Progress
from edgeformer.records.fusion import BlockReport, LepeReport

__all__ = ["BlockReport", "FuseResult", "LepeReport", "fuse"]

_INTEGERS = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
# Tokens that a region needs for its rows and columns to be told apart: 2 x 3.
_TOKENS = 6
_WHOLE_GRAPH_TRIES = 8
# Distance of two logits, as a fraction of the greatest, that the rounding of all layers before may turn around.
_NEAR_TIE = 1e-4


def fuse(
    model: onnx.ModelProto,
    *,
    draws: int = 3,
    seed: int = 0,
    fuse_lepe: bool = False,
    progress: Progress | None = None,
) -> FuseResult:
    """Replace every provable block of bi-level routing attention by one op node.

    The qkv Linear moves in front of the cutting into regions, LePE's values become a slice of its output, and the
    reshapes, transposes and gathers around the block go. Inputs, outputs, their order and names and the model's
    metadata stay. The model's opset is raised to the one that the op's function needs, if it is lower. In a model whose
    inputs all have fixed shapes, shape computations are replaced by their results. A graph with the rounding that it
    was trained with (`edgeformer.quantization.fake_quantize`) is fused in floating point and gets its pairs again.

    Args:
        model: any ONNX model, in memory (`edgeformer.graph.onnx_files.load_model`). It is not modified.
        draws: random inputs per block that both sides are run on, at least 1.
        seed: seed of all random inputs: same model, draws and seed, same result.
        fuse_lepe: fold LePE, the depthwise convolution beside the attention, into the op nodes, those that the model
            already has included; into all of them or, where one cannot be proven, into none.
        progress: told of each block that was tried.

    Returns:
        The new model, which carries the op's function, and a report per candidate. Where nothing was fused the model is
        a copy of the given one, prepared (`edgeformer.graph.prepare`).

    Raises:
        InputError: ``draws`` is below 1, the model cannot be prepared, or its opset cannot be raised; or a layer whose
            rounding was trained is gone.
        RuntimeError: the new graph does not compute what the old one does (a fault of edgeformer; no graph is
            returned).
    """
    if draws < 1:
        raise InputError("EF101", f"draws {draws}: a proof needs at least 1 random input")
    model = prepared(model)
    if is_trained(model):
        plain, rounding = without_qdq(model)
        result = fuse(plain, draws=draws, seed=seed, fuse_lepe=fuse_lepe, progress=progress)
        again, _, _ = with_trained_rounding(result.model, rounding)
        mark_trained(again)
        return replace(result, model=again)
    has_op = any(is_op(node) for node in model.graph.node)
    if not find_anchors(Dataflow(model)) and not (fuse_lepe and has_op):
        return FuseResult(_copy(model), (), None)
    raised = raise_opset(model, FUNCTION_OPSET)
    wide = widened(with_function(raised) if has_op else raised)
    flow = Dataflow(wide)
    candidates = [Candidate.of(flow, anchors) for anchors in find_anchors(flow)]
    if progress:
        progress("blocks proven", 0, len(candidates))
    shape_tensors = _shape_tensors(wide, flow)
    try:
        shapes = input_shapes(wide, lambda case: _fewest_tokens(wide, flow, candidates, case) >= _TOKENS)
        statics = set(shape_tensors).union(*(candidate.statics(flow) for candidate in candidates))
        observations = observe(wide, shapes, statics, {name for candidate in candidates for name in candidate.data})
    except ExecutionError as failure:
        reason = f"ONNX Runtime cannot run this graph, so nothing can be proven about it: {failure}"
        left = tuple(_report(flow, candidate.anchors, Verdict(reason=reason)) for candidate in candidates)
        return FuseResult(_copy(model), left, None)
    free_name = unique_names(raised)
    verdicts = []
    for number, candidate in enumerate(candidates):
        name = free_name(f"{OP_TYPE}_{number}")
        verdicts.append(prove(flow, wide.opset_import, candidate, observations, name, draws=draws, seed=(seed, number)))
        if progress:
            progress("blocks proven", number + 1, len(candidates))
    plans = [verdict.plan for verdict in verdicts if verdict.plan is not None]
    fused, lepe = raised, tuple[LepeReport, ...]()
    if plans:
        # With one set of input shapes there can be no other, and what they settle is settled for good.
        stored = {name: observations[0].values[name] for name in shape_tensors} if _is_static(wide) else {}
        fused = rewrite(raised, plans, stored)
        # A size that exporters lost in the block shows now. What is noted of inner tensors stays: inference does not
        # see through an op with LePE.
        for value, true in zip(fused.graph.output, with_true_types(fused).graph.output, strict=True):
            value.CopyFrom(true)
    if fuse_lepe and any(is_op(node) for node in fused.graph.node):
        fused, lepe = fold_lepe(fused, shapes, draws=draws, seed=seed)
    reports = tuple(
        _report(flow, candidate.anchors, verdict, fused)
        for candidate, verdict in zip(candidates, verdicts, strict=True)
    )
    if not plans and all(report.status == "left" for report in lepe):
        return FuseResult(_copy(model), reports, None, lepe)
    onnx.checker.check_model(fused)
    logits = [flow.nodes[candidate.anchors.topk].input[0] for candidate in candidates]
    error = _whole_graph_error(wide, widened(fused), shapes, logits, seed)
    return FuseResult(fused, reports, error, lepe)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def _fewest_tokens(model: onnx.ModelProto, flow: Dataflow, candidates: Sequence[Candidate], shapes: Shapes) -> float:
    """Tokens in a region of the candidate that has the fewest, at these input shapes."""
    anchors = [candidate.anchors for candidate in candidates]
    keys = [flow.nodes[one.softmax].input[0] for one in anchors]
    picked = [flow.nodes[one.topk].output[1] for one in anchors]
    (seen,) = observe(model, [shapes], (), {*keys, *picked})
    tokens = (seen.shapes[key][-1] / seen.shapes[pick][-1] for key, pick in zip(keys, picked, strict=True))
    return min(tokens, default=math.inf)


def _is_static(model: onnx.ModelProto) -> bool:
    inputs = fed_inputs(model.graph)
    return all(axis.HasField("dim_value") for value in inputs for axis in value.type.tensor_type.shape.dim)


def _shape_tensors(model: onnx.ModelProto, flow: Dataflow) -> list[str]:
    """Computed static integers that nodes read together with data: the shapes, axes and bounds of a static graph."""
    if not _is_static(model):
        return []
    read = {name for index in range(len(flow.nodes)) if flow.data_inputs(index) for name in flow.reads(index)}
    types = element_types(model)
    return sorted(
        name
        for name in read & flow.static & flow.producer.keys()
        if types.get(name) in _INTEGERS and not is_standard(flow.nodes[flow.producer[name]], "Constant")
    )


def _report(flow: Dataflow, anchors: Anchors, verdict: Verdict, fused: onnx.ModelProto | None = None) -> BlockReport:
    """The report on one candidate; the attributes are those of its node in the ``fused`` graph, where there is one."""
    name = None if verdict.plan is None else verdict.plan.name
    nodes = () if fused is None else fused.graph.node
    attributes = next((Attributes.from_node(node) for node in nodes if is_op(node) and node.name == name), None)
    rest = [index for index in (verdict.nodes or (anchors.softmax,)) if index != anchors.topk]
    return BlockReport(
        status="left" if verdict.plan is None else "fused",
        nodes=tuple(label(flow.nodes[index]) for index in (anchors.topk, *rest)),
        attributes=None if attributes is None else attributes.to_dict(),
        op=name,
        proof_error=verdict.error,
        draws=verdict.draws,
        reason=verdict.reason,
    )


def _whole_graph_error(
    old: onnx.ModelProto, new: onnx.ModelProto, shapes: Sequence[Shapes], logits: Sequence[str], seed: int
) -> float:
    """Greatest difference between two graphs' outputs at every set of input shapes, relative to the greatest output.

    Rounding decides between regions whose logits are as good as equal, and two correct graphs may then differ. Such an
    input says nothing and another one is drawn; on every other one the graphs must agree.

    Args:
        old: the given graph, widened.
        new: the new one, widened.
        shapes: sets of input shapes.
        logits: tensors of the old graph in which a TopK looks for the best regions, along the last axis.
        seed: seed of the random inputs.

    Raises:
        RuntimeError: they differ.
    """
    probe = _copy(old)
    names = [value.name for value in old.graph.output]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(logits) if name not in names)
    reference, session = Session(probe), Session(new)
    worst = 0.0
    for number, case in enumerate(shapes):
        for attempt in range(_WHOLE_GRAPH_TRIES):
            feeds = random_images(np.random.default_rng((seed, number, attempt)), old, case)
            expected, got = reference.run(feeds), session.run(feeds)
            error = max(_difference(expected[name], got[name]) for name in names)
            if error <= TOLERANCE:
                worst = max(worst, error)
                break
            if not any(_near_tie(expected[name]) for name in logits):
                raise RuntimeError(f"the fused graph differs from the given one by {error:.1e} of the greatest output")
        else:
            raise RuntimeError(
                f"{_WHOLE_GRAPH_TRIES} random inputs in a row had near-ties in their routing and gave outputs that "
                f"differ by up to {error:.1e} of the greatest one: the fused graph could not be checked"
            )
    return worst


def _difference(expected: Array, got: Array) -> float:
    if expected.shape != got.shape:
        return math.inf
    if not np.issubdtype(expected.dtype, np.floating) or not np.isfinite(expected).all():
        return 0.0 if np.array_equal(expected, got, equal_nan=expected.dtype.kind == "f") else math.inf
    greatest = float(np.abs(expected).max(initial=0.0))
    error = float(np.abs(expected - got).max(initial=0.0)) / (greatest or 1.0)
    return error if math.isfinite(error) else math.inf


def _near_tie(logits: Array) -> bool:
    """Whether rounding may change the order of two neighbours in any row."""
    ordered = np.sort(logits, axis=-1)
    return bool((np.diff(ordered, axis=-1) < _NEAR_TIE * np.abs(logits).max()).any())
