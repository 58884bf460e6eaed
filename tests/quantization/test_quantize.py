from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.graph.types import to_float_type
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.quantization import ObserverSettings, Override, Recipe, calibrate, load_recipe, quantize
from edgeformer.quantization.choice import _split
from edgeformer.quantization.degradations import degraded
from tests.graph.precision_graphs import Builder, check, maker, run, snr_db, transformer
from tests.present import present
from tests.quantization.conftest import ArraySamples
from tests.raising import raises

MakeSamples = Callable[..., ArraySamples]
PLAIN = Recipe(
    name="plain",
    observer=ObserverSettings(kind="min_max"),
    balance=False,
    choose_ranges=False,
    round_weights=False,
    correct_bias=False,
)
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
    result = quantize(model, make_samples(48), recipe=load_recipe().model_copy(update={"min_int8_share": 1.0}))
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
    quantized = quantize(model, make_samples(48), recipe=load_recipe().model_copy(update={"min_int8_share": 1.0})).model
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


class TestReturns:
    def recipe(self, **changes: Any) -> Recipe:
        return load_recipe().model_copy(update={"min_int8_share": 0.4, **changes})

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
        # Balancing would serve the layer as well.
        result = quantize(model, samples, recipe=self.recipe(balance=False))
        calibration = result.calibration
        returned = [layer.output for layer in calibration.returned]
        assert returned[0] == "bad_matmul"
        (decision,) = [item for item in result.decisions if item.output == "bad_matmul"]
        assert not decision.quantized
        layer = calibration.returned[0]
        assert layer.gain_db > 5
        # 64 positions, 8 x 8 weights, of 3 x 8 and twice 8 x 8 in all.
        assert layer.share == pytest.approx(64 / (24 + 128), abs=1e-6)
        bought = f"{100 * layer.share:.1f} % of the multiply-adds for {layer.gain_db:+.1f} dB"
        assert decision.because == f"returned to float: {bought}"
        first, second = calibration.front[:2]
        assert first.returned is None
        assert first.int8_share == 1
        assert second.returned == "bad_matmul"
        assert min(second.clean_db, second.degraded_db) - min(first.clean_db, first.degraded_db) == pytest.approx(
            layer.gain_db, abs=0.011
        )
        assert calibration.front[-1].finished
        assert calibration.int8_share == pytest.approx(1 - sum(layer.share for layer in calibration.returned), abs=1e-5)
        # The front's share is of the multiply-adds, and stays at what the recipe asks for.
        assert present(calibration.int8_share) >= 0.4

    def test_figures_are_those_of_the_model_given_out(self, make_samples: MakeSamples) -> None:
        model, samples = self.hard_model(), make_samples(64, 8)
        recipe = self.recipe(search_runs=2000)
        result = quantize(model, samples, recipe=recipe)
        judged, _ = _split(samples, 2000)
        x = np.concatenate(judged)
        snr = present(result.calibration.snr)
        assert snr_db(run(model, x)[0], run(result.model, x)[0]) == pytest.approx(snr.clean, abs=0.02)
        versions = np.concatenate([degraded(batch, 2 + 16 * place) for place, batch in enumerate(judged)])
        assert snr_db(run(model, versions)[0], run(result.model, versions)[0]) == pytest.approx(
            present(snr.degraded), abs=0.02
        )
        plain = present(result.calibration.plain_snr)
        assert snr.clean >= plain.clean
        assert present(snr.degraded) >= present(plain.degraded)

    def test_returns_nothing_where_the_target_holds(self, make_samples: MakeSamples) -> None:
        calibration = calibrate(transformer(), make_samples(), recipe=self.recipe(target_snr_db=15.0))
        assert calibration.returned == ()
        assert calibration.met is True
        assert present(calibration.snr).worse >= 15

    def test_a_target_that_is_out_of_reach_is_said_to_be(
        self, make_samples: MakeSamples, caplog: pytest.LogCaptureFixture
    ) -> None:
        calibration = calibrate(transformer(), make_samples(), recipe=self.recipe(target_snr_db=100.0))
        assert calibration.met is False
        assert present(calibration.int8_share) >= 0.4
        assert "the target is not met" in caplog.text
        assert "min_int8_share (0.4)" in caplog.text

    def test_the_whole_share_returns_nothing(self, make_samples: MakeSamples) -> None:
        calibration = calibrate(self.hard_model(), make_samples(24, 8), recipe=self.recipe(min_int8_share=1.0))
        assert calibration.returned == ()
        assert [point.finished for point in calibration.front] == [False, True]

    def test_without_degraded_images_none_are_judged(self, make_samples: MakeSamples) -> None:
        calibration = calibrate(transformer(), make_samples(), recipe=self.recipe(degrade=False))
        assert present(calibration.snr).degraded is None

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_a_handful_of_images_is_enough(self, make_samples: MakeSamples, count: int) -> None:
        result = quantize(transformer(), make_samples(count), recipe=self.recipe())
        check(result.model)
        assert present(result.calibration.snr).clean > 20


class TestDrop:
    def recipe(self, points: float) -> Recipe:
        return load_recipe().model_copy(update={"max_drop": points, "min_int8_share": 0.2})

    def labelled(self, samples: ArraySamples, share: float) -> Any:
        """The samples with the model's own answers for labels, but for a share of them."""
        scores = run(transformer(), images(samples))[0]
        labels = scores.argmax(axis=1)
        wrong = round(share * len(labels))
        labels[:wrong] = scores[:wrong].argmin(axis=1)

        class Labelled(ArraySamples):
            def batches(self, batch_size: int) -> Any:
                for place, batch in enumerate(super().batches(batch_size)):
                    start = place * batch_size
                    yield SimpleNamespace(images=batch.images, labels=labels[start : start + batch_size])

        return Labelled(images(samples))

    def test_a_drop_that_is_allowed_returns_nothing(self, make_samples: MakeSamples) -> None:
        calibration = calibrate(transformer(), self.labelled(make_samples(64), 0.1), recipe=self.recipe(50.0))
        assert calibration.met is True
        assert calibration.returned == ()

    def test_no_images_say_that_nothing_is_lost(self, make_samples: MakeSamples) -> None:
        calibration = calibrate(transformer(), self.labelled(make_samples(24), 0.0), recipe=self.recipe(0.0))
        assert calibration.met is False

    def test_labels_are_needed(self, make_samples: MakeSamples) -> None:
        with raises("EF572", "no labels", "target_snr_db"):
            calibrate(transformer(), make_samples(), recipe=self.recipe(1.0))


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
    """Where it is prepared, as it is then, with every size known, with a switch a layer, and balanced, twice."""
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
    assert 2 <= len(sizes) <= 6
    assert max(sizes) < 3 * 64 * 64 * 4 < len(model.SerializeToString())


def test_progress_names_every_step(make_samples: MakeSamples) -> None:
    steps: dict[str, int] = {}

    def progress(what: str, done: int, total: int | None) -> None:
        steps[what] = done
        assert total is not None
        assert done <= total

    quantize(
        transformer(), make_samples(), recipe=load_recipe().model_copy(update={"search_runs": 300}), progress=progress
    )
    chosen = steps.pop("choosing by the outputs")
    assert 0 < chosen <= 300
    assert steps == {"observing channels": 24, "observing ranges": 24}


@pytest.mark.parametrize("attention", [False, True])
def test_what_int8_layers_read_is_told_with_its_histogram(make_samples: MakeSamples, attention: bool) -> None:
    samples = make_samples()
    recipe = load_recipe().model_copy(update={"quantize_attention": attention, "min_int8_share": 1.0})
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
