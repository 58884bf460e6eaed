from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.errors import InputError
from edgeformer.verify import Form, RoutingOutput
from edgeformer.verify.forms import OpenForm
from edgeformer.verify.recording import Store
from edgeformer.verify.run import Run
from tests.raising import raises
from tests.verify.conftest import FunctionSession, Labelled, images, linear_model

ROUTING = (RoutingOutput("routing", None, 0),)


def run(forms: list[Form], source: Any, limit: int = 1 << 20, progress: Any = None) -> Run:
    with Store(limit) as store:
        done = Run(source, store, progress)
        for form in forms:
            done.add(form, last=form is forms[-1])
    return done


def times(factor: float, **options: Any) -> FunctionSession:
    return FunctionSession(lambda x: x * np.float32(factor), **options)


def test_one_form_is_open_at_a_time() -> None:
    now: list[str] = []
    seen: list[list[str]] = []

    def form(name: str) -> Form:
        @contextmanager
        def opener() -> Iterator[OpenForm]:
            now.append(name)
            seen.append(list(now))
            yield OpenForm(times(1.0), ("logits",))
            now.remove(name)

        return Form(name, None, opener)

    done = run([form("a"), form("b"), form("c")], [images(2), images(3)])
    assert seen == [["a"], ["b"], ["c"]]
    assert now == []
    assert [result.samples for result in done.results] == [5, 5, 5]


@pytest.mark.parametrize("limit", [1 << 20, 100, 0])
def test_every_form_is_compared_with_the_first_and_the_one_before(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    forms = [Form.from_session(str(factor), times(factor)) for factor in (1.0, 2.0, 4.0, 5.0)]
    done = run(forms, [images(3), images(2, seed=1)], limit)
    peak = max(float(np.abs(x).max()) for x in (images(3), images(2, seed=1)))
    assert [sorted(result.pairs) for result in done.results] == [[], [0], [0, 1], [0, 2]]
    figures = {
        (a, b): done.results[b].pairs[a].figures()["logits"] for a, b in ((0, 1), (0, 2), (1, 2), (0, 3), (2, 3))
    }
    assert {pair: found.max_abs for pair, found in figures.items()} == {
        pair: pytest.approx(difference * peak)
        for pair, difference in {(0, 1): 1, (0, 2): 3, (1, 2): 2, (0, 3): 4, (2, 3): 1}.items()
    }
    assert all(found.samples == 5 for found in figures.values())
    assert list(tmp_path.iterdir()) == []


def test_what_no_form_needs_any_more_is_dropped() -> None:
    """Kept are the first form and the last, whole, and the routing of the first that shows it."""

    def routed(name: str) -> Form:
        session = FunctionSession(
            lambda x: {"logits": x, "routing": np.zeros((len(x), 4, 1), int)}, outputs=("logits", "routing")
        )
        return Form.from_session(name, session, routing=ROUTING)

    forms = [
        Form.from_session("pytorch", times(1.0)),
        routed("exported"),
        routed("fused"),
        Form.from_session("engine", times(1.0)),
        routed("typed"),
    ]
    with Store() as store:
        done = Run([images(2)], store)
        kept = []
        for form in forms:
            done.add(form)
            kept.append({index: sorted(recording[0]) for index, recording in done._kept.items() if recording[0]})
    both = ["logits", "routing"]
    assert kept[1:] == [
        {0: ["logits"], 1: both},
        {0: ["logits"], 1: ["routing"], 2: both},
        {0: ["logits"], 1: ["routing"], 2: ["routing"], 3: ["logits"]},
        {0: ["logits"], 1: ["routing"], 4: both},
    ]
    typed = done.results[4]
    assert sorted(typed.pairs) == [0, 1, 2, 3]
    assert [typed.pairs[other].routing() is not None for other in range(4)] == [False, True, True, False]
    assert list(typed.pairs[3].figures()) == ["logits"]
    assert typed.pairs[2].figures() == {}


def test_a_generator_is_kept_for_the_next_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = times(1.0)
    source = (Labelled(images(2, seed=index), np.zeros(2, int)) for index in range(3))
    done = run([Form.from_session("a", times(1.0)), Form.from_session("b", session)], source, limit=0)
    assert session.sizes == [2, 2, 2]
    assert done.results[1].pairs[0].figures()["logits"].max_abs == 0.0
    assert done.labelled


@pytest.mark.parametrize("called", [False, True])
def test_a_list_or_a_function_is_read_again(called: bool) -> None:
    given = [images(2), images(0), images(3)]
    calls: list[int] = []

    def source() -> Iterator[np.ndarray]:
        calls.append(1)
        yield from given

    sessions = [times(1.0), times(2.0), times(3.0)]
    run([Form.from_session(str(index), s) for index, s in enumerate(sessions)], source if called else given)
    assert [session.sizes for session in sessions] == [[2, 3]] * 3
    assert len(calls) == (3 if called else 0)


def shuffled() -> Callable[[], Iterator[np.ndarray]]:
    seeds = iter(range(10))
    return lambda: iter([images(2), images(2, seed=next(seeds))])


def shrinking() -> Callable[[], Iterator[np.ndarray]]:
    counts = iter([3, 2])
    return lambda: iter([images(2)] * next(counts))


def growing() -> Callable[[], Iterator[np.ndarray]]:
    counts = iter([1, 2])
    return lambda: iter([images(2)] * next(counts))


@pytest.mark.parametrize(("source", "batch"), [(shuffled, 2), (shrinking, 3), (growing, 2)])
def test_batches_that_change_are_no_comparison(source: Callable[[], Any], batch: int) -> None:
    with raises("EF816", f"batch {batch}", "shuffling"):
        run([Form.from_session("a", times(1.0)), Form.from_session("b", times(1.0))], source())


def test_an_error_of_the_data_is_not_the_forms() -> None:
    def source() -> Iterator[np.ndarray]:
        yield images(2)
        raise InputError("EF405", "cat.png cannot be read")

    with raises("EF405", "cat.png") as caught:
        run([Form.from_session("a", times(1.0))], source)
    assert "form" not in str(caught.value)


@pytest.mark.parametrize("fixed", [4, 3])
def test_a_fixed_batch_is_filled_up_and_the_copies_are_dropped(fixed: int) -> None:
    free, bound = times(1.0), times(1.0, batch=fixed)
    forms = [Form.from_session("free", free), Form.from_session("fixed", bound)]
    done = run(forms, [images(7), images(4)])
    assert free.sizes == [7, 4]
    assert bound.sizes == [fixed] * {4: 3, 3: 5}[fixed]
    figures = done.results[1].pairs[0].figures()["logits"]
    assert (figures.samples, figures.max_abs) == (11, 0.0)


def test_forms_that_fix_different_batches() -> None:
    forms = [Form.from_onnx(str(batch), linear_model(np.eye(3), batch=batch)) for batch in (2, 3)]
    assert run(forms, [images(5)]).results[1].pairs[0].figures()["logits"].max_abs == 0.0


def test_progress_counts_samples_by_form() -> None:
    told: list[tuple[str, int, int | None]] = []
    forms = [Form.from_session(name, times(1.0)) for name in "ab"]
    run(forms, [images(2), images(3)], progress=lambda *arguments: told.append(arguments))
    assert told == [("a", 0, None), ("a", 2, None), ("a", 5, None), ("b", 0, 5), ("b", 2, 5), ("b", 5, 5)]


def test_batches_are_streamed() -> None:
    read: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for index in range(3):
            read.append(index)
            yield images(2, seed=index)

    seen: list[int] = []
    run([Form.from_session("a", times(1.0))], source, progress=lambda *_: seen.append(len(read)))
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("give", "shape"),
    [
        (lambda x: x[:1], [1, 3]),
        (lambda x: np.float32(1.0), []),
    ],
)
def test_an_output_without_a_row_for_each_sample(give: Callable[[np.ndarray], np.ndarray], shape: list[int]) -> None:
    with raises("EF817", "form 'a'", "'logits'", shape, "2 samples"):
        run([Form.from_session("a", FunctionSession(give))], [images(2)])


