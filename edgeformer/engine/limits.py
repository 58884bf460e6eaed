"""The limits that TensorRT is given for an engine."""

from __future__ import annotations

from edgeformer.errors import InputError

__all__ = ["check_limits"]


def check_limits(workspace_bytes: int | None, max_aux_streams: int | None) -> None:
    """Check the limits for TensorRT, before the hours of work that come ahead of the engine.

    Raises:
        InputError: a limit is out of range.
    """
    if workspace_bytes is not None and workspace_bytes <= 0:
        raise InputError(
            "EF101",
            f"workspace limit {workspace_bytes} is out of range: give at least 1 byte, or leave it out for no limit",
        )
    if max_aux_streams is not None and max_aux_streams < 0:
        raise InputError(
            "EF101",
            f"{max_aux_streams} auxiliary streams: give 0 for none, or leave it out to let TensorRT choose",
        )
