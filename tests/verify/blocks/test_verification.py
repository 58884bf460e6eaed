"""All forms of a model block by block, and what the report and the error say."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
import torch

from edgeformer.graph.types import to_float_type
from edgeformer.quantization import quantize
from edgeformer.records.blocks import BlocksReport
from edgeformer.runtime import OnnxSession, TorchSession
from edgeformer.verify import Form
from edgeformer.verify.blocks.verification import TorchForm, require_blocks, verify_blocks
from edgeformer.verify.recording import Store
from tests.present import present
from tests.raising import raises
from tests.verify.blocks.conftest import SIZE, Forms, copy_of, edit, nodes_of, raised, small_biformer

pytestmark = pytest.mark.whole


def verified(
    forms: Forms,
    *,
    exported: onnx.ModelProto | None = None,
    pytorch: torch.nn.Module | str | None = None,
    typed: onnx.ModelProto | None = None,
    engine: Form | None = None,
    images: int = 2,
    memory_limit: int = 2**28,
) -> BlocksReport:
    model = forms.pytorch if pytorch is None else pytorch
    return verify_blocks(
        lambda: exported or forms.exported,
        lambda: forms.fused,
        lambda: typed or forms.fp16,
        forms.images[:images],
        precision="fp16",
        pytorch=model
        if isinstance(model, str)
        else TorchForm(TorchSession(model, input_size=(SIZE, SIZE)), lambda images: images),
        engine=engine,
        memory_limit=memory_limit,
    )


def test_all_forms_of_a_right_model_pass(forms: Forms) -> None:
    report = verified(forms, engine=Form.not_run("engine", "engine not run: no GPU", "fp16"), images=3)
    assert [(form.name, form.against, form.status) for form in report.forms] == [
        ("pytorch", None, "reference"),
        ("exported", "pytorch", "passed"),
        ("fused", "exported", "passed"),
        ("typed", "fused", "passed"),
        ("engine", None, "not run"),
    ]
    assert (report.passed, report.not_run, report.samples) == (True, ("engine",), 3)
    require_blocks(report)
    exported = report.forms[1].blocks
    assert [block.name for block in exported if block.name.startswith("stages")] == [
        f"stages.{stage}.0" for stage in range(4)
    ]
    # PyTorch and ONNX Runtime sum in another order: close, and not the same.
    snrs = [present(block.isolated_snr_db) for block in exported]
    assert all(105 < snr < 170 for snr in snrs)
    assert exported[1].routing_agreement is not None


def test_without_pytorch_the_exported_graph_comes_first(forms: Forms) -> None:
    report = verified(forms, pytorch="pytorch not run: no checkpoint")
    assert [(form.name, form.status) for form in report.forms[:3]] == [
        ("pytorch", "not run"),
        ("exported", "reference"),
        ("fused", "passed"),
    ]
    assert report.forms[0].text == "pytorch not run: no checkpoint"
    assert report.not_run == ("pytorch",)


def test_one_weight_that_the_export_has_otherwise(forms: Forms) -> None:
    model = small_biformer()
    with torch.no_grad():
        layer = model.get_submodule("stages.2.0.mlp.3")
        assert isinstance(layer, torch.nn.Linear)
        layer.weight[3, 5] += 0.1
    report = verified(forms, pytorch=model)
    assert [(form.name, form.status) for form in report.forms if form.status == "wrong"] == [("exported", "wrong")]
    block = present(report.forms[1].first_wrong)
    assert block.name == "stages.2.0"
    assert (block.faults[0].kind, block.faults[0].module) == ("values", "stages.2.0.mlp.3")
    assert "stages.2.0" in report.forms[1].text


def test_topk_that_the_export_has_otherwise(forms: Forms) -> None:
    model = small_biformer()
    attention = model.get_submodule("stages.1.0.attn")
    attention.topk = attention.topk - 1  # type: ignore[assignment, operator]  # a number, whatever PyTorch says
    block = present(verified(forms, pytorch=model).forms[1].first_wrong)
    assert block.name == "stages.1.0"
    assert (block.faults[0].kind, block.faults[0].value, block.faults[0].limit) == ("topk", 5, 4)


def test_the_error_names_form_block_and_module(forms: Forms) -> None:
    bad = copy_of(forms.fp16)
    for module in ("stages.1.0.mlp.3", "stages.3.0.mlp.3"):
        (layer,) = nodes_of(bad, module, "Conv")
        edit(bad, layer.input[1], raised(4, 0.2))
    report = verified(forms, pytorch="no", typed=bad)
    assert not report.passed
    with raises("EF960", "'typed'", "'fused'", "stages.1.0", "stages.1.0.mlp.3", layer.op_type, "also in stages.3.0"):
        require_blocks(report)


def test_no_image(forms: Forms) -> None:
    with raises("EF813"):
        verified(forms, images=0)


def test_a_graph_that_fixes_its_batch(forms: Forms) -> None:
    def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
        result = copy_of(model)
        for value in (*result.graph.input, *result.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 3
        return result

    report = verify_blocks(
        lambda: fixed(forms.exported),
        lambda: fixed(forms.fused),
        lambda: fixed(forms.fp16),
        forms.images,
        precision="fp16",
        pytorch="no",
    )
    # Four images are two batches of three, filled up from the beginning.
    assert (report.passed, report.samples) == (True, 4)


def test_a_form_whose_noise_nothing_explains_is_not_run_and_never_passed(forms: Forms) -> None:
    """Weights in INT8 look wrong in every block where FP16 alone is expected."""
    weights = to_float_type(quantize(forms.fused, precision="int8-weights").model, "float16")
    report = verify_blocks(
        lambda: forms.exported,
        lambda: forms.fused,
        lambda: weights,
        forms.images[:2],
        precision="int8-weights",
        pytorch="no",
    )
    assert report.passed
    assert "typed" in report.not_run
    (typed,) = (form for form in report.forms if form.name == "typed")
    assert "int8-weights" in typed.text
    assert "edgeformer verify" in typed.text


def test_an_engine_shows_its_outputs_and_is_not_judged(forms: Forms) -> None:
    with OnnxSession(forms.fp16) as session:
        report = verified(forms, pytorch="no", engine=Form.from_session("engine", session, "fp16"))
    engine = report.forms[-1]
    assert (engine.name, engine.against, engine.status) == ("engine", "typed", "not judged")
    (whole,) = engine.blocks
    assert whole.outputs == ("logits",)
    assert present(whole.accumulated_snr_db) > 60


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The most bytes that a store kept at a time."""
    most = [0]
    put = Store.put

    def counting(self: Store, array: np.ndarray) -> int:
        number = put(self, array)
        held = sum(one.nbytes for one in self._held.values() if isinstance(one, np.ndarray))
        most[0] = max(most[0], held)
        return number

    monkeypatch.setattr(Store, "put", counting)
    yield most


def test_what_is_kept_between_blocks_is_what_crosses(forms: Forms, monkeypatch: pytest.MonkeyPatch) -> None:
    """For two graphs never more than the widest boundary before a block and behind it, for each image."""
    with counted(monkeypatch) as most:
        verified(forms, pytorch="no", images=4)
    widest = 16 * (SIZE // 4) ** 2 * 4  # float32 behind the stem
    assert 2 * 4 * widest <= most[0] <= 4 * 4 * widest


def test_memory_does_not_grow_with_the_images(forms: Forms) -> None:
    """Beyond the limit what crosses lies in files: twice the images take the same memory."""

    def peak(images: int) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            verified(forms, pytorch="no", images=images, memory_limit=0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # what is imported and cached stays out of the comparison
    # When garbage goes is chance.
    assert min(peak(4), peak(4)) < 1.1 * max(peak(2), peak(2))
