"""Where regions look is kept of the forms that were watched, and shown of the image on which they differ most."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeformer.pipeline.stages._watching import RoutingWatch
from edgeformer.records.routing import RoutedQuery
from edgeformer.verify import Form, RoutingOutput, verify_forms
from tests.present import present
from tests.verify.conftest import FunctionSession, images

Routing = npt.NDArray[np.int64]


def form(name: str, *routing: Routing, stages: tuple[int | None, ...] = (0, 1)) -> Form:
    """A form that routes the first image of each batch as given, and every other one to region 0."""

    def run(x: np.ndarray) -> dict[str, np.ndarray]:
        given = {"logits": x}
        for number, first in enumerate(routing):
            given[f"routing{number}"] = np.zeros((len(x), *first.shape), np.int64)
            given[f"routing{number}"][0] = first
        return given

    shown = tuple(RoutingOutput(f"routing{number}", stages[number], number) for number in range(len(routing)))
    session = FunctionSession(run, outputs=("logits", *(output.name for output in shown)))
    return Form.from_session(name, session, routing=shown)


def watched(first: Form, second: Form) -> RoutingWatch:
    watch = RoutingWatch()
    verify_forms([watch.over(first), watch.over(second)], [images(3), images(2)])
    return watch


def neighbours(side: int, topk: int) -> Routing:
    regions = side * side
    return (np.arange(regions)[:, None] + np.arange(topk)) % regions


def test_the_middle_and_the_region_that_differs_most() -> None:
    want, have = neighbours(4, 3), neighbours(4, 3)
    have[2] = (9, 10, 2)
    have[5] = (5, 6, 11)
    picture = present(watched(form("exported", want), form("typed", have)).picture("exported", "typed", 5))
    (block,) = picture.blocks
    assert (picture.sample, block.stage, block.block, block.side, block.changed) == (0, 0, 0, 4, 2)
    assert block.queries == (
        RoutedQuery(region=10, reference=(10, 11, 12), typed=(10, 11, 12)),
        RoutedQuery(region=2, reference=(2, 3, 4), typed=(2, 9, 10)),
    )


def test_the_order_of_the_regions_is_no_difference() -> None:
    want = neighbours(4, 3)
    (block,) = present(
        watched(form("exported", want), form("typed", want[:, ::-1])).picture("exported", "typed", 5)
    ).blocks
    assert block.changed == 0
    assert [query.region for query in block.queries] == [10, 5]


def test_of_each_stage_the_block_that_changes_most() -> None:
    want, one, two = neighbours(3, 2), neighbours(3, 2), neighbours(3, 2)
    one[0], two[:4] = (7, 8), (7, 8)
    for stages, blocks in (((0, 0), [1]), ((0, 1), [0, 1]), ((None, None), [1])):
        watch = watched(form("exported", want, want, stages=stages), form("typed", one, two, stages=stages))
        picture = present(watch.picture("exported", "typed", 5))
        assert [block.block for block in picture.blocks] == blocks


def test_the_image_on_which_they_differ_most() -> None:
    """Of those that count: what comes behind them may be copies that fill up a fixed batch."""
    want = neighbours(3, 2)
    first, second = want.copy(), want.copy()
    first[0], second[:3] = (7, 8), (7, 8)

    def routed(name: str, batches: list[Routing]) -> Form:
        given = iter(batches)
        session = FunctionSession(
            lambda x: {"logits": x, "routing": np.stack([next(given) for _ in x])}, outputs=("logits", "routing")
        )
        return Form.from_session(name, session, routing=(RoutingOutput("routing", 0, 0),))

    watch = RoutingWatch()
    forms = [routed("exported", [want] * 4), routed("typed", [want, first, want, second])]
    verify_forms([watch.over(form) for form in forms], [images(2), images(2, seed=1)])
    for count, sample, changed in ((4, 3, 3), (3, 1, 1), (1, 0, 0)):
        picture = present(watch.picture("exported", "typed", count))
        assert (picture.sample, picture.blocks[0].changed) == (sample, changed)


def test_what_cannot_be_drawn_is_left_out() -> None:
    everywhere, no_square = neighbours(2, 4), neighbours(2, 2)[:3]
    for routing in ((everywhere,), (no_square,), ()):
        assert watched(form("exported", *routing), form("typed", *routing)).picture("exported", "typed", 5) is None
    assert RoutingWatch().picture("exported", "typed", 5) is None
