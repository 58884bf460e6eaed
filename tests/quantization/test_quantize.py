from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.types import to_float_type
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.quantization import ObserverSettings, Override, Recipe, calibrate, load_recipe, quantize
from edgeformer.quantization.observation import observe
from edgeformer.quantization.policy import decide
from edgeformer.quantization.quantize import _attention, _prepare, _sites
from edgeformer.quantization.sensitivity import SwitchedModel
from edgeformer.quantization.sensitivity import snr_db as from_noise
from tests.graph.precision_graphs import Builder, check, maker, run, snr_db, transformer
from tests.present import present
from tests.quantization.conftest import ArraySamples
from tests.raising import raises

MakeSamples = Callable[..., ArraySamples]
PLAIN = Recipe(name="plain", observer=ObserverSettings(kind="min_max"), balance=False, correct_bias=False)
LAYERS = ("stem", "qkv_matmul", "wo_matmul", "fc1_matmul", "fc2_matmul", "downsample")


def images(samples: ArraySamples) -> np.ndarray:
    return next(iter(samples.batches(10_000))).images


def quantizers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]


def upstream(model: onnx.ModelProto, tensor: str, stop: set[str]) -> set[str]:
    """Op types before a tensor, up to nodes of the types in ``stop``."""
    made = {name: node for node in model.graph.node for name in node.output}
    found, frontier = set(), [tensor]
    while frontier:
        node = made.get(frontier.pop())
        if node is not None and node.op_type not in stop:
            found.add(node.op_type)
            frontier.extend(node.input)
    return found


def test_default_recipe_keeps_the_network_accurate(make_samples: MakeSamples) -> None:
    model = transformer()
    result = quantize(model, make_samples(48), recipe=load_recipe().model_copy(update={"min_snr_db": None}))
    check(result.model)
    held_out = images(make_samples(32, seed=1))
    reference = run(model, held_out)[0]
    improved = snr_db(reference, run(result.model, held_out)[0])
    plain = snr_db(reference, run(quantize(model, make_samples(48), recipe=PLAIN).model, held_out)[0])
    assert improved > 30
    assert improved > plain
    assert len(quantizers(result.model)) == len(LAYERS)


def rounds_float16() -> bool:
    """Whether ONNX Runtime's QuantizeLinear rounds in FP16. Older versions cut off (its pull request 32452)."""
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2])
    y = helper.make_tensor_value_info("y", TensorProto.INT8, [2])
    constants = [numpy_helper.from_array(np.float16(1), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    graph = helper.make_graph([node], "rounds", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return np.array_equal(run(model, np.array([0.75, -0.75], np.float16))[0], [1, -1])


def test_a_float16_graph_is_as_accurate_as_the_quantized_one(make_samples: MakeSamples) -> None:
    if not rounds_float16():
        pytest.skip("this ONNX Runtime cuts off where QuantizeLinear has to round in FP16")
    model = transformer()
    quantized = quantize(model, make_samples(48), recipe=load_recipe().model_copy(update={"min_snr_db": None})).model
    typed = to_float_type(quantized, "float16")
    check(typed)
    held_out = images(make_samples(32, seed=1))
    reference = run(model, held_out)[0]
    expected = snr_db(reference, run(quantized, held_out)[0])
    assert snr_db(reference, run(typed, held_out)[0]) == pytest.approx(expected, abs=1.5)


def test_structure(make_samples: MakeSamples) -> None:
    model = transformer()
    result = quantize(model, make_samples(), recipe=PLAIN)
    made = {name: node for node in result.model.graph.node for name in node.output}
    for layer in LAYERS:
        node = made[layer]
        assert made[node.input[0]].op_type == made[node.input[1]].op_type == "DequantizeLinear"
        assert node.op_type == "MatMul" or made.get(node.input[2]) is None
    for name in ("pos_embed", "logits"):
        assert made[name].input[0] not in {n for node in quantizers(result.model) for n in node.output}
        assert made.get(made[name].input[0], node).op_type != "DequantizeLinear"
    # Nothing quantizes an output of a layer on its way to a residual add, and the attention op reads float.
    op = next(node for node in result.model.graph.node if bra.is_op(node))
    assert made[op.input[0]].op_type == "Add"
    assert {made[name].op_type for name in made["after_attention"].input} == {"Transpose", "Add"}
    assert [item.output for item in result.decisions if item.quantized] == list(LAYERS)
    assert not result.reused


def unfused_routing() -> onnx.ModelProto:
    b = Builder(("batch", 3, 8, 8))
    x = b.op("Transpose", b.conv("input", 3, 8, 1, "stem"), perm=[0, 2, 3, 1])
    x = b.op("Reshape", x, b.const(np.array([-1, 4, 16, 8])), output="regions")
    qkv = b.linear(x, 8, 24, "qkv")
    b.op("Split", qkv, axis=3, num_outputs=3, output="q", outputs=3)
    q, k = (b.op("ReduceMean", half, b.const(np.array([2])), keepdims=0) for half in ("q", "q_1"))
    logits = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]), output="routing")
    b.op("TopK", logits, b.const(np.array([2])), output="topk", outputs=2)
    y = b.op("Add", b.linear("q_2", 8, 8, "wo"), x, output="y")
    return b.model(y, "topk_1")


