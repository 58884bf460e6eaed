"""Frames are read while others are worked on: a video's all, a camera's newest."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from edgeformer.inference.frames import FrameReader


class Source:
    """Frames 0, 1, 2, ... as they are asked for; each comes when the test lets it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.allowed = threading.Semaphore(0)
        self.read = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[int]:
        for index in range(self.count):
            self.allowed.acquire()
            self.read = index + 1
            yield index

    def close(self) -> None:
        self.closed.set()

    def let(self, count: int) -> None:
        for _ in range(count):
            self.allowed.release()


def wait_until(reader: FrameReader[int], dropped: int) -> None:
    with reader._changed:
        assert reader._changed.wait_for(lambda: reader.dropped == dropped, 20)


def test_every_frame_of_a_video_comes_in_order() -> None:
    source = Source(50)
    source.let(50)
    with FrameReader(source, ahead=2) as reader:
        assert reader.depth == 3
        assert list(reader) == list(range(50))
        assert reader.dropped == 0
    assert source.closed.wait(20)


def test_no_more_is_read_ahead_than_was_said() -> None:
    source = Source(50)
    source.let(50)
    with FrameReader(source, ahead=2) as reader:
        frames = iter(reader)
        for index in range(5):
            assert next(frames) == index
            # Two are held, and the reader waits with a third one.
            assert source.read <= index + 4
    assert source.closed.wait(20)
    assert source.read < 50


def test_a_cameras_newest_frame_wins() -> None:
    source = Source(10)
    with FrameReader(source, newest_only=True) as reader:
        assert reader.depth == 2
        frames = iter(reader)
        source.let(1)
        assert next(frames) == 0
        source.let(4)  # 1, 2, 3, 4 come while 0 is worked on
        wait_until(reader, 3)
        assert next(frames) == 4
        source.let(1)
        assert next(frames) == 5
        assert reader.dropped == 3
        source.let(4)  # the last one is not lost
        wait_until(reader, 6)
        assert list(frames) == [9]


def test_a_fault_of_the_source_is_raised_where_its_frames_are_used() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    with FrameReader(broken()) as reader:
        frames = iter(reader)
        assert next(frames) == 1
        with pytest.raises(ValueError, match="damaged"):
            next(frames)


def interrupt_at(frame: int, reader: FrameReader[int]) -> None:
    assert frame in iter(reader)
    raise KeyboardInterrupt


def test_the_thread_ends_with_the_block() -> None:
    source = Source(1000)
    source.let(1000)
    reader: FrameReader[int] = FrameReader(source)
    with pytest.raises(KeyboardInterrupt), reader:
        interrupt_at(3, reader)
    assert source.closed.wait(20)
    assert not reader._thread.is_alive()


def test_a_source_without_frames() -> None:
    nothing: list[int] = []
    with FrameReader(nothing) as reader:
        assert list(reader) == []
