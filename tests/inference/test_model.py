"""A loaded model: calls, contexts, threads, pictures, and its end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from edgeformer.bundle import open_bundle
from edgeformer.data import Preprocessing
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.inference import Model, load
from edgeformer.ops.memory import Buffer
from edgeformer.pipeline import build
from edgeformer.pipeline.application import preprocessing_of
from edgeformer.runtime import OnnxSession
from tests.inference.conftest import (
    CLASSES,
    IMAGE,
    SIZE,
    DeviceArray,
    classifier,
    make_bundle,
    saved,
)
from tests.inference.test_arrays import DlpackArray
from tests.pipeline.conftest import CHECKPOINT, DIGITS
from tests.raising import raises
from tests.runtime.conftest import make_model

RNG = np.random.default_rng(1)
A, B = RNG.normal(size=(2, 2, 3)).astype(np.float32)
PREPARED = Preprocessing(SIZE, SIZE)


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def pictures(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, (rng.integers(3, 30), rng.integers(3, 30), 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def two(two_inputs: Path) -> Model:
    return load(two_inputs)


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' classifier for a device, whose engine is built there."""
    folder = tmp_path_factory.mktemp("nano") / "bundle"
    build("biformer_nano", checkpoint=CHECKPOINT, precision="fp16", target="jetson-orin-nano", output=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["typed", "fused"])
def test_results_are_those_of_the_package_to_the_bit(graph: Any, nano_bundle: Path) -> None:
    files = sorted((DIGITS / "evaluate").rglob("*.png"))[::40][:5]
    preprocessing = preprocessing_of(open_bundle(nano_bundle))
    assert isinstance(preprocessing, Preprocessing)
    prepared = np.stack([preprocessing(Image.open(path)) for path in files])
    with (
        load(nano_bundle, graph=graph, threads=1) as model,
        OnnxSession(nano_bundle / f"{graph}.onnx", threads=1) as session,
    ):
        assert np.array_equal(model.preprocess(files), prepared)
        logits = session.run({"input": prepared})["logits"]
        assert np.array_equal(model(prepared), logits)
        found = model.predict(files, top=10)
        assert [one[0].index for one in found] == list(logits.argmax(1))
        assert [one[0].label for one in found] == [str(index) for index in logits.argmax(1)]
        wide = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        wide /= wide.sum(1, keepdims=True)
        for ranked, row in zip(found, wide, strict=True):
            assert np.allclose([one.probability for one in ranked], np.sort(row)[::-1], rtol=1e-6)


def test_one_output_is_an_array_and_several_are_a_dict(small_model: Model, two: Model) -> None:
    logits = small_model(images())
    assert np.array_equal(logits, OnnxSession(classifier()).run({"input": images()})["logits"])
    for results in (two(A, B), two(a=A, b=B), two(A, b=B), two.run({"b": B, "a": A})):
        assert list(results) == ["sum", "product"]
        assert np.array_equal(results["sum"], A + B)
        assert np.array_equal(results["product"], A * B)


def test_torch_gives_torch_and_dlpack_numpy(two: Model) -> None:
    results = two(torch.from_numpy(A), torch.from_numpy(B))
    assert isinstance(results["sum"], torch.Tensor)
    assert torch.equal(results["sum"], torch.from_numpy(A + B))
    mixed = two(A, torch.from_numpy(B))
    assert isinstance(mixed["sum"], np.ndarray)
    assert np.array_equal(two(DlpackArray(A), DlpackArray(B))["product"], A * B)


def test_inputs_that_are_not_dense(two: Model) -> None:
    assert np.array_equal(two(np.asfortranarray(A), B[:, ::-1])["sum"], A + B[:, ::-1])
    turned = torch.from_numpy(A).flip(0).T.contiguous().T
    assert torch.equal(two(turned, turned)["sum"], 2 * turned)


def test_memory_of_a_device_is_not_for_the_cpu(two: Model) -> None:
    for array in (DeviceArray((2, 3)), Buffer(0x1000, (2, 3), np.float32)):
        for first, second in ((array, B), (A, array), (array, array)):
            with raises("EF802", "CUDA memory", "host"):
                two(first, second)
    with raises("EF802", "product", "CUDA memory"):
        two.run({"a": A, "b": B}, {"product": DeviceArray((2, 3))})
    with two.context() as context, raises("EF802", "CUDA memory"):
        context.run({"a": DeviceArray((2, 3)), "b": B})