def test_no_quantizer_between_routing_and_topk(make_samples: MakeSamples) -> None:
    result = quantize(unfused_routing(), make_samples(8, 8), recipe=PLAIN)
    assert [item.output for item in result.decisions if item.quantized] == ["stem", "qkv_matmul", "wo_matmul"]
    found = upstream(result.model, maker(result.model, "topk").input[0], stop={"Split"})
    assert found == {"MatMul", "Transpose", "ReduceMean"}


def test_residual_branch_stays_float(make_samples: MakeSamples) -> None:
    result = quantize(unfused_routing(), make_samples(8, 8), recipe=PLAIN)
    assert list(maker(result.model, "y").input)[1] == "regions"


def test_batch_norm_is_folded_before_weights_are_quantized(make_samples: MakeSamples) -> None:
    b = Builder(("batch", 3, 8, 8))
    x = b.conv("input", 3, 8, 3, "conv", pads=[1, 1, 1, 1])
    constants = [b.const(b.rng.uniform(0.5, 2, 8)) for _ in range(4)]
    b.op("Relu", b.op("BatchNormalization", x, *constants, output="norm"), output="y")
    model = b.model("y")
    samples = make_samples(8, 8)
    result = quantize(model, samples, recipe=PLAIN)
    assert {node.op_type for node in result.model.graph.node} == {"QuantizeLinear", "DequantizeLinear", "Conv", "Relu"}
    assert snr_db(run(model, images(samples))[0], run(result.model, images(samples))[0]) > 30


def test_switches_are_exactly_the_layers(make_samples: MakeSamples) -> None:
    samples = make_samples(12)
    x = images(samples)
    recipe = PLAIN.model_copy(update={"correct_bias": True})
    calibration = calibrate(transformer(), samples, recipe=recipe)
    model = _prepare(transformer())
    sites = _sites(GraphIndex(model), decide(model))
    switched = SwitchedModel(model, sites, calibration.ranges, calibration.bias_errors, [x])
    reference = run(transformer(), x)[0]
    np.testing.assert_allclose(switched.run(x, [])["logits"], reference, atol=1e-5)
    everything = quantize(transformer(), samples, recipe=recipe).model
    np.testing.assert_allclose(switched.run(x, LAYERS)["logits"], run(everything, x)[0], atol=1e-4)
    expected = snr_db(reference, run(everything, x)[0])
    assert from_noise(switched.noise(LAYERS)) == pytest.approx(expected, abs=0.05)
    assert from_noise(switched.noise([])) == 200.0


