"""A model that takes normalized images, behind an input that takes their pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeformer.data import Preprocessing
from edgeformer.runtime.session import Array, Session, TensorInfo, as_input, channels_last, check_feeds

__all__ = ["NormalizingSession"]


class NormalizingSession(Session):
    """Normalizes pixels with NumPy in front of a model: what a graph that does it itself is compared with."""

    def __init__(self, session: Session, preprocessing: Preprocessing) -> None:
        """Wrap a session, which this one closes.

        Args:
            session: takes one input of images of a float type, in either layout.
            preprocessing: how they are normalized; what resizes them is left aside.
        """
        self._session = session
        self._preprocessing = preprocessing
        ((self._name, self._info),) = session.inputs.items()
        shape = self._info.shape
        batch, *size = (shape[0], shape[1], shape[2]) if channels_last(shape) else (shape[0], shape[2], shape[3])
        self._inputs = {self._name: TensorInfo(np.dtype(np.uint8), (batch, *size, 3))}

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """The one input under its name: bytes ``[batch, height, width, 3]``."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """The outputs of the model."""
        return self._session.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; raises InputError for feeds that do not fit ``inputs``, or after ``close``."""
        check_feeds(self._inputs, feeds)
        return self._session.run({self._name: self.normalized(feeds[self._name])})

    def normalized(self, pixels: Array) -> Array:
        """What the model takes for some pixels: bytes ``[batch, height, width, 3]``, or float32 in either layout."""
        ((_, info),) = self._inputs.items()
        return as_input(self._info, self._preprocessing.normalize(as_input(info, pixels)))

    def close(self) -> None:
        """Close the model's session."""
        self._session.close()
