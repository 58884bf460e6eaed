from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgeformer.quantization.sensitivity import Sensitivity, measure, snr_db, spread_batches
from tests.quantization.conftest import ArraySamples


class Additive:
    """Layers whose noise powers add up, counting how often they are asked."""

    def __init__(self, **noise: float) -> None:
        self.powers = noise
        self.asked: list[tuple[str, ...]] = []

    def noise(self, layers: Sequence[str], batches: int | None = None) -> float:
        self.asked.append(tuple(layers))
        return sum(self.powers[layer] for layer in layers)


NOISE = {"a": 1e-5, "b": 1e-3, "c": 1e-4, "d": 1e-2, "e": 1e-6, "f": 1e-6, "g": 1e-6, "h": 1e-6}


def measured(target: float, share: float) -> Sensitivity:
    model = Additive(**NOISE)
    return measure(model, list(NOISE), min_snr_db=target, max_float_share=share)  # type: ignore[arg-type]  # a stand-in


@pytest.mark.parametrize(("target", "returned"), [(19.0, ""), (29.0, "d"), (39.0, "db"), (48.0, "dbc"), (53.0, "dbca")])
def test_returns_the_fewest_layers_that_meet_the_target(target: float, returned: str) -> None:
    found = measured(target, 1.0)
    assert [layer.output for layer in found.returned] == list(returned)
    assert found.snr_db >= target
    assert found.snr_all_int8_db == pytest.approx(snr_db(sum(NOISE.values())))
    for layer in found.returned:
        assert layer.snr_alone_db == pytest.approx(snr_db(NOISE[layer.output]), abs=0.01)


def test_share_that_is_too_small_is_used_up() -> None:
    found = measured(60.0, 0.25)
    assert [layer.output for layer in found.returned] == ["d", "b"]
    assert found.snr_db == pytest.approx(snr_db(sum(NOISE.values()) - NOISE["d"] - NOISE["b"]))


def test_layers_that_do_not_help_stay() -> None:
    # Errors that cancel: without the one layer the other is worse off.
    class Cancelling(Additive):
        def noise(self, layers: Sequence[str], batches: int | None = None) -> float:
            return 1e-3 if len(layers) == 2 else 1e-2

    model = Cancelling(a=1, b=1)
    found = measure(model, ["a", "b"], min_snr_db=40, max_float_share=0.5)  # type: ignore[arg-type]  # a stand-in
    assert found.returned == ()
    assert found.snr_db == found.snr_all_int8_db == pytest.approx(30.0)


def test_deep_model_with_one_harmful_part_is_ranked_in_few_runs() -> None:
    powers = {f"layer{i}": 1e-7 for i in range(100)}
    powers["layer42"] = powers["layer47"] = 1e-3
    model = Additive(**powers)
    found = measure(model, list(powers), min_snr_db=45, max_float_share=0.25)  # type: ignore[arg-type]  # a stand-in
    assert [layer.output for layer in found.returned] == ["layer42", "layer47"]
    # All of them once, ten groups, the ten layers of the worst one, those returned, and a bisection over ten.
    assert len(model.asked) <= 1 + 10 + 10 + 1 + 4


def test_no_noise_is_a_finite_number() -> None:
    assert snr_db(0.0) == 200.0
    assert snr_db(1e-3) == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("count", "layers", "sizes"),
    [(1000, 25, [16] * 4), (1000, 40, [10] * 4), (1000, 500, [4] * 4), (10, 25, [3, 3, 2, 2]), (3, 25, [1, 1, 1])],
)
def test_images_are_spread_over_the_samples(count: int, layers: int, sizes: list[int]) -> None:
    numbered = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 2, 2), np.float32)
    batches = spread_batches(ArraySamples(numbered), 7, layers)
    assert [len(batch) for batch in batches] == sizes
    chosen = sorted(float(image[0, 0, 0]) for batch in batches for image in batch)
    assert len(set(chosen)) == sum(sizes)
    # Evenly: from the first to near the last, no gap twice the mean.
    assert chosen[0] == 0
    assert max(np.diff([*chosen, count])) <= 2 * count / sum(sizes)


def test_images_of_a_source_of_unknown_length() -> None:
    samples = ArraySamples(np.zeros((100, 3, 2, 2), np.float32), known=False)
    assert [len(batch) for batch in spread_batches(samples, 8, 125)] == [4] * 4