def test_there_are_no_streams_on_the_cpu(two: Model) -> None:
    for _ in range(3):  # each gives its context back
        with raises("EF761", "CPU"):
            two.enqueue({"a": A, "b": B})
    with two.context() as context:
        with raises("EF761", "CPU"):
            context.enqueue({"a": A, "b": B}, stream=5)
        with raises("EF912", "a", "contiguous"):
            context.enqueue({"a": np.asfortranarray(A), "b": B})
        assert "CPU" in context.graph_state
    assert np.array_equal(two(A, B)["sum"], A + B)


@pytest.mark.parametrize(
    ("arrays", "named", "words"),
    [
        ((A,), {}, ["a", "b"]),
        ((A, B, A), {}, ["3 inputs", 2]),
        ((A,), {"a": B}, ["twice", "a"]),
        ((A, B), {"c": B}, ["c"]),
        ((A, B.astype(np.float16)), {}, ["b", "float16", "float32"]),
        ((A, B[0]), {}, ["b", "[3]"]),
        ((A, B[:, :2]), {}, ["b", "[2, 2]", 3]),
    ],
)
def test_inputs_that_do_not_fit(two: Model, arrays: Any, named: Any, words: list[Any]) -> None:
    with raises("EF802", *words):
        two(*arrays, **named)


def test_a_run_that_fails_says_why(two: Model) -> None:
    with raises("EF805", "ONNX Runtime"):
        two(A, np.zeros((3, 3), np.float32))


def test_outputs_that_are_given_are_written_to(two: Model) -> None:
    given = np.zeros((2, 3), np.float32)
    results = two.run({"a": A, "b": B}, {"product": given})
    assert results["product"] is given
    assert np.array_equal(given, A * B)
    assert np.array_equal(results["sum"], A + B)
    tensor = torch.zeros(2, 3)
    assert two.run({"a": A, "b": B}, {"sum": tensor})["sum"] is tensor
    assert np.array_equal(tensor.numpy(), A + B)
    with two.context() as context:
        assert context.run({"a": B, "b": B}, {"sum": given})["sum"] is given
    assert np.array_equal(given, 2 * B)


def test_outputs_that_do_not_fit(two: Model) -> None:
    feeds = {"a": A, "b": B}
    read_only = np.zeros((2, 3), np.float32)
    read_only.flags.writeable = False
    for code, outputs, words in (
        ("EF802", {"total": A}, ["total"]),
        ("EF802", {"sum": np.zeros((3, 3), np.float32)}, ["sum", "[3, 3]", "[2, 3]"]),
        ("EF802", {"sum": np.zeros((2, 3), np.float64)}, ["sum", "float64", "float32"]),
        ("EF912", {"sum": np.zeros((3, 2), np.float32).T}, ["sum"]),
        ("EF866", {"sum": read_only}, ["sum"]),
    ):
        with raises(code, *words):
            two.run(feeds, outputs)
    assert not read_only.any()


def test_a_size_that_only_a_run_tells(tmp_path: Path) -> None:
    model = make_model(
        [helper.make_node("NonZero", ["x"], ["places"])],
        [("x", TensorProto.FLOAT, ["n"])],
        [("places", TensorProto.INT64, [1, "found"])],
    )
    x = np.array([0, 2, 0, 4], np.float32)
    with load(saved(model, tmp_path / "places.onnx")) as loaded:
        with raises("EF865", "places", "[1, None]", "outputs="):
            loaded(x)
        room = np.zeros((1, 2), np.int64)
        assert loaded.run({"x": x}, {"places": room})["places"] is room
        assert room.tolist() == [[1, 3]]
        with raises("EF802", "places", "[1, 2]", "8"):
            loaded.run({"x": x}, {"places": room[:, :1].copy()})


def test_a_model_without_inputs(tmp_path: Path) -> None:
    model = make_model([], [], [("constant", TensorProto.FLOAT, [2])], {"constant": np.array([1, 2], np.float32)})
    with load(saved(model, tmp_path / "constant.onnx")) as loaded:
        assert loaded().tolist() == [1, 2]


