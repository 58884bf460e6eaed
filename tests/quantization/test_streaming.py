from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import ChannelSlice, LayerSite, layer_site
from edgeformer.quantization.observation import observe, observe_channels
from edgeformer.quantization.recipe import ObserverSettings
from edgeformer.quantization.streaming import SpreadSamples, TensorStream
from tests.graph.precision_graphs import Builder, maker, run, transformer
from tests.quantization.conftest import ArraySamples, Images
from tests.raising import raises


def test_tensors_of_each_batch() -> None:
    model = transformer()
    x = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
    stream = TensorStream(model, ["input", "norm1", "logits"])
    counts, found = zip(*stream.over(ArraySamples(x), 2, "test"), strict=True)
    assert counts == (2, 2, 1)
    expected = run(model, x, "norm1", "logits")
    for name, value in zip(("norm1", "logits"), expected, strict=True):
        np.testing.assert_allclose(np.concatenate([f[name] for f in found]), value, atol=1e-5)
    assert np.array_equal(np.concatenate([f["input"] for f in found]), x)


def test_model_of_fixed_batch_size_gets_full_batches() -> None:
    b = Builder((4, 3, 2, 2))
    b.op("Relu", "input", output="y")
    x = np.random.default_rng(0).uniform(size=(6, 3, 2, 2)).astype(np.float32)
    (first, a), (second, c) = TensorStream(b.model("y"), ["y"]).over(ArraySamples(x), 1, "test")
    assert (first, second) == (4, 2)
    assert np.array_equal(a["y"], x[:4])
    assert np.array_equal(c["y"], x[[4, 5, 4, 5]])


def test_only_the_input_is_asked_for() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    found = TensorStream(transformer(), ["input"]).run(x)
    assert list(found) == ["input"]
    assert np.array_equal(found["input"], x)


def test_a_tensor_that_the_model_does_not_have() -> None:
    with pytest.raises(InputError, match=r"'norm7'.*'logits'"):
        TensorStream(transformer(), ["norm1", "norm7"])


def test_the_model_is_not_touched() -> None:
    model = transformer()
    before = model.SerializeToString(deterministic=True)
    TensorStream(model, ["norm1"])
    assert model.SerializeToString(deterministic=True) == before


def test_progress_and_unknown_counts() -> None:
    calls: list[tuple[str, int, int | None]] = []
    x = np.zeros((5, 3, 16, 16), np.float32)
    stream = TensorStream(transformer(), ["logits"])
    list(stream.over(ArraySamples(x), 2, "step", lambda *call: calls.append(call)))
    assert calls == [("step", 2, 5), ("step", 4, 5), ("step", 5, 5)]
    calls.clear()
    list(stream.over(ArraySamples(x, known=False), 4, "step", lambda *call: calls.append(call)))
    assert calls == [("step", 4, None), ("step", 5, None)]


