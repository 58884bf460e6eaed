"""INT8 queries, keys and values of the fused attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.qdq import representable_scale, with_float_attention
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.quantization import ObserverSettings, Override, Recipe, load_recipe, quantize
from edgeformer.quantization.choice import _split
from edgeformer.quantization.policy import decide
from edgeformer.quantization.preparation import prepare
from edgeformer.quantization.quantize import _attention, _sites
from edgeformer.quantization.settings import Settings, Sites
from edgeformer.quantization.trial import Trial
from tests.graph.precision_graphs import Builder, check, maker, run, snr_db, transformer
from tests.present import present
from tests.quantization.conftest import ArraySamples
from tests.quantization.test_quantize import PLAIN, images, quantizers
from tests.raising import raises

MakeSamples = Callable[..., ArraySamples]
LAYERS = ("stem", "qkv_matmul", "wo_matmul", "fc1_matmul", "fc2_matmul", "downsample")


class TestAttention:
    def recipe(self, **changes: Any) -> Recipe:
        return PLAIN.model_copy(update={"quantize_attention": True, **changes})

    def op(self, model: onnx.ModelProto) -> onnx.NodeProto:
        (node,) = (node for node in model.graph.node if bra.is_op(node))
        found: onnx.NodeProto = node
        return found

    @pytest.mark.parametrize("recipe", [PLAIN, load_recipe()], ids=["plain", "default"])
    def test_scales_are_the_ranges_of_queries_keys_and_values(self, make_samples: MakeSamples, recipe: Recipe) -> None:
        observer = ObserverSettings(kind="min_max")
        recipe = recipe.model_copy(update={"quantize_attention": True, "observer": observer})
        model, samples = transformer(), make_samples()
        result = quantize(model, samples, recipe=recipe)
        check(result.model)
        (qkv,) = run(model, images(samples), "qkv")
        largest = [np.abs(qkv[..., start : start + 8]).max() for start in (0, 8, 16)]
        names = [f"qkv[..., {start}:{start + 8}]" for start in (0, 8, 16)]
        assert [result.calibration.ranges[name] for name in names] == pytest.approx(largest, rel=1e-4)
        attributes = bra.Attributes.from_node(self.op(result.model))
        steps = representable_scale(np.array([result.calibration.ranges[name] for name in names]) / 127)
        assert (attributes.q_scale, attributes.k_scale, attributes.v_scale) == tuple(steps)

    def test_everything_else_is_as_without(self, make_samples: MakeSamples) -> None:
        recipe = load_recipe()
        with_it = quantize(transformer(), make_samples(), recipe=recipe.model_copy(update={"quantize_attention": True}))
        without = quantize(transformer(), make_samples(), recipe=recipe)
        assert list(with_float_attention(with_it.model).graph.node) == list(without.model.graph.node)
        assert len(quantizers(with_it.model)) == len(quantizers(without.model)) + 1
        assert with_it.calibration.returned == without.calibration.returned
        assert with_it.calibration.snr == without.calibration.snr
        assert with_it.calibration.attention_snr is not None
        assert without.calibration.attention_snr is None

    def test_figures_are_those_of_the_model_and_told(self, make_samples: MakeSamples) -> None:
        samples = make_samples(64)
        recipe = self.recipe(round_weights=True, degrade=False, search_runs=10_000)
        result = quantize(transformer(), samples, recipe=recipe)
        found = result.calibration
        # Those that the figures are of: of every third of the images taken one.
        judged, _ = _split(samples, 10_000)
        x = np.concatenate(judged)
        reference = run(transformer(), x)[0]
        with_it, without = present(found.attention_snr), present(found.snr)
        assert with_it.degraded is None
        assert with_it.clean == pytest.approx(snr_db(reference, run(result.model, x)[0]), abs=0.02)
        float_attention = snr_db(reference, run(with_float_attention(result.model), x)[0])
        assert without.clean == pytest.approx(float_attention, abs=0.02)
        assert with_it.clean < without.clean
        (decision,) = (item for item in result.decisions if item.op_type == bra.OP_TYPE)
        assert decision.record.model_dump() == {
            "node": "bra_7",
            "op": "BiLevelRoutingAttention",
            "int8": True,
            "type": None,
            "because": "recipe: attention takes INT8 queries, keys and values; the outputs keep "
            f"{with_it.clean:.1f} dB, with float attention {without.clean:.1f} dB",
        }

    def test_output_is_the_references(self, make_samples: MakeSamples) -> None:
        """Odd sizes, and as many queries' channels as values' have not."""
        b = Builder(("batch", 3, 15, 9))
        x = b.op("Transpose", b.conv("input", 3, 8, 1, "stem"), perm=[0, 2, 3, 1])
        # No bias: correcting it, where that helps, puts a new tensor between the Linear and the op.
        qkv = b.op("MatMul", x, b.normal(8, 2 * 6 + 10, name="qkv.weight"), output="qkv")
        b.linear(b.attention_op(qkv, regions=3, topk=4, qk_dim=6), 10, 8, "wo")
        b.op("Relu", "wo", output="y")
        rng = np.random.default_rng(0)
        samples = ArraySamples(rng.normal(size=(8, 3, 15, 9)).astype(np.float32))
        recipe = self.recipe(correct_bias=True)
        model = quantize(b.model("y"), samples, recipe=recipe).model
        node = self.op(model)
        source = maker(model, node.input[0]).input[0]
        assert source in ("qkv", "qkv_biased")
        floats, qkv8, output = run(model, images(samples), source, node.input[0], node.output[0])
        attributes = bra.Attributes.from_node(node)
        steps = np.repeat([attributes.q_scale, attributes.k_scale, attributes.v_scale], [6, 6, 10])
        assert np.array_equal(qkv8, np.clip(np.rint(floats / steps), -128, 127))
        expected = bra.reference(qkv8, attributes)
        np.testing.assert_allclose(output, expected, atol=2e-6 * np.abs(expected).max())

    def test_alone(self, make_samples: MakeSamples) -> None:
        leave = Override(quantize=False, because="attention only")
        result = quantize(transformer(), make_samples(), recipe=self.recipe(overrides=(leave,), round_weights=True))
        assert [item.op_type for item in result.decisions if item.quantized] == [bra.OP_TYPE]
        assert len(quantizers(result.model)) == 1
        assert present(result.calibration.snr).worse == 200.0
        assert 20 < present(result.calibration.attention_snr).worse < 100
        assert result.calibration.int8_share == 0

    def test_switch_is_exactly_the_attention(self, make_samples: MakeSamples) -> None:
        samples = make_samples(12)
        leave = Override(quantize=False, because="attention only")
        expected = quantize(transformer(), samples, recipe=self.recipe(overrides=(leave,)))
        index = GraphIndex(prepare(transformer()))
        decisions = decide(index.model, quantize_attention=True)
        trial = Trial(Sites(index, _sites(index, decisions), 11), _attention(index, decisions))
        x = images(samples)
        on = Settings(frozenset(), expected.calibration.ranges, attention=True)
        off = Settings(frozenset(), expected.calibration.ranges)
        np.testing.assert_allclose(trial.outputs(on, x)["logits"], run(expected.model, x)[0], atol=1e-5)
        np.testing.assert_allclose(trial.outputs(off, x)["logits"], run(transformer(), x)[0], atol=1e-5)

    def test_calibration_without_it_is_refused(self, make_samples: MakeSamples, tmp_path: Path) -> None:
        cache = tmp_path / "calibration.json"
        quantize(transformer(), make_samples(), recipe=PLAIN, calibration_cache=cache)
        with raises("EF506", cache, "other layers"):
            quantize(transformer(), make_samples(), recipe=self.recipe(), calibration_cache=cache)
        cache.unlink()
        first = quantize(transformer(), make_samples(), recipe=self.recipe(), calibration_cache=cache)
        again = quantize(transformer(), make_samples(), recipe=self.recipe(), calibration_cache=cache)
        assert again.reused
        assert again.model == first.model
