"""Checkpoints load whole or not at all, and whatever is wrong with one is said at once."""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgeformer.models import create_model, load_checkpoint
from edgeformer.models.biformer import BiFormer
from edgeformer.models.checkpoint import read_state_dict
from tests.raising import raises

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 40), "head_dim": 8}


def _model(seed: int, **overrides: Any) -> BiFormer:
    torch.manual_seed(seed)
    return create_model("biformer_nano", **SMALL | overrides)


@pytest.fixture
def trained() -> BiFormer:
    return _model(1)


def _assert_loads(path: Path, trained: BiFormer) -> None:
    model = _model(2)
    assert not torch.equal(model.state_dict()["head.weight"], trained.state_dict()["head.weight"])
    load_checkpoint(model, path)
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("wrap", ["bare", "model", "state_dict", "module.", "training"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".PTH"])
def test_torch_files(trained: BiFormer, tmp_path: Path, wrap: str, suffix: str) -> None:
    state = trained.state_dict()
    content: Any = {
        "bare": state,
        "model": {"model": state, "epoch": 3},
        "state_dict": {"state_dict": OrderedDict(state), "meta": {"classes": ["a", "b"]}},
        "module.": {f"module.{name}": value for name, value in state.items()},
        "training": {"model": state, "optimizer": {"step": 5}, "args": argparse.Namespace(lr=0.1)},
    }[wrap]
    path = tmp_path / f"weights{suffix}"
    torch.save(content, path)
    _assert_loads(path, trained)


def test_the_old_torch_format(trained: BiFormer, tmp_path: Path) -> None:
    torch.save({"model": trained.state_dict()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    _assert_loads(tmp_path / "old.pth", trained)


def test_safetensors(trained: BiFormer, tmp_path: Path) -> None:
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    _assert_loads(tmp_path / "weights.safetensors", trained)


def test_half_precision_weights_become_float32(trained: BiFormer, tmp_path: Path) -> None:
    half = {name: v.half() if v.is_floating_point() else v for name, v in trained.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    model = _model(2)
    load_checkpoint(model, tmp_path / "half.safetensors")
    loaded = model.state_dict()["head.weight"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, trained.state_dict()["head.weight"].half().float())


def test_a_backbone_is_taken_out_of_a_segmentor(tmp_path: Path) -> None:
    trained = _model(1, dense=True, num_classes=0)
    content = {f"backbone.{name}": value for name, value in trained.state_dict().items()}
    content["decode_head.conv_seg.weight"] = torch.zeros(150, 8)
    torch.save({"state_dict": content}, tmp_path / "segmentor.pth")
    model = _model(2, dense=True, num_classes=0)
    load_checkpoint(model, tmp_path / "segmentor.pth")
    assert torch.equal(model.state_dict()["extra_norms.3.weight"], trained.state_dict()["extra_norms.3.weight"])
    assert torch.equal(
        model.state_dict()["stages.3.0.attn.qkv.weight"], trained.state_dict()["stages.3.0.attn.qkv.weight"]
    )
    # A classifier takes no prefix but module.: for it those keys are just wrong.
    with raises("EF208", tmp_path / "segmentor.pth", "backbone."):
        load_checkpoint(_model(2), tmp_path / "segmentor.pth")


def _check_refusal(path: Path, code: str, *values: object) -> str:
    """The message of a checkpoint that is refused, after the checks that it names the values and nothing was loaded."""
    model = _model(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with raises(code, path, *values) as caught:
        load_checkpoint(model, path)
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), f"{name} was changed by a checkpoint that was refused"
    return str(caught.value)


def test_everything_wrong_is_listed_at_once(trained: BiFormer, tmp_path: Path) -> None:
    state = dict(trained.state_dict())
    del state["head.bias"]
    state["neck.weight"] = torch.zeros(3)
    state["head.weight"] = torch.zeros(7, 40)
    state["norm.weight"] = torch.zeros(40, dtype=torch.int64)
    state["norm.bias"] = torch.full((40,), float("nan"))
    torch.save(state, tmp_path / "wrong.pth")
    message = _check_refusal(tmp_path / "wrong.pth", "EF208", "num_classes")
    faults = [line for line in message.splitlines() if line.startswith("  - ")]
    assert len(faults) == 5
    for fault, values in zip(
        faults,
        (
            ("head.bias",),
            ("neck.weight",),
            ("head.weight", "[7, 40]", "[10, 40]"),
            ("norm.weight", "torch.int64", "torch.float32"),
            ("norm.bias", "NaN"),
        ),
        strict=True,
    ):
        assert all(value in fault for value in ("1 ", *values))


def test_long_lists_are_cut(tmp_path: Path) -> None:
    torch.save({f"layer{i:03d}": torch.zeros(1) for i in range(100)}, tmp_path / "other.pth")
    message = _check_refusal(tmp_path / "other.pth", "EF208", "100 ", "layer000, layer001", "layer007, and 92 more")
    assert "layer008" not in message
    assert len(message) < 1500


class _Harmful:
    """Creates a file when a pickle of it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.target), "w"))


def test_code_in_a_pickle_is_never_run(trained: BiFormer, tmp_path: Path) -> None:
    path = tmp_path / "harmful.pth"
    torch.save({"model": trained.state_dict(), "extra": _Harmful(tmp_path / "harm")}, path)
    _check_refusal(path, "EF207", "open", "torch.save({'model': checkpoint['model']}")
    assert not (tmp_path / "harm").exists()


def test_a_whole_model_in_a_pickle_is_refused(trained: BiFormer, tmp_path: Path) -> None:
    torch.save(trained, tmp_path / "model.pt")
    _check_refusal(tmp_path / "model.pt", "EF207", "edgeformer.models.biformer.BiFormer")


@pytest.mark.parametrize("keep", [0, 10, 1000, -1000])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_truncated_files(trained: BiFormer, tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(trained.state_dict(), path)
    else:
        save_file(trained.state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    _check_refusal(path, "EF206")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_files_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 50)
    _check_refusal(tmp_path / name, "EF206")


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ({}, ("no tensors",)),
        ({"model": {}}, ("no tensors",)),
        ([1, 2], ("a list",)),
        (torch.zeros(3), ("a Tensor",)),
        ({"epoch": 3, "loss": 0.1}, ("epoch is a int, loss is a float", "'model' or 'state_dict'")),
        ({3: torch.zeros(1)}, ("3 is not a parameter name",)),
    ],
)
def test_files_without_a_state_dict(tmp_path: Path, content: Any, values: tuple[str, ...]) -> None:
    torch.save(content, tmp_path / "x.pth")
    _check_refusal(tmp_path / "x.pth", "EF205", *values)


def test_paths_that_are_not_a_checkpoint(tmp_path: Path) -> None:
    _check_refusal(tmp_path / "nothing.pth", "EF102", "no such file")
    _check_refusal(tmp_path, "EF102", "folder")
    for name in ("weights.ckpt", "weights"):
        (tmp_path / name).write_bytes(b"x")
        _check_refusal(tmp_path / name, "EF205", ".safetensors, .pth or .pt")


def test_a_pickle_does_not_pass_for_safetensors(trained: BiFormer, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "x.safetensors")
    _check_refusal(tmp_path / "x.safetensors", "EF206", "safetensors file")


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with raises("EF601", "pip install 'edgeformer[export]'"):
        read_state_dict(tmp_path / "x.safetensors")