class CountingSession:
    """A part of a switched model, and how often it ran."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.runs = 0

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.runs += 1
        found: dict[str, np.ndarray] = self.session.run(feeds)
        return found


@pytest.mark.parametrize("attention", [False, True])
def test_a_layer_alone_is_measured_from_its_own_part_on(make_samples: MakeSamples, attention: bool) -> None:
    model = transformer()
    index = GraphIndex(model)
    decisions = decide(model, quantize_attention=attention)
    sites, places = _sites(index, decisions), _attention(index, decisions)
    samples = make_samples(12)
    slices = [part for place in places for part in place.parts]
    ranges = observe(model, samples, sites, slices=slices, observer=PLAIN.observer, batch_size=4).ranges
    first, second = images(samples)[:8], images(samples)[8:]
    switched = SwitchedModel(model, sites, ranges, {}, [first, second], places)
    parts = [CountingSession(session) for _, session in switched._parts]
    switched._parts = [(inputs, part) for (inputs, _), part in zip(switched._parts, parts, strict=True)]  # type: ignore[misc]
    layers = [*LAYERS[:2], *["bra_7"] * attention, *LAYERS[2:]]
    assert len(parts) == len(layers)
    reference = switched.run(first, [])["logits"].astype(np.float64)
    for number, layer in enumerate(layers):
        found = switched.run(first, [layer])["logits"]
        for part in parts:
            part.runs = 0
        expected = ((reference - found) ** 2).sum() / (reference**2).sum()
        assert switched.noise([layer], batches=1) == pytest.approx(expected, rel=1e-12)
        assert expected > 0
        assert [part.runs for part in parts] == [int(i >= number) for i in range(len(parts))]
    # Of the batches behind the first nothing is kept.
    for part in parts:
        part.runs = 0
    switched.noise(["fc2_matmul"])
    assert [part.runs for part in parts] == [1] * (len(layers) - 2) + [2, 2]


def test_a_model_of_fixed_batch_size_is_measured_on_full_batches(make_samples: MakeSamples) -> None:
    b = Builder((4, 3, 8, 8))
    b.op("Relu", b.conv("input", 3, 8, 1, "stem"), output="y")
    model = b.model("y")
    sites = _sites(GraphIndex(model), decide(model, (Override(name="stem", quantize=True, because="test"),)))
    samples = make_samples(6, 8)
    ranges = observe(model, samples, sites, observer=PLAIN.observer, batch_size=4).ranges
    x = images(samples)
    switched = SwitchedModel(model, sites, ranges, {}, [x[:3]])
    np.testing.assert_allclose(switched.run(x[:3], [])["y"], run(model, x[[0, 1, 2, 0]])[0], atol=1e-6)
    assert 30 < from_noise(switched.noise(["stem"])) < 80


class TestSensitivity:
    def recipe(self, target: float, share: float = 0.5) -> Recipe:
        return Recipe(name="sensitive", min_snr_db=target, max_float_share=share)

    def hard_model(self) -> onnx.ModelProto:
        """A network in which one Linear reads an activation with a huge outlier, which INT8 cannot serve."""
        b = Builder(("batch", 3, 8, 8))
        x = b.op("Transpose", b.conv("input", 3, 8, 1, "stem"), perm=[0, 2, 3, 1])
        x = b.op("Add", x, b.linear(b.layer_norm(x, 8, "norm1"), 8, 8, "good"), output="first")
        spiky = b.op("Mul", x, b.const(np.array([100.0, 1, 1, 1, 1, 1, 1, 1])), output="spiky")
        weight = b.normal(8, 8, name="bad.weight")
        array = onnx.numpy_helper.to_array(b.initializers[-1]).copy()
        array[0] *= 0.01
        b.initializers[-1].CopyFrom(onnx.numpy_helper.from_array(array, weight))
        bad = b.op("Add", b.op("MatMul", spiky, weight, output="bad_matmul"), b.normal(8), output="bad")
        b.op("Relu", b.op("Add", x, bad), output="y")
        return b.model("y")

    def test_returns_the_harmful_layer_and_says_why(self, make_samples: MakeSamples) -> None:
        model = self.hard_model()
        samples = make_samples(64, 8)
        result = quantize(model, samples, recipe=self.recipe(32))
        calibration = result.calibration
        assert [layer.output for layer in calibration.returned] == ["bad_matmul"]
        assert calibration.snr_all_int8_db is not None
        assert calibration.snr_db is not None
        assert calibration.snr_all_int8_db < 32 <= calibration.snr_db
        (decision,) = [item for item in result.decisions if item.output == "bad_matmul"]
        assert not decision.quantized
        assert decision.because == (
            f"returned to float: alone in INT8 it leaves the outputs {calibration.returned[0].snr_alone_db:.1f} dB"
        )
        # The figure is that of the model given out.
        measured = snr_db(run(model, images(samples))[0], run(result.model, images(samples))[0])
        assert measured == pytest.approx(calibration.snr_db, abs=0.1)

    def test_returns_nothing_where_the_target_holds(self, make_samples: MakeSamples) -> None:
        calibration = calibrate(transformer(), make_samples(), recipe=self.recipe(20))
        assert calibration.returned == ()
        assert calibration.snr_db == calibration.snr_all_int8_db

    def test_share_of_layers_is_a_limit(self, make_samples: MakeSamples) -> None:
        calibration = calibrate(transformer(), make_samples(), recipe=self.recipe(100, 0.34))
        assert 1 <= len(calibration.returned) <= 2
        assert calibration.snr_db is not None
        assert calibration.snr_all_int8_db is not None
        assert calibration.snr_all_int8_db < calibration.snr_db < 100

    def test_no_share_returns_nothing(self, make_samples: MakeSamples) -> None:
        assert calibrate(transformer(), make_samples(), recipe=self.recipe(100, 0.0)).returned == ()


class TestCache:
    def test_is_written_then_used(self, make_samples: MakeSamples, tmp_path: Path) -> None:
        cache = tmp_path / "calibration.json"
        first = quantize(transformer(), make_samples(), calibration_cache=cache)
        samples = make_samples()
        second = quantize(transformer(), samples, calibration_cache=cache)
        assert (first.reused, second.reused) == (False, True)
        assert samples.passes == 0
        assert second.calibration == first.calibration
        assert second.decisions == first.decisions
        assert second.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)

    def test_of_other_data_is_refused_and_left_alone(self, make_samples: MakeSamples, tmp_path: Path) -> None:
        cache = tmp_path / "calibration.json"
        quantize(transformer(), make_samples(), recipe=PLAIN, calibration_cache=cache)
        before = cache.read_bytes()
        with raises("EF506", cache, "other calibration data"):
            quantize(transformer(), make_samples(seed=1), recipe=PLAIN, calibration_cache=cache)
        assert cache.read_bytes() == before

    def test_of_another_choice_of_layers_is_refused(self, make_samples: MakeSamples, tmp_path: Path) -> None:
        cache = tmp_path / "calibration.json"
        quantize(transformer(), make_samples(), recipe=PLAIN, calibration_cache=cache)
        fewer = PLAIN.model_copy(update={"overrides": (Override(name="stem", quantize=False, because="x"),)})
        with raises("EF506", cache, "other layers"):
            quantize(transformer(), make_samples(), recipe=fewer, calibration_cache=cache)

    def test_damaged_one_is_refused(self, make_samples: MakeSamples, tmp_path: Path) -> None:
        cache = tmp_path / "calibration.json"
        cache.write_text("{")
        with raises("EF505", cache):
            quantize(transformer(), make_samples(), calibration_cache=cache)


class TestRefusals:
    def test_no_data(self) -> None:
        with raises("EF103", "calibration data"):
            quantize(transformer(), None)

    def test_no_images(self) -> None:
        empty = ArraySamples(np.zeros((0, 3, 16, 16), np.float32))
        with raises("EF403"):
            quantize(transformer(), empty)

    def test_images_of_another_size(self, make_samples: MakeSamples) -> None:
        with raises("EF507", [8, 3, 12, 12]):
            quantize(transformer(), make_samples(24, 12))

    def test_quantized_model(self, make_samples: MakeSamples) -> None:
        model = quantize(transformer(), make_samples(), recipe=PLAIN).model
        with raises("EF324", "18 Q/DQ nodes"):
            quantize(model, make_samples())

    def test_nothing_to_quantize(self, make_samples: MakeSamples) -> None:
        nothing = PLAIN.model_copy(update={"overrides": (Override(quantize=False, because="x"),)})
        with raises("EF504", "nothing"):
            quantize(transformer(), make_samples(), recipe=nothing)


def test_model_given_is_not_changed(make_samples: MakeSamples) -> None:
    model = transformer()
    before = model.SerializeToString(deterministic=True)
    quantize(model, make_samples())
    assert model.SerializeToString(deterministic=True) == before


def test_shapes_of_the_whole_model_are_inferred_only_where_it_changed(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is prepared, as it is then, after SmoothQuant, and with a switch a layer."""
    sizes = []
    infer = onnx.shape_inference.infer_shapes

    def counted(model: onnx.ModelProto, *args: Any, **options: Any) -> onnx.ModelProto:
        sizes.append(len(model.SerializeToString()))
        return infer(model, *args, **options)

    b = Builder(("batch", 3, 8, 8))
    x = b.op("Transpose", b.conv("input", 3, 64, 1, "stem"), perm=[0, 2, 3, 1])
    for i in range(3):
        x = b.op("Add", x, b.linear(b.layer_norm(x, 64, f"norm{i}"), 64, 64, f"fc{i}"))
    model = b.model(b.op("Relu", x))
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", counted)
    quantize(model, make_samples(8, 8))
    assert 2 <= len(sizes) <= 4
    assert max(sizes) < 3 * 64 * 64 * 4 < len(model.SerializeToString())


