"""``parity``: the forms of the model against each other on the same images, and outputs recorded for the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer.bundle.details import ParityDetails
from edgeformer.bundle.files import EXPORTED, FUSED, PARITY, TYPED
from edgeformer.pipeline.parity_inputs import ParityInputs
from edgeformer.pipeline.plan import Quantization
from edgeformer.pipeline.runner import Judged, Runner
from edgeformer.pipeline.stages._verdicts import miss_hint, verdict_of
from edgeformer.records.terms import Precision
from edgeformer.runtime.session import Array, Session, TensorInfo

if TYPE_CHECKING:
    from edgeformer.verify import Form
    from edgeformer.verify.forms import OpenForm

__all__ = ["FLOAT_ATTENTION", "run"]

_NAME = "parity"
# The form of an INT8 model that runs beside it where its attention is INT8, too.
FLOAT_ATTENTION = "float-attention"
# Images whose outputs the bundle records, for the device to compare with.
_RECORDED_IMAGES = 8
# Images whose activations are held against the range of FP16.
_OVERFLOW_IMAGES = 2


def run(
    runner: Runner,
    inputs: ParityInputs,
    *,
    precision: Precision,
    quantization: Quantization | None,
    max_drop: float,
    accepted: tuple[str, ...],
) -> None:
    """Judge the fused and the typed graph, and record inputs with the FP32 outputs."""

    def compare() -> Judged:
        recorder = _Recorder()
        forms = _forms(runner, precision, quantization, recorder)
        judged = _compare(runner, inputs, forms, max_drop, accepted)
        recorder.save(runner.path(PARITY), len(inputs.images(_RECORDED_IMAGES)))
        return judged

    runner.run(
        _NAME,
        [PARITY],
        compare,
        {
            "exported": runner.sha256(EXPORTED),
            "fused": runner.sha256(FUSED),
            "typed": runner.sha256(TYPED),
            "inputs": inputs.key(),
            "max_drop": max_drop,
            "accepted": accepted,
        },
    )


def _forms(runner: Runner, precision: Precision, quantization: Quantization | None, recorder: _Recorder) -> list[Form]:
    """The forms to compare; those that are no file of the bundle are made when their turn comes."""
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.graph.qdq import with_float_attention
    from edgeformer.graph.types import to_float_type
    from edgeformer.verify import Form

    forms = [
        recorder.over(Form.from_onnx("exported", runner.path(EXPORTED))),
        Form.fused(runner.path(EXPORTED), runner.path(FUSED)),
    ]
    if quantization is not None:
        # Not shipped and not judged: what FP16 alone would cost, so that INT8's share can be told.
        forms.append(Form.from_onnx("fp16", lambda: to_float_type(load_model(runner.path(FUSED)), "float16")))
        if quantization.recipe.quantize_attention:
            # Likewise: what INT8 costs without that of the attention.
            forms.append(Form.from_onnx(FLOAT_ATTENTION, lambda: with_float_attention(load_model(runner.path(TYPED)))))
    return [*forms, Form.from_onnx("typed", runner.path(TYPED), precision)]


def _compare(
    runner: Runner, inputs: ParityInputs, forms: list[Form], max_drop: float, accepted: tuple[str, ...]
) -> Judged:
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.verify import verify_forms

    progress = runner.progress(_NAME)
    report = verify_forms(
        forms,
        inputs.batches,
        max_drop=max_drop,
        accepted=accepted,
        progress=lambda form, done, total: progress(f"images, {form}", done, total or inputs.count),
    )
    fused = load_model(runner.path(FUSED))
    missed = [f"{form.name}: {form.text}{miss_hint(form, fused)}" for form in report.forms if form.status == "missed"]
    found = _overflow(runner, inputs)
    if found is not None:
        missed.insert(0, found)
    described = inputs.describe()
    details = ParityDetails(inputs=described, max_drop=max_drop, accepted_outputs=accepted, report=report)
    gate = "; ".join(missed) or report.forms[-1].text
    verdict = "missed" if missed else verdict_of(report.forms[-1])
    return Judged(verdict, gate, f"judged on {described}", details)


def _overflow(runner: Runner, inputs: ParityInputs) -> str | None:
    """The tensor of the typed graph that leaves the range of FP16, and the way out."""
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.verify.overflow import overflow

    found = overflow(load_model(runner.path(FUSED)), load_model(runner.path(TYPED)), inputs.images(_OVERFLOW_IMAGES))
    return found and f"typed: overflow: {found}. Build with --precision bf16 or fp32, or rescale the weights before it"


class _Recorder:
    """Keeps what a form was given first and what it gave, while it runs for the comparison."""

    def __init__(self) -> None:
        self._runs: list[dict[str, Array]] = []
        self._count = 0

    def over(self, form: Form) -> Form:
        """The form, watched."""

        @contextmanager
        def opener() -> Iterator[OpenForm]:
            with form.opened() as opened:
                yield replace(opened, session=_Watched(opened, self))

        return replace(form, opener=opener)

    def add(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Keep a run, unless there are enough."""
        if self._count < _RECORDED_IMAGES:
            # A typed graph takes floats as float32; what it is given is what the reference was given.
            given = {
                name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in feeds.items()
            }
            self._runs.append(_prefixed("input", given) | _prefixed("output", outputs))
            self._count += min(map(len, feeds.values()))

    def save(self, path: Path, images: int) -> None:
        """Write the first ``images``: what comes behind them may be copies that fill up a fixed batch."""
        arrays: dict[str, Any] = {
            name: np.concatenate([run[name] for run in self._runs])[:images] for name in self._runs[0]
        }
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}:{name}": array for name, array in arrays.items()}


class _Watched(Session):
    """A form's session that shows each run to a recorder; whoever opened the session closes it."""

    def __init__(self, form: OpenForm, recorder: _Recorder) -> None:
        self._form = form
        self._recorder = recorder

    @property
    def inputs(self) -> Mapping[str, TensorInfo]:
        return self._form.session.inputs

    @property
    def outputs(self) -> Mapping[str, TensorInfo]:
        return self._form.session.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._form.session.run(feeds)
        self._recorder.add(feeds, {name: outputs[name] for name in self._form.outputs})
        return outputs

    def close(self) -> None:
        pass
