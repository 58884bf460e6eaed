"""PyTorch to ONNX, with PyTorch's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import onnx
from onnx import ModelProto

from edgeformer.errors import InputError
from edgeformer.runtime.torch_session import INPUT_NAME, channels_of, evaluating, name_outputs, run_model
from edgeformer.version import __version__

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_OPSET", "MINIMUM_OPSET", "PRODUCER", "export_onnx"]

DEFAULT_OPSET = 20
# The op's function body needs 18; PyTorch's exporter writes no older one.
MINIMUM_OPSET = 18
PRODUCER = "edgeformer"
_LOG = logging.getLogger(__name__)
# Of what the exporter notes at each node, where the node comes from in the model. The rest (stack traces with the
# paths of this machine, dumps of its own graph) is as large as the graph and makes equal exports differ.
_KEPT_NOTES = frozenset({"pkg.torch.onnx.name_scopes"})
# A method of modules that are more than their forward pass, such as those that round to INT8 while they are trained: it
# is given the model that holds them and a function that exports a plain model, and gives the graph.
_OWN_EXPORT = "edgeformer_export"
# onnxscript's list of the rules that its optimizer follows.
_RULES = "_DEFAULT_REWRITE_RULES"


class _Forward(logging.Handler):
    """Hands PyTorch's log records over to ours, one level down, so that they do not reach the user's terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        level = logging.INFO if record.levelno >= logging.WARNING else logging.DEBUG
        _LOG.log(level, "%s: %s", record.name, record.getMessage())


@contextlib.contextmanager
def _captured_chatter() -> Iterator[None]:
    """Whatever PyTorch prints, warns or logs within goes to this module's logger."""
    logger = logging.getLogger("torch.onnx")
    # PyTorch gives this logger a handler of its own that writes to the terminal: it is taken off for a while.
    handlers, propagates = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Forward()], False
    printed = io.StringIO()
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("always")
            yield
    finally:
        logger.handlers, logger.propagate = handlers, propagates
        for warning in caught:
            _LOG.info("%s: %s", warning.category.__name__, warning.message)
        if printed.getvalue().strip():
            _LOG.debug("%s", printed.getvalue().strip())


@contextlib.contextmanager
def _without_slow_rule() -> Iterator[None]:
    """Within, the exporter's optimizer does not look for two Slices that could be a Split.

    It looks at every pair of Slices in the graph, which takes as long as all other rules and passes together in a deep
    model, and finds none in what PyTorch exports: a split is exported as Split. The list of rules has no public name;
    where it is called otherwise, the export takes longer and is the same.
    """
    from onnxscript import rewriter
    from onnxscript.rewriter.rules.common import slice_split_rule

    rules = getattr(rewriter, _RULES, None)
    if rules is None:
        yield
        return
    setattr(rewriter, _RULES, tuple(rule for rule in rules if rule is not slice_split_rule))
    try:
        yield
    finally:
        setattr(rewriter, _RULES, rules)


def _check_options(model: nn.Module, input_size: Sequence[int], batch: int, opset: int) -> None:
    import torch

    faults = []
    if opset < MINIMUM_OPSET:
        faults.append(f"opset is {opset}: at least {MINIMUM_OPSET} is needed")
    if opset > onnx.defs.onnx_opset_version():
        faults.append(f"opset is {opset}: the onnx package knows none newer than {onnx.defs.onnx_opset_version()}")
    if len(input_size) != 2 or any(
        isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in input_size
    ):
        faults.append(f"input_size is {tuple(input_size)}: expected (height, width), both >= 1")
    if batch < 1:
        faults.append(f"batch is {batch}: at least 1 is needed")
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.dtype != torch.float32}
    if kinds:
        faults.append(f"the model has weights of type {', '.join(sorted(kinds))}: export it in float32 (model.float())")
    if faults:
        raise InputError("EF210", "the model cannot be exported: " + "; ".join(faults))


