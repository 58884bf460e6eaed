"""The machine that a bundle was finished on."""

from __future__ import annotations

from edgeformer.records.base import Record

__all__ = ["DeviceRecord"]


class DeviceRecord(Record):
    """What was found on the machine that a bundle was finished on, as far as it told.

    Attributes:
        gpu: name of its first GPU; ``None`` without one.
        sm: that GPU's compute capability times ten.
        tensorrt: version that Python imported.
        cuda: newest CUDA that the driver supports.
        l4t: release of Jetson Linux; ``None`` on what is no Jetson.
        jetpack: the JetPack it belongs to, where that is known.
        power_mode: name of the Jetson's power mode.
        memory_bytes: memory of the host, which on a Jetson is the GPU's, too.
        free_bytes: of it, what was free when the engine's build began.
        swap_bytes: swap space.
    """

    gpu: str | None
    sm: int | None
    tensorrt: str
    cuda: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    memory_bytes: int | None
    free_bytes: int | None
    swap_bytes: int | None
