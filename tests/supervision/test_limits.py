"""Limits of steps: how long, what happens then, and what the message names."""

from __future__ import annotations

import math
import threading
import time

import pytest

from edgeformer.errors import EnvironmentFault
from edgeformer.supervision.limits import limited, seconds_for, stage, time_limit
from tests.raising import raises


def test_a_limit_grows_with_the_work() -> None:
    assert seconds_for("run") == 30.0
    assert seconds_for("run", 57e6 * 3 * 512 * 512) > 400.0
    assert seconds_for("load", 57e6) > 90.0
    assert seconds_for("run", math.inf) == 24 * 3600.0


def test_what_was_given_takes_the_place_of_every_limit() -> None:
    with time_limit(5.0):
        assert seconds_for("run", 1e15) == seconds_for("load") == seconds_for("engine") == 5.0
        with time_limit(7.5):
            assert seconds_for("native") == 7.5
        assert seconds_for("native") == 5.0
    assert seconds_for("run") == 30.0


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_a_limit_that_is_none_is_refused(seconds: float) -> None:
    with raises("EF101", str(seconds)), time_limit(seconds):
        pass


def test_a_step_is_told_to_stop_and_its_failure_is_the_limits() -> None:
    stopped = threading.Event()
    with raises("EF881", "stage fuse", "a run of 'x'", "0.1 s", "--timeout") as caught:  # noqa: SIM117
        with stage("fuse"), time_limit(0.1), limited("run", "a run of 'x'", stop=stopped.set):
            assert stopped.wait(10.0)
            raise ValueError("terminated")
    assert isinstance(caught.value, EnvironmentFault)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_step_that_ends_all_the_same_has_ended() -> None:
    stopped = threading.Event()
    with time_limit(0.1), limited("run", "a run", stop=stopped.set):
        assert stopped.wait(10.0)


def test_another_failure_is_passed_on() -> None:
    with pytest.raises(ValueError, match="of its own"), limited("run", "a run", stop=lambda: None):
        raise ValueError("of its own")


def test_a_step_within_its_limit_is_not_stopped_later() -> None:
    stopped = threading.Event()
    with time_limit(0.2), limited("run", "a run", stop=stopped.set):
        pass
    time.sleep(0.4)
    assert not stopped.is_set()