def export_onnx(
    model: nn.Module,
    *,
    input_size: tuple[int, int],
    dynamic_batch: bool = True,
    batch: int = 1,
    opset: int = DEFAULT_OPSET,
    output_names: Sequence[str] | None = None,
    name: str | None = None,
) -> ModelProto:
    """Export a model that takes images, in eval mode; the mode it was in is restored.

    The input is named ``input``; outputs are ``logits`` where there is one and ``stage0`` .. where there are several.
    Equal models give equal bytes. A model that `edgeformer.quantization.fake_quantize` gave is exported with its Q/DQ
    pairs, and has to be in eval mode already.

    Args:
        model: takes float32 [batch, channels, height, width] (the channels that ``model.config.in_channels`` says,
            else 3), gives a tensor or a list or tuple of tensors.
        input_size: height and width of the images, fixed in the graph; any that the model takes.
        dynamic_batch: leave the batch free (the dimension is named ``batch``).
        batch: the batch, where it is not left free.
        opset: version of the ONNX standard operators, at least 18.
        output_names: other names for the outputs.
        name: the model's name, for the graph's name and the metadata; default: that of its class.

    Returns:
        The model, its weights inside it.

    Raises:
        InputError: an option is out of range, the model does not take this size (its own message is kept), or it cannot
            be exported (PyTorch's message is kept); or it is fake-quantized and in training mode.
    """

    def export(plain: nn.Module) -> ModelProto:
        return _export(
            plain,
            input_size=input_size,
            dynamic_batch=dynamic_batch,
            batch=batch,
            opset=opset,
            output_names=output_names,
            name=name or type(model).__name__,
        )

    own: Callable[[nn.Module, Callable[[nn.Module], ModelProto]], ModelProto] | None
    own = next((getattr(module, _OWN_EXPORT) for module in model.modules() if hasattr(module, _OWN_EXPORT)), None)
    return export(model) if own is None else own(model, export)


def _export(
    model: nn.Module,
    *,
    input_size: tuple[int, int],
    dynamic_batch: bool,
    batch: int,
    opset: int,
    output_names: Sequence[str] | None,
    name: str,
) -> ModelProto:
    """`export_onnx` of a model without a way of its own."""
    import torch

    _check_options(model, input_size, batch, opset)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    # An example of 2: the exporter takes a dimension of 1 for a constant.
    example = torch.zeros((2 if dynamic_batch else batch, channels_of(model), *input_size), device=device)
    with evaluating(model), torch.no_grad():
        outputs = run_model(model, example)
        names = name_outputs(len(outputs), None if output_names is None else tuple(output_names))
        shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
        try:
            with _captured_chatter(), _without_slow_rule():
                program = torch.onnx.export(
                    model,
                    (example,),
                    dynamo=True,
                    opset_version=opset,
                    input_names=[INPUT_NAME],
                    output_names=list(names),
                    dynamic_shapes=shapes,
                    external_data=False,
                    verbose=False,
                )
        except Exception as error:
            raise InputError(
                "EF214",
                f"PyTorch cannot export this model ({type(model).__name__} at {input_size[0]}x{input_size[1]}): "
                f"{_root_cause(error)}",
            ) from error
    assert program is not None  # so it is with dynamo=True
    proto = program.model_proto
    # Where the model fixes its batch, the exporter does the same without a word.
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    if dynamic_batch and first.dim_param != "batch":
        raise InputError(
            "EF215",
            f"PyTorch cannot export this model ({type(model).__name__}) with a free batch: its code fixes the batch to "
            f"{first.dim_value}, that of the example it was traced with. Export it with a fixed batch, or change "
            "the code",
        )
    _describe(proto, name)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise InputError("EF214", f"PyTorch's export at opset {opset} is not a valid ONNX model: {error}") from error
    return proto


def _root_cause(error: BaseException) -> str:
    """PyTorch's own message: that of the innermost error, and the outer one's where it says something else."""
    causes = [error]
    while causes[-1].__cause__ is not None and causes[-1].__cause__ not in causes:
        causes.append(causes[-1].__cause__)
    inner, outer = (f"{type(one).__name__}: {one}".strip() for one in (causes[-1], error))
    return inner if inner == outer or str(causes[-1]) in str(error) else f"{inner} ({outer})"


def _describe(proto: ModelProto, name: str) -> None:
    """Say who made the file of what, and drop the exporter's notes that differ from machine to machine."""
    import torch

    proto.producer_name = PRODUCER
    proto.producer_version = __version__
    graph = proto.graph
    graph.name = name
    del graph.metadata_props[:]
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del value.metadata_props[:]
    for node in graph.node:
        kept = [entry for entry in node.metadata_props if entry.key in _KEPT_NOTES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.ClearField("doc_string")
    del proto.metadata_props[:]
    for key, text in (("edgeformer.model", name), ("edgeformer.torch", torch.__version__)):
        proto.metadata_props.add(key=key, value=str(text))
