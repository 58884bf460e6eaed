"""An ONNX model in ONNX Runtime, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime

from edgeformer.errors import InputError
from edgeformer.runtime.bfloat16 import has_bfloat16, with_bfloat16_rounding
from edgeformer.runtime.session import Array, TensorInfo, check_feeds

__all__ = ["OnnxSession", "Optimization"]

Optimization = Literal["none", "basic", "extended", "all"]

_LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def _info(argument: Any) -> TensorInfo:
    if argument.type not in _TYPES:
        raise InputError(
            f"{argument.name!r} is a {argument.type}: only tensors of {', '.join(sorted(_TYPES.values()))} can be run"
        )
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in argument.shape)
    return TensorInfo(np.dtype(_TYPES[argument.type]), shape)


class OnnxSession:
    """Runs an ONNX model in ONNX Runtime's CPU provider; a node with a function body runs that body.

    Q/DQ nodes are run as they are written (quantise, dequantise, compute in floating point): ONNX Runtime's own integer
    kernels saturate differently from processor to processor and would say nothing about an engine. A model with
    bfloat16 in it is run in FP32 with every value rounded as bfloat16 rounds it, since the CPU provider has no
    bfloat16 kernels.
    """

    def __init__(
        self,
        model: onnx.ModelProto | bytes | str | os.PathLike[str],
        *,
        optimization: Optimization = "all",
        threads: int | None = None,
    ) -> None:
        """Load the model.

        Args:
            model: the model, its serialised bytes, or the path of its file (external data beside it is found).
            optimization: ONNX Runtime's graph optimisation level.
            threads: threads within an operator; None leaves it to ONNX Runtime (one per core).

        Raises:
            InputError: no such file, not an ONNX model, or a model that ONNX Runtime cannot run (its reason is given).
        """
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = _LEVELS[optimization]
        options.log_severity_level = 4
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        source, self._name = _source(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"{self._name} cannot be run by ONNX Runtime: {error}") from error
        self._inputs = {argument.name: _info(argument) for argument in self._session.get_inputs()}
        self._outputs = {argument.name: _info(argument) for argument in self._session.get_outputs()}

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """The inputs by name, in the model's order."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """The outputs by name, in the model's order."""
        return self._outputs

    @property
    def inference_session(self) -> onnxruntime.InferenceSession:
        """ONNX Runtime's own session, for Polygraphy's OnnxrtRunner."""
        return self._session

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: an array per input, of the type and shape that ``inputs`` names.

        Returns:
            Every output by name.

        Raises:
            InputError: feeds that do not fit ``inputs``, or a run that failed in ONNX Runtime (its reason is given).
        """
        check_feeds(self._inputs, feeds)
        try:
            outputs = self._session.run(None, dict(feeds))
        except Exception as error:
            raise InputError(f"{self._name} failed in ONNX Runtime: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))


def _source(model: onnx.ModelProto | bytes | str | os.PathLike[str]) -> tuple[bytes | str, str]:
    """What InferenceSession takes, and how to call it in a message."""
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        try:
            proto = onnx.load_model(path, load_external_data=False)
        except Exception as error:
            raise InputError(f"{path}: not an ONNX model ({error})") from error
        if not has_bfloat16(proto):
            return str(path), str(path)
        try:
            return with_bfloat16_rounding(onnx.load_model(path)).SerializeToString(), str(path)
        except OSError as error:
            raise InputError(f"{path}: its external data cannot be read ({error})") from error
    if isinstance(model, bytes):
        try:
            proto = onnx.load_model_from_string(model)
        except Exception as error:
            raise InputError(f"these {len(model)} bytes are not an ONNX model ({error})") from error
    else:
        proto = model
    name = f"the model {proto.graph.name!r}"
    if has_bfloat16(proto):
        return with_bfloat16_rounding(proto).SerializeToString(), name
    return model if isinstance(model, bytes) else proto.SerializeToString(), name
