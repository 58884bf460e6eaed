from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeformer.runtime import Session, TorchSession
from tests.export.conftest import Tiny
from tests.raising import raises


def test_it_is_a_session_with_the_models_outputs(tiny: Tiny) -> None:
    session = TorchSession(tiny, input_size=(6, 8))
    assert isinstance(session, Session)
    assert session.inputs["input"].shape == ("batch", 3, 6, 8)
    assert session.outputs["logits"] == (np.dtype(np.float32), ("batch", 7))
    x = np.random.default_rng(0).standard_normal((3, 3, 6, 8), np.float32)
    tiny.eval()
    with torch.no_grad():
        want = tiny(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(session.run({"input": x})["logits"], want)


def test_it_runs_in_eval_mode_and_restores_the_mode(tiny: Tiny) -> None:
    tiny.train()
    session = TorchSession(tiny, input_size=(6, 8))
    x = np.ones((1, 3, 6, 8), np.float32)
    first, second = session.run({"input": x})["logits"], session.run({"input": x})["logits"]
    np.testing.assert_array_equal(first, second)
    assert tiny.training
    assert tiny.drop.training


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (np.zeros((1, 3, 6, 9), np.float32), "float32 [1, 3, 6, 9]"),
        (np.zeros((1, 3, 6, 8), np.float64), "float64 [1, 3, 6, 8]"),
    ],
)
def test_feeds_that_do_not_fit(tiny: Tiny, x: np.ndarray, got: str) -> None:
    with raises("EF802", "input", "float32 [batch, 3, 6, 8]", got):
        TorchSession(tiny, input_size=(6, 8)).run({"input": x})


def test_a_size_the_model_refuses(tiny: Tiny) -> None:
    with raises("EF204", "5x8"):
        TorchSession(tiny, input_size=(5, 8))


def test_a_closed_session_says_so_and_leaves_the_model(tiny: Tiny) -> None:
    with TorchSession(tiny, input_size=(6, 8)) as session:
        pass
    with raises("EF803", "Tiny"):
        session.run({"input": np.zeros((1, 3, 6, 8), np.float32)})
    session.close()
    assert list(session.outputs) == ["logits"]
    assert TorchSession(tiny, input_size=(6, 8)).run({"input": np.zeros((1, 3, 6, 8), np.float32)})


def test_watching_shows_what_modules_give_and_what_is_chosen(tiny: Tiny) -> None:
    class Choosing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values: torch.Tensor = self.inner(x).topk(2).values
            return values

    x = np.random.default_rng(0).standard_normal((2, 3, 6, 8), np.float32)
    with TorchSession(Choosing(), input_size=(6, 8)) as session:
        assert {"inner", "inner.stem.0", "inner.norm"} < session.modules
        seen: dict[str, np.ndarray] = {}
        chosen = session.watch(x, ["inner", "inner.stem.1"], seen.__setitem__)
        first, indices = chosen[0]
        assert len(chosen) == 1
        np.testing.assert_array_equal(first, seen["inner"])
        np.testing.assert_array_equal(indices, np.argsort(-seen["inner"], axis=1)[:, :2])
        assert seen["inner.stem.1"].shape == (2, 12, 3, 4)
        # Nothing is left behind.
        assert all(not module._forward_hooks for module in tiny.modules())
    with raises("EF803", "Choosing"):
        session.watch(x, [], seen.__setitem__)
    with raises("EF803", "Choosing"):
        _ = session.modules


def test_watching_with_feeds_that_do_not_fit(tiny: Tiny) -> None:
    with TorchSession(tiny, input_size=(6, 8)) as session, raises("EF802", "input"):
        session.watch(np.zeros((1, 3, 6, 9), np.float32), [], lambda name, value: None)
