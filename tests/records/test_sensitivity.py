from __future__ import annotations

import pytest

from edgeformer.records.sensitivity import LayerSensitivity, SensitivityReport


def layer(name: str, clean: float, degraded: float | None, multiply_adds: int | None) -> LayerSensitivity:
    return LayerSensitivity(
        node=name, op="Conv", output=name, snr_clean_db=clean, snr_degraded_db=degraded, multiply_adds=multiply_adds
    )


def report(*layers: LayerSensitivity, multiply_adds: int | None = 4_000_000) -> SensitivityReport:
    return SensitivityReport(
        edgeformer="0",
        model_sha256="a",
        data_sha256="b",
        recipe="r",
        images=1,
        multiply_adds=multiply_adds,
        layers=layers,
    )


@pytest.mark.parametrize(("clean", "degraded", "worse"), [(40.0, 30.0, 30.0), (30.0, 40.0, 30.0), (35.0, None, 35.0)])
def test_the_worse_of_clean_and_degraded_counts(clean: float, degraded: float | None, worse: float) -> None:
    assert layer("a", clean, degraded, 1).snr_db == worse


def test_noise_for_a_million_multiply_adds() -> None:
    # A thousandth of the outputs' power, for ten millions: a ten-thousandth for each.
    assert layer("a", 30.0, None, 10_000_000).noise_per_million_db == pytest.approx(-40.0)
    assert layer("a", 30.0, None, 100_000).noise_per_million_db == pytest.approx(-20.0)
    assert layer("a", 30.0, None, None).noise_per_million_db is None
    assert layer("a", 30.0, None, 0).noise_per_million_db is None


def test_rows_say_all_of_each_layer_in_order() -> None:
    first, second = report(layer("a", 30.0, 20.0, 1_000_000), layer("b", 40.0, None, None)).rows()
    assert first == {
        "rank": 1,
        "node": "a",
        "op": "Conv",
        "output": "a",
        "snr_db": 20.0,
        "snr_clean_db": 30.0,
        "snr_degraded_db": 20.0,
        "multiply_adds": 1_000_000,
        "multiply_adds_share": 0.25,
        "noise_per_million_multiply_adds_db": -20.0,
    }
    unknown = ("snr_degraded_db", "multiply_adds", "multiply_adds_share", "noise_per_million_multiply_adds_db")
    assert (second["rank"], [second[name] for name in unknown]) == (2, [None] * 4)


def test_shares_of_a_network_that_is_not_known() -> None:
    one = layer("a", 30.0, None, 5)
    assert report(one, multiply_adds=None).share(one) is None
