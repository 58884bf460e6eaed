"""Where an ONNX file of a user comes in: read, checked, and brought into the form that everything behind relies on.

That form: no functions but the op's, no sequences, no operators that TensorRT knows by their parts only, bytes cast
before they move, a name of its own for each node that has one, nodes in order, true types, and weights that are
numbers. The graph computes what the file computes, under the same names of inputs and outputs.
"""

from __future__ import annotations

import os

import onnx

from edgeformer.errors import InputError
from edgeformer.graph.early_cast import with_early_casts
from edgeformer.graph.functions import lower_new_ops, without_functions
from edgeformer.graph.node_order import in_topological_order
from edgeformer.graph.onnx_files import load_model
from edgeformer.graph.protos import is_standard
from edgeformer.graph.refusals import check_can_be_taken
from edgeformer.graph.repairs import with_true_types, with_unique_node_names
from edgeformer.graph.sequences import SEQUENCE_OPS, without_sequences
from edgeformer.graph.simplify import simplified

__all__ = ["open_model", "prepared"]


def open_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a user's ONNX file and prepare it.

    Args:
        path: the ``.onnx`` file; external data is looked for beside it.

    Raises:
        InputError: the file cannot be read (as `load_model` says), or cannot be taken; the message names it.
    """
    model = load_model(path)
    try:
        return prepared(model)
    except InputError as error:
        raise InputError(error.code, f"{os.fspath(path)}: {error}") from error


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` in the form that all passes rely on: itself where it has that form, else a copy.

    Args:
        model: any ONNX model, its weights in memory. It is not modified.

    Raises:
        InputError: what it holds cannot be taken (`check_can_be_taken`) or cannot be brought into that form.
    """
    plain = without_functions(in_topological_order(model))
    check_can_be_taken(plain)
    named = with_unique_node_names(plain)
    lowered = lower_new_ops(named)
    has_sequences = any(is_standard(node, *SEQUENCE_OPS) for node in lowered.graph.node)
    if has_sequences:
        lowered = without_sequences(simplified(lowered))
    if has_sequences or lowered is not named:
        lowered = with_unique_node_names(simplified(lowered))
    return with_true_types(with_early_casts(in_topological_order(lowered)))
