"""Every timed run as JSON, in the form of trtexec's ``--exportTimes``, for the scripts that read that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgeformer.artifacts import write_text
from edgeformer.latency.runners import Times

__all__ = ["as_trtexec", "write_times"]


def write_times(path: Path, trace: Sequence[Times]) -> None:
    """Write the runs of one model.

    Args:
        path: the file.
        trace: in the order of time.

    Raises:
        OSError: it cannot be written.
    """
    lines = ",\n  ".join(json.dumps(one) for one in as_trtexec(trace))
    write_text(path, f"[\n  {lines}\n]\n")


def as_trtexec(trace: Sequence[Times]) -> list[dict[str, float]]:
    """The runs with trtexec's names, in milliseconds since the first one began.

    The host's clock and the GPU's events are put on one axis at the start of each run. Where no GPU ran the model, the
    run is all compute, and the copies take no time.
    """
    if not trace:
        return []
    origin = trace[0].start
    entries = []
    for one in trace:
        begin = one.start - origin
        whole = one.end - one.start
        copy_in, compute, copy_out = one.gpu or (0.0, whole, 0.0)
        computing, computed = begin + copy_in, begin + copy_in + compute
        seconds = {
            "startEnqMs": begin,
            "endEnqMs": one.enqueued - origin,
            "startH2dMs": begin,
            "endH2dMs": computing,
            "startComputeMs": computing,
            "endComputeMs": computed,
            "startD2hMs": computed,
            "endD2hMs": computed + copy_out,
            "h2dMs": copy_in,
            "computeMs": compute,
            "d2hMs": copy_out,
            "latencyMs": copy_in + compute + copy_out,
        }
        entries.append({name: round(1e3 * value, 6) for name, value in seconds.items()})
    return entries
