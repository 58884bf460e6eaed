"""Outputs kept from one form's run for the next one's: in memory, and in files where they are many."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from edgeformer.errors import EnvironmentFault
from edgeformer.runtime.session import Array
from edgeformer.supervision import removed_at_early_end

__all__ = ["MEMORY_LIMIT", "Recording", "Store"]

# Bytes of kept arrays that stay in memory. A classifier's are nothing; 512 x 512 logits of 150 classes are 157 MB each.
MEMORY_LIMIT = 256 * 1024**2


class Store:
    """Arrays by number. Use it as a context manager: its files go when it is left."""

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        """Start empty.

        Args:
            limit: bytes that stay in memory; what comes beyond them goes to a temporary folder (that of ``TMPDIR``).
        """
        self._limit = limit
        self._used = 0
        self._count = 0
        self._held: dict[int, Array | Path] = {}
        self._folder: Path | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def files(self) -> int:
        """How many of the arrays lie in files."""
        return sum(isinstance(held, Path) for held in self._held.values())

    def put(self, array: Array) -> int:
        """Keep an array; gives its number.

        Raises:
            EnvironmentFault: the temporary folder is full, or cannot be written.
        """
        number, self._count = self._count, self._count + 1
        if self._used + array.nbytes <= self._limit:
            self._used += array.nbytes
            # A copy: what a session gave may be a part of something larger, or be written again.
            self._held[number] = np.array(array)
            return number
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="edgeformer-"))
                removed_at_early_end(self._folder)
            path = self._folder / f"{number}.npy"
            np.save(path, array, allow_pickle=False)
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise EnvironmentFault(
                "EF602",
                f"{where}: {array.nbytes} bytes of outputs cannot be kept there between two runs "
                f"({error.strerror or error}): set TMPDIR to a folder with room",
            ) from error
        self._held[number] = path
        return number

    def get(self, number: int) -> Array:
        """An array that was kept, mapped from its file where it lies in one."""
        held = self._held[number]
        return np.load(held, mmap_mode="r", allow_pickle=False) if isinstance(held, Path) else held

    def drop(self, number: int) -> None:
        """Forget an array."""
        held = self._held.pop(number)
        if isinstance(held, Path):
            held.unlink()
        else:
            self._used -= held.nbytes


class Recording:
    """The outputs of one form, batch by batch."""

    def __init__(self, store: Store) -> None:
        """Start with no batch.

        Args:
            store: where the arrays are kept.
        """
        self._store = store
        self._batches: list[dict[str, int]] = []

    def append(self, outputs: Mapping[str, Array]) -> None:
        """Add a batch of outputs by name."""
        self._batches.append({name: self._store.put(array) for name, array in outputs.items()})

    def __getitem__(self, batch: int) -> dict[str, Array]:
        """The outputs of a batch by name."""
        return {name: self._store.get(number) for name, number in self._batches[batch].items()}

    def keep(self, names: Iterable[str]) -> None:
        """Drop all outputs but these."""
        kept = set(names)
        for batch in self._batches:
            for name in [name for name in batch if name not in kept]:
                self._store.drop(batch.pop(name))
