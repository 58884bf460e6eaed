"""The network part by part: what the typed graph computes in, and how far what each part gives is from the float graph.

The figure of a part holds what all parts before it did, too: where it falls from one to the next, the harm is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from edgeformer.graph.network_parts import NetworkPart, network_parts
from edgeformer.graph.protos import float_precision, is_standard, label
from edgeformer.ops.bi_level_routing_attention import Attributes, is_op
from edgeformer.records.network import BlockFigures
from edgeformer.records.terms import Precision
from edgeformer.runtime import OnnxSession, run_in_chunks, static_batch
from edgeformer.runtime.session import Array, as_input
from edgeformer.verify.figures import Accumulator
from edgeformer.verify.recording import Recording, Store

__all__ = ["block_figures"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Through these a weight stays one.
_ON_THE_WAY = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# What `edgeformer.graph.pointwise` appends to the name of a tensor that it makes channels first.
_CHANNELS_FIRST = "/channels_first"
_TO_NCHW = (0, 3, 1, 2)


def block_figures(fused: onnx.ModelProto, typed: onnx.ModelProto, images: Array) -> tuple[BlockFigures, ...]:
    """Compare the parts of the typed graph with those of the fused one, on the same images.

    Memory holds one model and, for each image, one tensor a part; beyond a limit these go to temporary files.

    Args:
        fused: the float graph, whose nodes tell the parts.
        typed: the same with every type explicit; tensors are told by their names.
        images: float32 ``[samples, 3, height, width]``: a few, all of which are run.

    Raises:
        InputError: one of the graphs does not run on these images.
    """
    parts = network_parts(fused)
    ends = _ends(parts, typed)
    snrs = _snrs(fused, typed, ends, images) if ends else {}
    layers = _layers(parts, typed)
    floats = float_precision(typed)
    return tuple(
        _figures(part, layers.get(part.name, ()), floats, snrs.get(part.name), len(images))
        for part in parts
        if layers.get(part.name) or part.name in snrs
    )


def _figures(
    part: NetworkPart,
    layers: Sequence[tuple[onnx.NodeProto, bool]],
    floats: Precision,
    snr_db: float | None,
    images: int,
) -> BlockFigures:
    op = next((node for node, _ in layers if is_op(node)), None)
    known = None if op is None else Attributes.from_node(op)
    weighted = [int8 for node, int8 in layers if not is_op(node)]
    attention: Precision | None = None
    if known is not None:
        attention = "int8" if known.quantized else floats
    return BlockFigures(
        name=part.name,
        int8_layers=sum(weighted),
        float_layers=len(weighted) - sum(weighted),
        op=None if op is None else label(op),
        attention=attention,
        regions=None if known is None else known.regions,
        topk=None if known is None else known.topk,
        snr_db=snr_db,
        images=0 if snr_db is None else images,
    )


def _layers(parts: Sequence[NetworkPart], typed: onnx.ModelProto) -> dict[str, list[tuple[onnx.NodeProto, bool]]]:
    """The layers of the typed graph by part, op nodes among them, each with whether its weight is INT8."""
    part_of = {name: part.name for part in parts for node in part.nodes for name in node.output if name}
    made = {name: node for node in typed.graph.node for name in node.output if name}
    stored = {tensor.name for tensor in typed.graph.initializer}
    found: dict[str, list[tuple[onnx.NodeProto, bool]]] = {}
    # Backwards: what was put in between (Q/DQ, moves, a convolution under a new name) stands before what reads it.
    current = parts[-1].name if parts else ""
    for node in reversed(typed.graph.node):
        names = (name.removesuffix(_CHANNELS_FIRST) for name in node.output)
        current = next((part_of[name] for name in names if name in part_of), current)
        int8 = False if is_op(node) else _has_int8_weight(node, made, stored)
        if int8 is not None:
            found.setdefault(current, []).insert(0, (node, int8))
    return found


def _has_int8_weight(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], stored: set[str]) -> bool | None:
    """Whether a layer multiplies with an INT8 constant; None where it is no layer, or multiplies with no constant."""
    if not is_standard(node, *_LAYERS):
        return None
    name, int8 = node.input[1], False
    while name not in stored:
        source = made.get(name)
        if source is None or not is_standard(source, *_ON_THE_WAY):
            return int8 if source is not None and is_standard(source, "Constant") else None
        int8 = int8 or source.op_type == "DequantizeLinear"
        name = source.input[0]
    return int8


def _ends(parts: Sequence[NetworkPart], typed: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """For each part a tensor that it gives, in the fused graph and in the typed one; none where they share none."""
    made = {name for node in typed.graph.node for name in node.output if name}
    ends = {}
    for part in parts:
        moved = {node.output[0]: node.input[0] for node in part.nodes if is_standard(node, "Transpose")}
        # Where the last thing it does is a Transpose, the typed graph may do without.
        candidates = [name for end in part.ends for name in (end, moved.get(end)) if name]
        pairs = ((name, other) for name in candidates for other in (name, name + _CHANNELS_FIRST) if other in made)
        pair = next(pairs, None)
        if pair is not None:
            ends[part.name] = pair
    return ends


def _snrs(
    fused: onnx.ModelProto, typed: onnx.ModelProto, ends: Mapping[str, tuple[str, str]], images: Array
) -> dict[str, float]:
    """SNR in dB by part."""
    seen: dict[str, Accumulator] = {}
    with Store() as store:
        kept = Recording(store)
        for outputs in _runs(fused, [reference for reference, _ in ends.values()], images):
            kept.append(outputs)
        for number, outputs in enumerate(_runs(typed, [name for _, name in ends.values()], images)):
            references = kept[number]
            for part, (reference, name) in ends.items():
                want, have = references[reference], outputs[name]
                if name != reference and want.ndim == 4:
                    want = want.transpose(_TO_NCHW)
                if want.shape == have.shape and want.dtype.kind == have.dtype.kind == "f":
                    seen.setdefault(part, Accumulator(part)).update(want, have)
    figures = {part: accumulator.result().snr_db for part, accumulator in seen.items()}
    return {part: snr for part, snr in figures.items() if snr is not None}


def _runs(model: onnx.ModelProto, tensors: Sequence[str], images: Array) -> Iterator[dict[str, Array]]:
    """The tensors, image by image."""
    with OnnxSession(model, outputs=list(dict.fromkeys(tensors)), optimization="basic") as session:
        (given,) = session.inputs
        size = static_batch(session) or 1
        for start in range(0, len(images), size):
            feeds = {given: as_input(session.inputs[given], images[start : start + size])}
            yield run_in_chunks(session, feeds, size)
