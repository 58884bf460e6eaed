from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeformer.graph.qdq import representable_scale
from edgeformer.quantization.observers import ChannelObserver, Histogram, RangeObserver
from edgeformer.quantization.recipe import ObserverSettings


def filled(*batches: np.ndarray, bins: int = 8192) -> Histogram:
    histogram = Histogram(bins)
    for batch in batches:
        histogram.update(np.abs(batch))
    return histogram


def test_histogram_counts_exactly_while_its_range_grows() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.uniform(0, limit, 1000) for limit in (0.1, 3.0, 0.5, 40.0)]
    histogram = filled(*batches, bins=64)
    assert histogram.limit == 64.0
    expected, _ = np.histogram(np.concatenate(batches), bins=64, range=(0, 64))
    assert np.array_equal(histogram.counts, expected)


def test_a_value_at_a_power_of_two_counts_in_one_bin_whenever_it_comes() -> None:
    small, large = np.array([1.0, 0.25]), np.array([1.5])
    first, second, together = filled(small, large), filled(large, small), filled(np.concatenate([small, large]))
    assert first.limit == 2.0
    assert np.flatnonzero(first.counts).tolist() == [8192 // 8, 8192 // 2, 8192 * 3 // 4]
    assert np.array_equal(first.counts, second.counts)
    assert np.array_equal(first.counts, together.counts)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_merged_observers_have_seen_what_one_has_seen(order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    settings = ObserverSettings(kind="mse")
    batches = [
        rng.normal(scale=0.1, size=500).astype(np.float32),
        np.zeros(40, np.float32),
        np.array([1.0, -2.0, 4.0, 0.5], np.float32),
        rng.normal(scale=30.0, size=70).astype(np.float32),
    ]
    one, merged = RangeObserver(settings), RangeObserver(settings)
    for batch in batches:
        one.update(batch)
    for number in order:
        part = RangeObserver(settings)
        part.update(batches[number])
        merged.merge(part.state())
    assert np.array_equal(merged.state()[0], one.state()[0])
    assert merged.state()[1:] == one.state()[1:]
    assert merged.amax() == one.amax()
    assert merged.shown(merged.amax()) == one.shown(one.amax())


def test_merging_leaves_the_other_as_it_is() -> None:
    small, large = filled(np.array([0.3])), filled(np.array([5.0]))
    large.merge(small)
    assert small.limit == 0.5
    assert (large.limit, large.largest, int(large.counts.sum())) == (8.0, 5.0, 2)
    # Beyond it, nothing is counted twice where both go on.
    small.update(np.array([0.1]))
    assert int(large.counts.sum()) == 2


@pytest.mark.parametrize("percent", [60.0, 90.0, 99.0, 99.9, 99.99, 100.0])
def test_percentile_agrees_with_numpy_within_a_bin(percent: float) -> None:
    values = np.random.default_rng(1).normal(size=100_001)
    histogram = filled(*np.array_split(values, 7))
    exact = np.percentile(np.abs(values), percent)
    # One bin, plus the gap between neighbouring order statistics, which NumPy interpolates over.
    gap = np.diff(np.sort(np.abs(values)))[int(percent / 100 * 100_000) - 2 :][:3].max()
    assert abs(histogram.percentile(percent) - exact) <= histogram.limit / 8192 + gap


def test_percentile_of_known_counts() -> None:
    # 99 ones and a nine: bins of width 1/1024 up to 16, the last of the 99 in the bin that starts at 1.
    histogram = filled(np.ones(99), np.array([9.0]), bins=16384)
    assert histogram.percentile(99) == pytest.approx(1.0, abs=1 / 1024)
    assert histogram.percentile(100) == 9.0


def test_histogram_of_zeros() -> None:
    histogram = filled(np.zeros(10))
    assert (histogram.percentile(99), histogram.mse_range(), histogram.counts.sum()) == (0.0, 0.0, 10)


def test_mse_range_is_the_best_scale_there_is() -> None:
    values = np.random.default_rng(2).standard_t(4, size=50_000)
    found = filled(values).mse_range()
    largest = np.abs(values).max()

    def error(amax: float) -> float:
        step = float(representable_scale(amax / 127))
        return float(((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2).mean())

    best = min(error(share * largest) for share in np.linspace(0.5, 1, 300))
    assert error(found) <= 1.01 * best
    assert error(found) < 0.85 * error(largest)
    assert found < 0.9 * largest


def test_mse_range_keeps_a_background_off_the_border_between_steps() -> None:
    rng = np.random.default_rng(3)
    background = 1.8044
    values = np.concatenate([np.full(90_000, background), rng.uniform(0, 2.64, 10_000)])
    step = float(representable_scale(filled(values).mse_range() / 127))
    assert abs(background / step - np.rint(background / step)) < 0.1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ObserverSettings(kind="min_max"), 7.0),
        (ObserverSettings(kind="percentile", percentile=100), 7.0),
        (ObserverSettings(kind="percentile", percentile=75), 3.0),
    ],
)
def test_range_observer_takes_magnitudes_over_all_batches(settings: ObserverSettings, expected: float) -> None:
    observer = RangeObserver(settings)
    for batch in ([[1.0, -2.0]], [[-7.0, 3.0]], [[0.5, 2.0]], [[1.0, 0.0]]):
        observer.update(np.array(batch, np.float32))
    # 6 of 8 magnitudes are at most 2.0; the 75th percentile lies at the upper end of that value's bin.
    wanted = 2.0 if settings.percentile == 75 else expected
    assert observer.amax() == pytest.approx(wanted, abs=8 / 8192)


@pytest.mark.parametrize("axis", [1, -1])
def test_channel_observer(axis: int) -> None:
    values = np.random.default_rng(4).normal(size=(3, 5, 4, 6)).astype(np.float32)
    observer = ChannelObserver(axis)
    for batch in np.array_split(values, 3):
        observer.update(batch)
    others = tuple(i for i in range(4) if i != axis % 4)
    assert observer.minimum is not None
    assert observer.maximum is not None
    assert np.array_equal(observer.minimum, values.min(axis=others))
    assert np.array_equal(observer.maximum, values.max(axis=others))


def test_the_histogram_for_people_has_all_values() -> None:
    # Bins of 8 / 32 = 0.25 up to 7.9.
    values = np.array([0.1, 0.2, 0.3, -0.3, 4.0, -7.9], np.float32)
    histogram = filled(values, bins=8192)
    shown = histogram.shown(amax=4.5)
    assert shown.bin_width == 0.25
    assert shown.largest == pytest.approx(7.9)
    assert len(shown.counts) == 32
    assert {place: count for place, count in enumerate(shown.counts) if count} == {0: 2, 1: 2, 16: 1, 31: 1}
    assert shown.clipped == pytest.approx(1 / 6)
    assert histogram.shown(amax=7.9).clipped == 0.0
    assert histogram.shown(amax=1e9).clipped == 0.0


def test_bins_behind_the_largest_value_are_left_out() -> None:
    assert len(filled(np.array([4.1])).shown(4.1).counts) == 17
    assert filled(np.zeros(3)).shown(0.0).counts == (3,)
    assert filled().shown(0.0).counts == ()


@pytest.mark.parametrize(("kind", "kept"), [("min_max", False), ("percentile", True), ("mse", True)])
def test_observers_show_what_they_keep(kind: str, kept: bool) -> None:
    observer = RangeObserver(ObserverSettings(kind=kind))  # type: ignore[arg-type]
    observer.update(np.array([1.0, -3.0], np.float32))
    assert (observer.shown(3.0) is not None) == kept
