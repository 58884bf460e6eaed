"""What a call with NumPy arrays needs, kept from an earlier call with the same shapes: all but the addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plan"]


class Plan:
    """The tensors of a call. Threads may share it."""

    def __init__(self, inputs: Any, outputs: Any, names: Sequence[str], results: Mapping[str, NDArray[Any]]) -> None:
        """Take over a call that succeeded.

        Args:
            inputs: its ctypes array of `edgeformer.inference.library.Tensor`.
            outputs: the same of its outputs.
            names: of its inputs, in their order.
            results: its outputs, in their order, none of which the caller gave.
        """
        self._inputs, self._outputs = (type(inputs), bytes(inputs)), (type(outputs), bytes(outputs))
        self._names = tuple(names)
        self._results = tuple((name, array.shape, array.dtype) for name, array in results.items())

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], Any, Any]:
        """The tensors of a call with these arrays, and the arrays that it writes to.

        Args:
            feeds: dense arrays of the shapes and types of the call that was taken over.

        Returns:
            New arrays by output, the inputs' tensors, and the outputs'.
        """
        kind, content = self._inputs
        inputs = kind.from_buffer_copy(content)
        for index, name in enumerate(self._names):
            inputs[index].data = feeds[name].__array_interface__["data"][0]
        kind, content = self._outputs
        outputs = kind.from_buffer_copy(content)
        results = {}
        for index, (name, shape, dtype) in enumerate(self._results):
            results[name] = array = np.empty(shape, dtype)
            outputs[index].data = array.__array_interface__["data"][0]
        return results, inputs, outputs
