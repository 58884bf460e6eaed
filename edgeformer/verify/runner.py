"""Any of our sessions as a Polygraphy runner."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping

from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from edgeformer.runtime import Session
from edgeformer.runtime.session import Array

__all__ = ["SessionRunner"]


class SessionRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy is untyped
    """Runs any session as it runs everywhere else, with its options and in its words."""

    def __init__(self, session: Session, name: str) -> None:
        """Wrap a session.

        Args:
            session: what runs.
            name: the runner's name in Polygraphy's results.
        """
        super().__init__(name=name)
        self._session = session

    def get_input_metadata_impl(self) -> TensorMetadata:
        """The session's inputs as Polygraphy describes them; a free dimension is None."""
        metadata = TensorMetadata()
        for name, info in self._session.inputs.items():
            shape = tuple(size if isinstance(size, int) else None for size in info.shape)
            metadata.add(name, dtype=info.dtype, shape=shape)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        """Run once and take the time."""
        start = time.perf_counter()
        outputs = self._session.run(feed_dict)
        self.inference_time = time.perf_counter() - start
        return OrderedDict(outputs)
