"""Sensitivity for people: what each layer that a recipe quantizes does to the network's outputs alone in INT8.

Every layer is measured, on the images as they are and on degraded versions of them. (The search of `quantize` looks at
no more layers than it needs.) A layer's figure depends on nothing but the model, its calibration and the images: layers
can be measured in any order, in many processes, and a measurement that was ended goes on where it was.
"""

from __future__ import annotations

import logging
import math
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from edgeformer.errors import InputError
from edgeformer.graph.graph_index import GraphIndex
from edgeformer.graph.multiply_adds import multiply_adds
from edgeformer.graph.protos import fed_inputs
from edgeformer.graph.qdq import SCALE_BITS, AttentionSite, LayerSite, attention_site, layer_site
from edgeformer.ops import bi_level_routing_attention as bra
from edgeformer.progress import Progress
from edgeformer.quantization.degradations import degraded
from edgeformer.quantization.distributed import Pool
from edgeformer.quantization.distributed_observation import observe_on
from edgeformer.quantization.observation import observe
from edgeformer.quantization.quantize import _Plan, _plan
from edgeformer.quantization.recipe import Recipe
from edgeformer.quantization.sensitivity_state import SensitivityState, images_sha256
from edgeformer.quantization.settings import Settings, Sites
from edgeformer.quantization.streaming import SamplesLike, SpreadSamples
from edgeformer.quantization.trial import Trial, snr_db
from edgeformer.records.sensitivity import LayerSensitivity, SensitivityReport
from edgeformer.version import __version__

__all__ = ["IMAGES", "measure_layers"]

_log = logging.getLogger(__name__)

# Images that the SNR is measured on: ranks settle with a few dozen, and each costs a run of the model for each layer.
IMAGES = 32
_BATCH_SIZE = 8

_Batches = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class _Setup:
    """All that the measurement of a layer depends on, as it is sent to workers.

    Attributes:
        model: the float model, serialized.
        layers: outputs of the layers.
        attention: outputs of the op nodes that are INT8 together.
        ranges: activation, or name of a part of what an op node reads -> amax.
        clean: images, ``[N, 3, H, W]`` float32 each.
        degraded: degraded versions of them; nothing where none are wanted.
        token: another one for each setup.
    """

    model: bytes = field(repr=False)
    layers: tuple[str, ...]
    attention: tuple[str, ...]
    ranges: dict[str, float]
    clean: _Batches
    degraded: _Batches
    token: str = field(default_factory=lambda: str(uuid.uuid4()))


class _Meter:
    """Measures layers; all images are in it, and what the float model makes of them."""

    def __init__(self, setup: _Setup) -> None:
        self._setup = setup
        index = GraphIndex(onnx.ModelProto.FromString(setup.model))
        sites = [layer_site(index, index.producer[output]) for output in setup.layers]
        places = [attention_site(index, index.producer[output]) for output in setup.attention]
        self._trial = Trial(
            Sites(index, [site for site in sites if isinstance(site, LayerSite)], SCALE_BITS),
            [place for place in places if isinstance(place, AttentionSite)],
            setup.clean,
            setup.degraded,
        )
        for kind, batches in (("", setup.clean), ("degraded versions of ", setup.degraded)):
            for batch in batches:
                outputs = self._trial.outputs(Settings(frozenset(), {}), batch)
                broken = [name for name, values in outputs.items() if not np.isfinite(values).all()]
                if broken:
                    raise InputError(
                        "EF508",
                        f"{kind}calibration images make NaN or infinity in the output {broken[0]!r} of the float "
                        "model: check the images and the model's weights",
                    )

    def noise(self, layer: str) -> tuple[float, ...]:
        """Relative noise powers at the outputs with one layer in INT8: clean, and degraded where there are such."""
        attention = layer in self._setup.attention
        layers = frozenset[str]() if attention else frozenset([layer])
        noise = self._trial.noise(Settings(layers, self._setup.ranges, attention=attention))
        found = (noise.clean, noise.degraded) if self._setup.degraded else (noise.clean,)
        if not all(map(math.isfinite, found)):
            raise InputError("EF508", f"with {layer!r} in INT8 the outputs hold NaN or infinity: leave it in float")
        return found


# Of this process, where it is a worker: the meter that it used last.
_meters: dict[str, _Meter] = {}
_meters_lock = threading.Lock()


def _noise(setup: _Setup, layer: str) -> tuple[float, ...]:
    """On a worker: measure a layer."""
    with _meters_lock:
        if setup.token not in _meters:
            _meters.clear()
            _meters[setup.token] = _Meter(setup)
        # Within it: what a trial keeps from one layer to the next is not for two threads.
        return _meters[setup.token].noise(layer)


