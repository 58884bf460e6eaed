"""Videos and cameras, decoded by whichever library is installed; stand-ins for both where neither is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeformer.inference.picture_files import Camera, Video
from edgeformer.inference.video import frames_of, name_of
from tests.raising import raises

FRAMES = np.random.default_rng(6).integers(0, 256, (3, 4, 6, 3), np.uint8)
FILM = Video(Path("film.mp4"))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which of av and cv2 are found."""
    names: set[str] = set()
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return (name in names or None) if name in ("av", "cv2") else find(name, package)

    monkeypatch.setattr("edgeformer.inference.video.find_spec", find_spec)
    return names


def test_without_either_the_command_that_mends_it_is_named(installed: set[str]) -> None:
    with raises("EF867", "pip install 'edgeformer[video]'", "OpenCV"):
        frames_of(FILM)


class Container:
    def __init__(self, rotation: int = 0, video: bool = True, fault: Exception | None = None) -> None:
        self.streams = SimpleNamespace(video=[SimpleNamespace(thread_type="")] if video else [])
        self.rotation, self.fault, self.closed = rotation, fault, False

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def decode(self, stream: Any) -> Iterator[Any]:
        assert stream.thread_type == "AUTO"
        for pixels in FRAMES:
            yield SimpleNamespace(to_ndarray=lambda format, pixels=pixels: pixels, rotation=self.rotation)
        if self.fault is not None:
            raise self.fault


class FFmpegError(Exception):
    strerror = "Invalid data"


@pytest.fixture
def pyav(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    installed.add("av")
    module: Any = ModuleType("av")
    module.FFmpegError, module.container, module.opened = FFmpegError, Container(), []

    def open(name: str, format: str | None = None) -> Container:
        module.opened.append((name, format))
        container: Container = module.container
        return container

    module.open = open
    monkeypatch.setitem(sys.modules, "av", module)
    return module


def test_pyav_reads_videos_and_cameras(pyav: Any) -> None:
    assert np.array_equal(list(frames_of(FILM)), FRAMES)
    assert np.array_equal(list(frames_of(Camera(2))), FRAMES)
    assert pyav.opened == [("film.mp4", None), ("/dev/video2", "v4l2")]
    assert pyav.container.closed


@pytest.mark.parametrize(("rotation", "quarters"), [(90, 1), (-90, -1), (180, 2), (-180, 2)])
def test_a_video_that_lies_on_its_side_is_turned(rotation: int, quarters: int, pyav: Any) -> None:
    pyav.container = Container(rotation)
    for frame, pixels in zip(frames_of(FILM), FRAMES, strict=True):
        assert np.array_equal(frame, np.rot90(pixels, quarters))
        assert frame.flags.c_contiguous


def test_what_pyav_cannot_read(pyav: Any) -> None:
    pyav.container = Container(video=False)
    with raises("EF869", "film.mp4", "video", "no pictures"):
        next(frames_of(FILM))
    pyav.container = Container(fault=FFmpegError())
    frames = frames_of(Camera(1))
    for _ in FRAMES:
        next(frames)
    with raises("EF869", "/dev/video1", "camera", "Invalid data"):
        next(frames)


@pytest.fixture
def opencv(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    installed.add("cv2")
    module: Any = ModuleType("cv2")
    module.COLOR_BGR2RGB, module.opens, module.opened, module.released = 4, True, [], 0

    class VideoCapture:
        def __init__(self, what: int | str) -> None:
            module.opened.append(what)
            self.frames = iter(FRAMES[..., ::-1])

        def isOpened(self) -> bool:  # noqa: N802  OpenCV's name
            return bool(module.opens)

        def read(self) -> tuple[bool, Any]:
            frame = next(self.frames, None)
            return frame is not None, frame

        def release(self) -> None:
            module.released += 1

    module.VideoCapture = VideoCapture
    module.cvtColor = lambda pixels, code: pixels[..., ::-1]
    monkeypatch.setitem(sys.modules, "cv2", module)
    return module


def test_opencv_reads_videos_and_cameras(opencv: Any) -> None:
    assert np.array_equal(list(frames_of(FILM)), FRAMES)
    assert np.array_equal(list(frames_of(Camera(2))), FRAMES)
    assert opencv.opened == ["film.mp4", 2]
    assert opencv.released == 2


def test_what_opencv_cannot_read(opencv: Any) -> None:
    opencv.opens = False
    with raises("EF869", "film.mp4", "OpenCV"):
        next(frames_of(FILM))
    assert opencv.released == 1


def test_a_camera_is_its_device() -> None:
    assert (name_of(Camera(0)), name_of(FILM)) == ("/dev/video0", "film.mp4")


def test_a_video_that_was_written_just_now(tmp_path: Path) -> None:
    """With the real PyAV, where it is installed."""
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (20, 120, 220):
            pixels = np.full((48, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    frames = list(frames_of(Video(path)))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert [round(float(frame.mean()), -1) for frame in frames] == [20, 120, 220]
