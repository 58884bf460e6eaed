from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import AttentionSite, ChannelSlice, LayerSite, attention_site, layer_site
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.quantization import distributed_observation
from edgeformer.quantization.distributed_observation import observe_on
from edgeformer.quantization.observation import Observation, observe
from edgeformer.quantization.recipe import ObserverSettings
from tests.graph.precision_graphs import transformer
from tests.quantization.conftest import ArraySamples
from tests.raising import raises


class Shuffled:
    """Does all tasks here, in any order."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self.tasks = 0

    def results(
        self, function: Callable[..., Any], shared: Any, tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        numbered = list(enumerate(tasks))
        self.tasks = len(numbered)
        self._random.shuffle(numbered)
        for number, task in numbered:
            yield number, function(shared, *task)


MODEL = transformer()
INDEX = GraphIndex(MODEL)
FOUND = [layer_site(INDEX, node) for node in MODEL.graph.node]
SITES = [site for site in FOUND if isinstance(site, LayerSite)]


def slices() -> list[ChannelSlice]:
    (place,) = (attention_site(INDEX, node) for node in MODEL.graph.node if bra.is_op(node))
    assert isinstance(place, AttentionSite)
    return list(place.parts)


def images(count: int = 21) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    # Some far larger than others, so that histograms grow at different times; some of powers of two.
    scale = 10.0 ** rng.uniform(-2, 2, size=(count, 1, 1, 1))
    given = (scale * rng.normal(size=(count, 3, 16, 16))).astype(np.float32)
    given[3] = np.where(given[3] > 0, 2.0, -0.5)
    return given


def observed(pool: Any, given: ArraySamples, kind: str = "mse", **more: Any) -> Observation:
    settings = ObserverSettings(kind=kind)  # type: ignore[arg-type]
    arguments: dict[str, Any] = {"slices": slices(), "observer": settings, "batch_size": 4, **more}
    if pool is None:
        return observe(MODEL, given, SITES, **arguments)
    return observe_on(pool, MODEL, given, SITES, **arguments)


@pytest.mark.parametrize("kind", ["min_max", "percentile", "mse"])
@pytest.mark.parametrize("seed", range(3))
def test_workers_see_what_one_process_sees_bit_for_bit(monkeypatch: pytest.MonkeyPatch, kind: str, seed: int) -> None:
    # One batch of four images a task, and one of a single image at the end.
    monkeypatch.setattr(distributed_observation, "_TASK_BYTES", 4 * 3 * 16 * 16 * 4)
    pool = Shuffled(seed)
    assert observed(pool, ArraySamples(images()), kind) == observed(None, ArraySamples(images()), kind)
    assert pool.tasks == 6


def test_small_images_go_out_together() -> None:
    pool = Shuffled()
    found = observed(pool, ArraySamples(images(), known=False))
    assert pool.tasks == 1
    assert found.images == 21


def test_a_model_with_a_fixed_batch() -> None:
    fixed = transformer()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 6
    more: dict[str, Any] = {"observer": ObserverSettings(), "batch_size": 4}
    expected = observe(fixed, ArraySamples(images()), SITES, **more)
    assert observe_on(Shuffled(), fixed, ArraySamples(images()), SITES, **more) == expected  # type: ignore[arg-type]


def test_progress_counts_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed_observation, "_TASK_BYTES", 1)
    told: list[tuple[str, int, int | None]] = []
    observed(Shuffled(), ArraySamples(images()), progress=lambda *what: told.append(what))
    assert [what[0] for what in told] == ["observing ranges"] * 6
    assert told[-1][1:] == (21, 21)
    assert [one[1] for one in told] == sorted({one[1] for one in told})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_told_with_their_images(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(distributed_observation, "_TASK_BYTES", 1)
    given = images()
    given[9, 1, 2, 3] = value
    with raises("EF508", "images 8 to 11", "'input'"):
        observed(Shuffled(), ArraySamples(given))


def test_no_images() -> None:
    with raises("EF403"):
        observed(Shuffled(), ArraySamples(np.zeros((0, 3, 16, 16), np.float32)))
