"""The one interface behind which a model runs, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgeformer.errors import InputError

__all__ = [
    "Array",
    "Session",
    "TensorInfo",
    "as_input",
    "channels_last",
    "check_feeds",
    "closed_error",
    "run_in_chunks",
    "static_batch",
]

Array = npt.NDArray[Any]
_S = TypeVar("_S", bound="Session")


class TensorInfo(NamedTuple):
    """Type and shape of a model's input or output.

    Attributes:
        dtype: NumPy's type.
        shape: an int per fixed dimension, a name per free one (``"batch"``; ``"?"`` where it has no name).
    """

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name} [{', '.join(str(size) for size in self.shape)}]"


@runtime_checkable
class Session(Protocol):
    """A model that is ready to run, until it is closed; a ``with`` statement closes it."""

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        """The inputs by name, in the model's order."""

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        """The outputs by name, in the model's order."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; returns every output by name.

        Raises:
            InputError: feeds that do not fit ``inputs``, or a session that was closed.
        """

    def close(self) -> None:
        """Give back the memory that the model takes; closing again does nothing. ``inputs`` and ``outputs`` stay."""

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def closed_error(name: str) -> InputError:
    """What a closed session answers to ``run``; ``name`` says which model it held."""
    return InputError(
        "EF803", f"{name} cannot run: its session was closed. Open another one, or close it after the last run"
    )


def _misfit(info: TensorInfo, array: Array) -> bool:
    if array.dtype != info.dtype or array.ndim != len(info.shape):
        return True
    return any(isinstance(want, int) and want != have for want, have in zip(info.shape, array.shape, strict=True))


def check_feeds(inputs: Mapping[str, TensorInfo], feeds: Mapping[str, Array]) -> None:
    """Compare feeds with what a model takes, so that the message is the same whatever runs the model.

    Raises:
        InputError: lists every input that is missing, unknown, or of another type or shape, with expected and got.
    """
    faults = [f"input {name!r} is missing: expected {info}" for name, info in inputs.items() if name not in feeds]
    for name, array in feeds.items():
        if name not in inputs:
            faults.append(f"there is no input {name!r}; the model takes {', '.join(map(repr, inputs)) or 'none'}")
        elif _misfit(inputs[name], array):
            got = TensorInfo(array.dtype, array.shape)
            faults.append(f"input {name!r}: expected {inputs[name]}, got {got}")
    if faults:
        raise InputError("EF802", "the model cannot run on this data: " + "; ".join(faults))


def channels_last(shape: Sequence[int | str | None]) -> bool:
    """Whether an input of this shape takes images as ``[batch, height, width, 3]``."""
    return len(shape) == 4 and shape[3] == 3 and shape[1] != 3


def as_input(info: TensorInfo, images: Array) -> Array:
    """Images in the layout and the type of an input.

    Args:
        info: the input.
        images: float32 ``[samples, 3, height, width]``, or in the input's own layout and type.

    Raises:
        InputError: the input takes whole pixel values, and the images hold others.
    """
    if channels_last(info.shape) and images.ndim == 4 and images.shape[1] == 3:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    if images.dtype == info.dtype or images.dtype != np.float32 or info.dtype.kind not in "fiu":
        return images
    if info.dtype.kind in "iu":
        whole = np.rint(images)
        limits = np.iinfo(info.dtype)
        low, high = max(limits.min, 0), min(limits.max, 255)
        # Pixels come through a division by 255 and a multiplication: whole but for the last bits.
        if images.size and not (np.abs(images - whole).max() < 1e-2 and whole.min() >= low and whole.max() <= high):
            raise InputError(
                "EF441",
                f"the input is {info}: it takes whole pixel values from {low} to {high}, and the images hold "
                f"{float(images.min()):g} to {float(images.max()):g}. Give images that are not normalized",
            )
        images = whole
    return images.astype(info.dtype)


def static_batch(session: Session) -> int | None:
    """The first dimension that all inputs fix, or None where it is free (or there is none to fix it)."""
    sizes = {info.shape[0] for info in session.inputs.values() if info.shape and isinstance(info.shape[0], int)}
    return int(sizes.pop()) if len(sizes) == 1 else None


def run_in_chunks(session: Session, feeds: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Run any number of samples through a model that takes ``batch`` of them at a time.

    A last, smaller chunk is filled up with copies of its last sample where the model's batch is fixed; what the copies
    give is dropped. Every input and output carries the samples along its first dimension.

    Args:
        session: what runs.
        feeds: per input an array [samples, ...]; all of the same number of samples, at least 1.
        batch: samples per run, at least 1.

    Raises:
        InputError: no sample, or inputs that disagree about their number; and whatever ``session.run`` raises.
    """
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in feeds.items()}
    samples = next(iter(counts.values()), 0)
    if samples < 1 or batch < 1 or len(set(counts.values())) != 1:
        raise InputError(
            "EF802",
            f"every input needs the same number of samples, at least 1, and the batch has to be at least 1: got "
            f"{counts}, batch {batch}",
        )
    fixed = static_batch(session)
    parts: list[dict[str, Array]] = []
    for start in range(0, samples, batch):
        size = min(batch, samples - start)
        chunk = {name: array[start : start + size] for name, array in feeds.items()}
        if fixed is not None and size < fixed:
            chunk = {
                name: np.concatenate([array, np.repeat(array[-1:], fixed - size, axis=0)])
                for name, array in chunk.items()
            }
        parts.append({name: output[:size] for name, output in session.run(chunk).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
