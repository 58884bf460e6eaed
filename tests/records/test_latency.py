"""Records of latency."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgeformer.records.latency import LatencyFigures, Percentile, TimeDistribution, WarmUp


def distribution(**changes: object) -> TimeDistribution:
    one = Percentile(ms=1.0, needs=1)
    fields: dict[str, Any] = {
        "samples": 1,
        "p50": one,
        "p90": one,
        "p99": one,
        "max": one,
        "mean_ms": 1.0,
        "cv": 0.0,
        "quantiles_ms": (1.0,),
        "block_medians_ms": (1.0,),
    }
    return TimeDistribution(**{**fields, **changes})


def test_the_times_of_each_kind() -> None:
    warm = WarmUp(runs=1, seconds=1.0, drift=float("inf"), settled=False)
    found = LatencyFigures(
        name="a",
        backend="tensorrt",
        backend_version="10",
        device="GPU",
        batch=1,
        end_to_end=distribution(),
        gpu=distribution(samples=2),
        images_per_second=1.0,
        warm_up=warm,
    )
    assert found.times("end_to_end") is found.end_to_end
    assert found.times("gpu") is found.gpu
    assert LatencyFigures.model_validate_json(found.model_dump_json()) == found


def test_what_a_manifest_has_room_for() -> None:
    distribution(quantiles_ms=(1.0,) * 201, block_medians_ms=(1.0,) * 256)
    for name, size in (("quantiles_ms", 202), ("block_medians_ms", 257)):
        with pytest.raises(ValidationError, match=name):
            distribution(**{name: (1.0,) * size})