def test_types_beside_float(tmp_path: Path) -> None:
    names = {"h": TensorProto.FLOAT16, "i": TensorProto.INT8, "u": TensorProto.UINT8, "n": TensorProto.INT32}
    names |= {"l": TensorProto.INT64, "t": TensorProto.BOOL}
    model = make_model(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        [(name, kind, [2]) for name, kind in names.items()],
        [(f"{name}_out", kind, [2]) for name, kind in names.items()],
    )
    feeds = {name: np.array([1, 0], helper.tensor_dtype_to_np_dtype(kind)) for name, kind in names.items()}
    with load(saved(model, tmp_path / "types.onnx")) as loaded:
        for name, array in loaded.run(feeds).items():
            expected = feeds[name.removesuffix("_out")]
            assert array.dtype == expected.dtype
            assert np.array_equal(array, expected)


def test_a_context_of_the_pool(two_inputs: Path) -> None:
    with load(two_inputs, contexts=2) as model:
        with model.context() as first, model.context(wait=0) as second:
            assert np.array_equal(first.run({"a": A, "b": B})["sum"], A + B)
            assert np.array_equal(second.run({"a": B, "b": B})["sum"], 2 * B)
            for wait in (0, 0.01, -5):
                with raises("EF764", "2 contexts") as caught, model.context(wait=wait):
                    pass
                assert caught.type is EnvironmentFault
            for wrong in (float("nan"), "1"):
                with raises("EF101", "wait", repr(wrong)), model.context(wait=wrong):  # type: ignore[arg-type]
                    pass
        with model.context(wait=float("inf")) as again:
            assert np.array_equal(again.run({"a": A, "b": B})["product"], A * B)
        with raises("EF803", "with"):
            first.run({"a": A, "b": B})
        with raises("EF803", "with"):
            _ = second.graph_state


def test_the_only_context_can_be_used_by_who_holds_it(two_inputs: Path) -> None:
    """Whatever a call asks the library for, it asks for it on this context."""
    done = []

    def use() -> None:
        with load(two_inputs) as model, model.context() as context:
            done.append(context.run({"a": A, "b": B})["sum"])

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(20)
    assert np.array_equal(done[0], A + B)


@pytest.mark.parametrize("contexts", [1, 2, 4])
def test_threads_share_a_model(contexts: int, two_inputs: Path) -> None:
    rng = np.random.default_rng(contexts)
    inputs = [rng.normal(size=(1 + index % 3, 3)).astype(np.float32) for index in range(8)]
    with load(two_inputs, contexts=contexts, threads=1) as model:

        def work(index: int) -> int:
            array, right = inputs[index], 0
            for turn in range(100):
                if turn % 10 == 0:
                    with model.context() as context:
                        results = context.run({"a": array, "b": array})
                else:
                    results = model(array, array)
                right += np.array_equal(results["sum"], array + array)
                right += np.array_equal(results["product"], array * array)
            return right

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [200] * 8


def test_a_closed_model_says_so(small_bundle: Path) -> None:
    model = load(small_bundle)
    with model:
        model(images())
    for call in (
        lambda: model(images()),
        lambda: model.predict(pictures()),
        lambda: model.preprocess(pictures()),
        lambda: model.enqueue({"input": images()}),
        lambda: model.context().__enter__(),
    ):
        with raises("EF803", small_bundle / "typed.onnx", "closed"):
            call()
    model.close()
    assert model.describe().labels == CLASSES


def test_a_model_that_is_closed_in_use_is_freed_after_the_use(two_inputs: Path) -> None:
    model = load(two_inputs)
    with model.context() as context:
        model.close()
        assert np.array_equal(context.run({"a": A, "b": B})["sum"], A + B)
        with raises("EF803"):
            model(A, B)
    del model, context

    model = load(two_inputs, contexts=4)
    refused = []

    def work() -> None:
        try:
            for _ in range(10_000):
                assert np.array_equal(model(A, B)["sum"], A + B)
        except InputError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    model.close()
    for thread in threads:
        thread.join()
    assert refused == ["EF803"] * 4