def test_a_scalar_of_a_form_with_a_fixed_batch() -> None:
    session = FunctionSession(lambda x: np.float32(1.0), batch=2, rank=0)
    session.outputs["logits"] = session.outputs["logits"]._replace(shape=())
    with raises("EF817", "'logits'", "[]"):
        run([Form.from_session("a", session)], [images(2)])
    assert session.sizes == []


def test_names_are_compared_before_the_form_runs() -> None:
    session = FunctionSession(lambda x: {"other": x}, outputs=("other",))
    with raises("EF811", "form 'b'", "'logits'"):
        run([Form.from_session("a", times(1.0)), Form.from_session("b", session)], [images(2)])
    assert session.sizes == []


def test_a_form_that_fails_is_closed_and_keeps_the_code_of_its_error() -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise InputError("EF123", "no such luck")

    session = FunctionSession(fail)
    with raises("EF123", "form 'a'", "no such luck"):
        run([Form.from_session("a", session, close=True)], [images(2)])
    assert session.closed


def test_types_are_checked_before_the_form_runs() -> None:
    session = times(1.0)
    session.outputs["logits"] = session.outputs["logits"]._replace(dtype=np.dtype("O"))
    with raises("EF807", "form 'a'", "'logits'", "object"):
        run([Form.from_session("a", session)], [images(2)])
    assert session.sizes == []


def test_labels_that_are_no_row_for_each_image() -> None:
    for labels in (np.zeros(3, int), np.zeros(2), np.int64(1)):
        with raises("EF412", labels.dtype.name, [2, 3]):
            run([Form.from_session("a", times(1.0))], [Labelled(images(2), np.asarray(labels))])