def test_progress_names_every_step(make_samples: MakeSamples) -> None:
    steps: dict[str, int] = {}

    def progress(what: str, done: int, total: int | None) -> None:
        steps[what] = done
        assert total is not None
        assert done <= total

    quantize(
        transformer(), make_samples(), recipe=load_recipe().model_copy(update={"min_snr_db": 90.0}), progress=progress
    )
    assert steps == {
        "observing channels": 24,
        "observing ranges": 24,
        "measuring bias errors": 24,
        "measuring sensitivity": len(LAYERS),
    }


@pytest.mark.parametrize("attention", [False, True])
def test_what_int8_layers_read_is_told_with_its_histogram(make_samples: MakeSamples, attention: bool) -> None:
    samples = make_samples()
    recipe = load_recipe().model_copy(update={"quantize_attention": attention, "min_snr_db": None})
    result = quantize(transformer(), samples, recipe=recipe)
    readers = [layer for activation in result.activations for layer in activation.layers]
    int8 = [decision.node for decision in result.decisions if decision.quantized]
    # Attention reads queries, keys and values, each with a range of its own.
    assert sorted(set(readers)) == sorted(int8)
    assert len(readers) == len(int8) + 2 * attention
    for activation in result.activations:
        assert activation.amax == result.calibration.ranges[activation.tensor]
        assert activation.histogram is not None
        assert sum(activation.histogram.counts) % len(images(samples)) == 0
        assert 0 <= activation.histogram.clipped < 0.05
    (stem,) = (activation for activation in result.activations if "node_stem" in activation.layers)
    assert sum(present(stem.histogram).counts) == images(samples).size


def test_a_cached_calibration_has_the_histograms(make_samples: MakeSamples, tmp_path: Path) -> None:
    cache = tmp_path / "calibration.json"
    first, second = (quantize(transformer(), make_samples(), calibration_cache=cache) for _ in range(2))
    assert (first.reused, second.reused) == (False, True)
    assert first.activations == second.activations
    document = json.loads(cache.read_text())
    del document["histograms"]
    cache.write_text(json.dumps(document))
    older = quantize(transformer(), make_samples(), calibration_cache=cache)
    assert {activation.histogram for activation in older.activations} == {None}
