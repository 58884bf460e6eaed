"""Frames of videos and cameras, decoded by PyAV or OpenCV, whichever is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.inference.picture_files import Camera, Video

__all__ = ["Frame", "frames_of", "name_of"]

Frame = NDArray[np.uint8]
"""``[height, width, 3]`` uint8 RGB, upright."""


def frames_of(source: Video | Camera) -> Iterator[Frame]:
    """Decode a video, or read a camera without end.

    Args:
        source: which one.

    Yields:
        Its frames, in order.

    Raises:
        InputError: it cannot be opened or read, or has no pictures.
        EnvironmentFault: neither PyAV nor OpenCV is installed.
    """
    if find_spec("av") is not None:
        return _with_pyav(source)
    if find_spec("cv2") is not None:
        return _with_opencv(source)
    raise EnvironmentFault(
        "EF867",
        "videos and cameras need a library that decodes them: "
        "pip install 'edgeformer[video]', which is PyAV, or OpenCV",
    )


def name_of(source: Video | Camera) -> str:
    """What messages call it: the file or the device."""
    return f"/dev/video{source.number}" if isinstance(source, Camera) else str(source.path)


def _unreadable(source: Video | Camera, reason: object) -> InputError:
    kind = "camera" if isinstance(source, Camera) else "video"
    return InputError("EF869", f"{name_of(source)} cannot be read as a {kind}: {reason}")


def _with_pyav(source: Video | Camera) -> Iterator[Frame]:
    import av

    try:
        with av.open(name_of(source), format="v4l2" if isinstance(source, Camera) else None) as container:
            if not container.streams.video:
                raise _unreadable(source, "it has no pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                pixels = frame.to_ndarray(format="rgb24")
                # A phone's videos lie on their side and say so, as its photos do.
                quarters = round(getattr(frame, "rotation", 0) / 90)
                yield np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
    except av.FFmpegError as error:
        raise _unreadable(source, error.strerror or error) from error


def _with_opencv(source: Video | Camera) -> Iterator[Frame]:
    import cv2

    capture: Any = cv2.VideoCapture(source.number if isinstance(source, Camera) else str(source.path))
    try:
        if not capture.isOpened():
            raise _unreadable(source, "OpenCV cannot open it")
        while True:
            read, pixels = capture.read()
            if not read:
                return
            yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