@pytest.mark.parametrize("shape", [(2, 3, 8, 16), (2, 1, 16, 16), (2, 3, 16)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    stream = TensorStream(transformer(), ["logits"])
    with raises("EF507", list(shape), "'input'", "16, 16"):
        list(stream.over(ArraySamples(np.zeros(shape, np.float32)), 2, "test"))


def test_no_images_are_refused() -> None:
    with raises("EF403"):
        list(
            TensorStream(transformer(), ["logits"]).over(ArraySamples(np.zeros((0, 3, 16, 16), np.float32)), 2, "test")
        )


def test_model_with_two_inputs_is_refused() -> None:
    b = Builder((2, 8))
    b.inputs.append(b.inputs[0].__class__())
    b.inputs[1].CopyFrom(b.inputs[0])
    b.inputs[1].name = "second"
    b.op("Add", "input", "second", output="y")
    with raises("EF321", 2, ["input", "second"]):
        TensorStream(b.model("y"), ["y"])


def sites(model: Any, *outputs: str) -> list[LayerSite]:
    index = GraphIndex(model)
    found = [layer_site(index, maker(model, output)) for output in outputs]
    return [site for site in found if isinstance(site, LayerSite)]


class LazySamples:
    """Makes each batch when it is asked for, and counts how many are alive."""

    count = None

    def __init__(self, batches: int) -> None:
        self.total = batches
        self.made = 0
        self.most_ahead = 0
        self.seen = 0

    def batches(self, batch_size: int) -> Iterator[Images]:
        for _ in range(self.total):
            self.made += 1
            self.most_ahead = max(self.most_ahead, self.made - self.seen)
            yield Images(np.full((batch_size, 3, 16, 16), self.made, np.float32))

    def sha256(self) -> str:
        return "lazy"


def test_data_is_consumed_one_batch_at_a_time() -> None:
    samples = LazySamples(50)

    def progress(what: str, done: int, total: int | None) -> None:
        samples.seen += 1

    model = transformer()
    settings = ObserverSettings(kind="percentile")
    result = observe(model, samples, sites(model, "stem"), observer=settings, batch_size=2, progress=progress)
    assert result.images == 100
    assert samples.most_ahead == 1


@pytest.mark.parametrize("kind", ["min_max", "percentile", "mse"])
def test_memory_of_an_observation_does_not_grow(kind: Any, make_samples: Callable[..., ArraySamples]) -> None:
    import tracemalloc

    model = transformer()
    peaks = []
    for count in (16, 160):
        samples = make_samples(count)
        tracemalloc.start()
        observe(model, samples, sites(model, "stem", "fc1_matmul"), observer=ObserverSettings(kind=kind), batch_size=8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Ten times the images; NumPy's arrays are traced. What is allowed is noise of the interpreter.
    assert peaks[1] < peaks[0] * 1.1 + 50_000


def test_observed_ranges_are_those_of_the_tensors(make_samples: Callable[..., ArraySamples]) -> None:
    model = transformer()
    samples = make_samples(11)
    result = observe(
        model,
        samples,
        sites(model, "stem", "qkv_matmul", "downsample"),
        observer=ObserverSettings(kind="min_max"),
        batch_size=4,
    )
    x = next(iter(samples.batches(11))).images
    norm1, image = run(model, x, "norm1", "image")
    assert result.images == 11
    assert result.ranges == pytest.approx(
        {"input": np.abs(x).max(), "norm1": np.abs(norm1).max(), "image": np.abs(image).max()}, rel=1e-5
    )
    channels = observe_channels(model, samples, sites(model, "stem", "qkv_matmul", "downsample"), batch_size=4)
    np.testing.assert_allclose(channels["norm1"].maximum, norm1.max(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(channels["image"].minimum, image.min(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_slices_have_ranges_of_their_own(make_samples: Callable[..., ArraySamples]) -> None:
    model = transformer()
    samples = make_samples(11)
    slices = [ChannelSlice("qkv", 0, 8), ChannelSlice("qkv", 8, 16), ChannelSlice("norm1", 2, 3)]
    settings = ObserverSettings(kind="min_max")
    result = observe(model, samples, sites(model, "qkv_matmul"), slices=slices, observer=settings, batch_size=4)
    qkv, norm1 = run(model, next(iter(samples.batches(11))).images, "qkv", "norm1")
    expected = {
        "norm1": norm1,
        "qkv[..., 0:8]": qkv[..., :8],
        "qkv[..., 8:16]": qkv[..., 8:16],
        "norm1[..., 2:3]": norm1[..., 2:3],
    }
    assert result.ranges == pytest.approx({name: np.abs(seen).max() for name, seen in expected.items()}, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    x = np.zeros((6, 3, 16, 16), np.float32)
    x[4, 1, 3, 3] = bad
    model = transformer()
    with raises("EF508", "4 to 5", "1 activations", "'input'"):
        observe(model, ArraySamples(x), sites(model, "stem"), observer=ObserverSettings(kind="min_max"), batch_size=2)


class TestSpreadSamples:
    @pytest.mark.parametrize(("count", "wanted", "batch"), [(200, 64, 8), (100, 99, 7), (65, 64, 64), (9, 2, 4)])
    def test_so_many_evenly_spread(self, count: int, wanted: int, batch: int) -> None:
        numbered = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 2, 2), np.float32)
        some = SpreadSamples(ArraySamples(numbered), wanted)
        batches = [part.images for part in some.batches(batch)]
        chosen = np.concatenate(batches)[:, 0, 0, 0]
        assert some.count == len(chosen) == wanted
        assert all(len(images) == batch for images in batches[:-1])
        assert chosen[0] == 0
        assert max(np.diff([*chosen, count])) <= -(-count // wanted)

    @pytest.mark.parametrize("known", [True, False])
    def test_all_where_there_are_no_more_or_nobody_knows(self, known: bool) -> None:
        samples = ArraySamples(np.zeros((10, 3, 2, 2), np.float32), known=known)
        some = SpreadSamples(samples, 10 if known else 4)
        assert [len(part.images) for part in some.batches(4)] == [4, 4, 2]
        assert some.count == (10 if known else None)
        assert some.sha256() == samples.sha256()
