"""How long models take, in turns and with a verdict: `measure`, `compare`, and `edgeformer.latency.bench`.

NumPy, pydantic and the runtime library are all that is needed, so that a device can measure what it runs. What is
loaded beside (NVML, LoadGen) is optional.
"""

from __future__ import annotations

from edgeformer.latency.measuring import Measured, Subject, compare, measure
from edgeformer.latency.runners import CallRunner, DeviceRunner, HostRunner, Runner, Times
from edgeformer.latency.verdict import advise
from edgeformer.records.latency import LatencyFigures

__all__ = [
    "CallRunner",
    "DeviceRunner",
    "HostRunner",
    "LatencyFigures",
    "Measured",
    "Runner",
    "Subject",
    "Times",
    "advise",
    "compare",
    "measure",
]
