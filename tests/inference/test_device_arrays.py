"""Arrays in device memory, and streams, on a machine of stand-ins: pycuda's, and those of any other library."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.runtime_faults.faults import Flavour, make_bundle
from tests.stand_ins import ROOT, run_with_stand_ins

# Its engine: logits[n, k] = (k + 1) * sum(image[n]).
BEGIN = """
import sys
import numpy as np
import edgeformer as ef
from edgeformer.ops.cuda import Buffer
from pycuda import driver, gpuarray
def attempt(call):
    try:
        call()
    except ef.EdgeformerError as error:
        print(error.code, error)
    else:
        print("nothing")
class Foreign:  # of a library that nobody knows
    def __init__(self, array, stream=None, device=None):
        self.array, self.device = array, type("Device", (), {"id": device})
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": stream}
images = np.random.default_rng(3).normal(size=(3, 3, 2, 2)).astype(np.float32)
expected = images.sum((1, 2, 3))[:, None] * np.arange(1, 6)
def right(result):
    assert type(result) is gpuarray.GPUArray, type(result)
    return bool(np.abs(result.get() - expected).max() < 1e-5)
model = ef.load(sys.argv[1], backend="tensorrt", trust_bundle=True)
image, room = gpuarray.to_gpu(images), gpuarray.empty((3, 5), np.float32)
"""


def run(code: str, folder: Path, flavour: Flavour = "tensorrt_rtx") -> list[str]:
    path = f"{ROOT / 'tests' / 'doubles'}:{ROOT}"
    return run_with_stand_ins(
        BEGIN + code, make_bundle(folder / "bundle", flavour), folder=folder, flavour=flavour, PYTHONPATH=path
    ).printed


@pytest.mark.parametrize("flavour", ["tensorrt_rtx", "tensorrt"])
def test_a_gpu_array_gives_a_gpu_array(flavour: Flavour, tmp_path: Path) -> None:
    code = """
print(right(model(image)), driver.Context.synchronized)
print(model.run({"image": image}, {"logits": room})["logits"] is room, right(room), driver.Context.synchronized)
stream = driver.Stream()
print(right(model.enqueue({"image": image}, stream=stream)["logits"]))
print(model.enqueue({"image": image}, {"logits": room}, stream=stream.handle)["logits"] is room)
print(driver.Context.synchronized)
"""
    # A run waits for what pycuda has under way, for the input and for the output; an enqueued one does not.
    assert run(code, tmp_path, flavour) == ["True 2", "True True 4", "True", "True", "4"]


def test_page_locked_memory_is_an_array_of_numpys(tmp_path: Path) -> None:
    code = """
staged, back = driver.pagelocked_empty(images.shape, images.dtype), driver.pagelocked_empty((3, 5), np.float32)
staged[...] = images
print(model.run({"image": staged}, {"logits": back})["logits"] is back, np.abs(back - expected).max() < 1e-5)
attempt(lambda: model.enqueue({"image": staged}, stream=0))
"""
    first, refused = run(code, tmp_path)
    assert first == "True True"
    assert refused.startswith("EF802 ")
    assert "device memory" in refused


def test_host_and_device_in_one_run(tmp_path: Path) -> None:
    code = """
print(right(model.run({"image": images}, {"logits": room})["logits"]))
back = np.zeros((3, 5), np.float32)
print(model.run({"image": image}, {"logits": back})["logits"] is back, np.abs(back - expected).max() < 1e-5)
buffer = Buffer(image.gpudata, image.shape, np.float32)
print(right(model.run({"image": buffer}, {"logits": room})["logits"]))
"""
    assert run(code, tmp_path) == ["True", "True True", "True"]


def test_arrays_of_any_library(tmp_path: Path) -> None:
    code = """
print(right(model.run({"image": Foreign(image, stream=1)}, {"logits": room})["logits"]))
attempt(lambda: model(Foreign(image)))
attempt(lambda: model.run({"image": Foreign(image, device=0)}, {"logits": room}))
attempt(lambda: model.run({"image": Foreign(image, device=1)}, {"logits": room}))
attempt(lambda: model.run({"image": image}, {"logits": Foreign(room, device=1)}))
"""
    given, no_output, same, other, output = run(code, tmp_path)
    assert given == "True"
    assert no_output.startswith("EF862 ")
    assert "outputs=" in no_output
    assert same == "nothing"
    for message, name in ((other, "image"), (output, "logits")):
        assert message.startswith("EF780 ")
        assert f"`{name}` is on CUDA device 1, and the model on 0" in message
        assert "device=1" in message


def test_a_slice_that_is_not_aligned_is_refused(tmp_path: Path) -> None:
    code = """
whole = gpuarray.empty((4, 3, 2, 2), np.float32)
attempt(lambda: model.run({"image": Buffer(whole.gpudata + 4, (3, 3, 2, 2), np.float32)}, {"logits": room}))
attempt(lambda: model.run({"image": Buffer(whole.gpudata, (9, 3, 2, 2), np.float32)}, {"logits": room}))
"""
    aligned, profile = run(code, tmp_path)
    assert aligned.startswith("EF802 ")
    assert "256" in aligned
    assert profile.startswith("EF760 ")