def measure_layers(
    model: onnx.ModelProto,
    samples: SamplesLike,
    *,
    recipe: Recipe,
    images: int = IMAGES,
    degrade: bool = True,
    state_file: Path | None = None,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> SensitivityReport:
    """Measure each layer that ``recipe`` quantizes alone in INT8.

    Args:
        model: an FP32 graph, fused or not.
        samples: calibration images, prepared at the model's input size.
        recipe: which layers, and how their ranges are observed. What it has a search choose is passed over: weights and
            activations are rounded to the nearest.
        images: how many of the samples the SNR is measured on, spread evenly over them.
        degrade: measure on degraded versions of them, too.
        state_file: holds what is measured, after each layer, and is read where it exists.
        pool: workers that observe ranges and measure; None does both in this process. The result is the same
            bit for bit.
        progress: told what is going on.

    Raises:
        InputError: data or recipe do not fit the model, which may be quantized already or have nothing to quantize; the
            state is damaged or was made for something else; outputs are not finite.
        EnvironmentFault: the workers or their scheduler went away.
        OSError: the state cannot be written.
    """
    plan = _plan(model, samples, recipe, SCALE_BITS)
    clean = _spread(samples, images)
    versions = _degraded(clean, plan.sites.index.model) if degrade else []
    images_hash = images_sha256(clean, versions)
    state = None if state_file is None else SensitivityState.read(state_file, plan.key, images_hash)
    if state is None:
        ranges = _ranges(plan, samples, pool, progress)
        state = SensitivityState(key=plan.key, images=images_hash, ranges=ranges)
        state.save(state_file)
    setup = _Setup(
        model=plan.sites.index.model.SerializeToString(),
        layers=tuple(plan.sites.of_output),
        attention=tuple(place.output for place in plan.attention),
        ranges=state.ranges,
        clean=clean,
        degraded=versions,
    )
    names = [*setup.layers, *setup.attention[:1]]
    for layer, noise in _measured(setup, [name for name in names if name not in state.noise], pool):
        state.noise[layer] = noise
        state.save(state_file)
        if progress is not None:
            progress("measuring layers", len(state.noise), len(names))
    counts = multiply_adds(plan.sites.index.model)
    nodes = {decision.output: (decision.node, decision.op_type) for decision in plan.decisions}
    found = [_record(setup, name, nodes[name], state.noise[name], counts) for name in names]
    return SensitivityReport(
        edgeformer=__version__,
        model_sha256=plan.key.model,
        data_sha256=plan.key.data,
        recipe=recipe.name,
        images=sum(map(len, clean)),
        multiply_adds=_sum(counts.values()),
        layers=tuple(sorted(found, key=lambda layer: layer.snr_db)),
    )


def _measured(setup: _Setup, layers: Sequence[str], pool: Pool | None) -> Iterator[tuple[str, tuple[float, ...]]]:
    if not layers:
        return
    if pool is not None:
        for number, noise in pool.results(_noise, setup, ((layer,) for layer in layers)):
            yield layers[number], noise
        return
    meter = _Meter(setup)
    for layer in layers:
        yield layer, meter.noise(layer)


def _ranges(plan: _Plan, samples: SamplesLike, pool: Pool | None, progress: Progress | None) -> dict[str, float]:
    """The ranges that the recipe's observer gives."""
    observing = observe if pool is None else partial(observe_on, pool)
    seen = observing(
        plan.sites.index.model,
        samples,
        plan.sites.sites,
        slices=[part for place in plan.attention for part in place.parts],
        observer=plan.recipe.observer,
        batch_size=_BATCH_SIZE,
        progress=progress,
        index=plan.sites.index,
    )
    if min(seen.images, getattr(samples, "distinct", seen.images)) == 1:
        _log.warning("the ranges come from one image: other images will leave them; give a few hundred that differ")
    return seen.ranges


def _spread(samples: SamplesLike, wanted: int) -> _Batches:
    """Images evenly spread over the samples, which may be sorted by class; each batch takes some from all over."""
    chosen: list[npt.NDArray[np.float32]] = []
    for batch in SpreadSamples(samples, wanted).batches(_BATCH_SIZE):
        chosen.extend(batch.images)
        if len(chosen) >= wanted:
            break
    batches = -(-len(chosen[:wanted]) // _BATCH_SIZE)
    return [np.stack(chosen[start:wanted:batches]) for start in range(batches)]


def _degraded(clean: _Batches, model: onnx.ModelProto) -> _Batches:
    if any(batch.ndim != 4 or batch.shape[1] != 3 for batch in clean):
        _log.warning("the model takes no images: nothing is measured on degraded ones")
        return []
    made = [degraded(batch, seed) for seed, batch in enumerate(clean)]
    (given,) = fed_inputs(model.graph)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    # Bytes and other integers are whole pixel values.
    return made if given.type.tensor_type.elem_type in floats else [np.rint(batch) for batch in made]


def _record(
    setup: _Setup, name: str, node: tuple[str, str], noise: tuple[float, ...], counts: dict[str, int | None]
) -> LayerSensitivity:
    label, op = node
    together = [counts.get(name)]
    if op == bra.OP_TYPE:
        count = len(setup.attention)
        label = f"attention of {count} block{'s' * (count > 1)}"
        together = [counts.get(output) for output in setup.attention]
    return LayerSensitivity(
        node=label,
        op=op,
        output=name,
        snr_clean_db=snr_db(noise[0]),
        snr_degraded_db=snr_db(noise[1]) if len(noise) > 1 else None,
        multiply_adds=_sum(together),
    )


def _sum(counts: Any) -> int | None:
    known = list(counts)
    return None if None in known else sum(known)