def test_pictures_are_ranked(small_model: Model) -> None:
    given = pictures(40)  # more than one run takes
    logits = OnnxSession(classifier()).run({"input": np.stack([PREPARED(Image.fromarray(one)) for one in given])})
    found = small_model.predict(given)
    for ranked, row in zip(found, logits["logits"], strict=True):
        assert [one.index for one in ranked] == list(np.argsort(-row))
        assert [one.label for one in ranked] == [CLASSES[index] for index in np.argsort(-row)]
        assert sum(one.probability for one in ranked) == pytest.approx(1)
    assert small_model.predict(given[0]) == found[0]
    assert small_model.predict(tuple(given[:1]), top=2) == [found[0][:2]]
    assert small_model.predict([]) == []


def test_the_models_input_is_made_of_pictures(small_model: Model) -> None:
    given = pictures()
    expected = np.stack([PREPARED(Image.fromarray(one)) for one in given])
    assert np.array_equal(small_model.preprocess(given), expected)
    assert np.array_equal(small_model.preprocess(given[0]), expected[:1])


@pytest.mark.parametrize("top", [0, -1, 5, 2**32 + 1, -(2**40)])
def test_more_classes_than_there_are(top: int, small_model: Model) -> None:
    with raises("EF101", "top", len(CLASSES)):
        small_model.predict(pictures(1), top=top)


def test_the_default_is_five_classes(tmp_path: Path) -> None:
    with load(make_bundle(tmp_path / "seven", classifier(7), labels=None)) as model:
        found = model.predict(pictures(1)[0])
    assert len(found) == 5
    assert [one.label for one in found] == [str(one.index) for one in found]


def test_a_model_that_takes_no_pictures(two: Model, tmp_path: Path) -> None:
    for call in (two.predict, two.preprocess):
        with pytest.raises(InputError) as caught:
            call(pictures(1))
        assert caught.value.code in ("EF765", "EF766")
    with load(make_bundle(tmp_path / "b", classifier(), task="features", labels=None)) as model:
        with raises("EF766", "features"):
            model.predict(pictures(1))
        assert model.preprocess(pictures(1)).shape == (1, 3, SIZE, SIZE)


def test_pixels_go_in_as_they_are(tmp_path: Path) -> None:
    model = make_model(
        [
            helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2], keepdims=0),
        ],
        [("input", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [("mean", TensorProto.FLOAT, ["batch", 3])],
        opset=17,
    )
    image = {**{key: IMAGE[key] for key in IMAGE if key not in ("mean", "std")}, "layout": "NHWC"}
    bundle = make_bundle(tmp_path / "b", model, image={**image, "normalization": "none"}, labels=("r", "g", "b"))
    plain = PREPARED.with_normalization("none")
    with load(bundle) as loaded:
        found = loaded.preprocess(pictures())
        assert found.dtype == np.uint8
        expected = np.stack([plain(Image.fromarray(one)) for one in pictures()]).transpose(0, 2, 3, 1)
        assert np.array_equal(found, expected)
        assert loaded.predict(np.full((5, 5, 3), (9, 200, 5), np.uint8))[0].label == "g"


def test_a_shape_that_came_before_is_checked_as_the_first_time(two_inputs: Path) -> None:
    with load(two_inputs) as model:
        first = model(A, B)
        again = model(B, A)
        assert first["sum"] is not again["sum"]
        assert np.array_equal(again["sum"], A + B)
        assert np.array_equal(model(A[:1], B[:1])["product"], (A * B)[:1])
        assert np.array_equal(model(np.asfortranarray(A), B)["product"], A * B)
        assert isinstance(model(torch.from_numpy(A), torch.from_numpy(B))["sum"], torch.Tensor)
        room = np.zeros_like(A)
        assert model.run({"a": A, "b": B}, {"sum": room})["sum"] is room
        with model.context() as context:
            assert np.array_equal(context.run({"b": B, "a": A})["product"], A * B)
        for feeds in ({"a": A}, {"a": A, "b": B, "c": B}, {"a": A, "b": B.astype(np.float16)}):
            with raises("EF802"):
                model.run(feeds)


def test_shapes_without_number_are_not_all_kept(two_inputs: Path) -> None:
    with load(two_inputs) as model:
        for size in range(1, 80):
            x = np.full((size, 3), size, np.float32)
            assert np.array_equal(model(x, x)["sum"], 2 * x)
        assert len(model._plans) == 64
