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

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.models import create_model, load_checkpoint
from edgeformer.models.biformer import BiFormer
from edgeformer.models.checkpoint import read_state_dict

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
    with pytest.raises(InputError, match="not in the model: backbone"):
        load_checkpoint(_model(2), tmp_path / "segmentor.pth")


def _message(path: Path, model: BiFormer) -> str:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_checkpoint(model, path)
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), f"{name} was changed by a checkpoint that was refused"
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_everything_wrong_is_listed_at_once(trained: BiFormer, tmp_path: Path) -> None:
    state = dict(trained.state_dict())
    del state["head.bias"]
    state["neck.weight"] = torch.zeros(3)
    state["head.weight"] = torch.zeros(7, 40)
    state["norm.weight"] = torch.zeros(40, dtype=torch.int64)
    state["norm.bias"] = torch.full((40,), float("nan"))
    torch.save(state, tmp_path / "wrong.pth")
    message = _message(tmp_path / "wrong.pth", _model(2))
    assert "1 missing: head.bias" in message
    assert "1 not in the model: neck.weight" in message
    assert "1 of another shape: head.weight is [7, 40], the model has [10, 40]" in message
    assert "1 of another type: norm.weight is torch.int64, the model has torch.float32" in message
    assert "1 with NaN or infinity: norm.bias" in message


def test_long_lists_are_cut(tmp_path: Path) -> None:
    torch.save({f"layer{i:03d}": torch.zeros(1) for i in range(100)}, tmp_path / "other.pth")
    message = _message(tmp_path / "other.pth", _model(2))
    assert "100 not in the model: layer000, layer001" in message
    assert "layer007, and 92 more" in message
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
    message = _message(path, _model(2))
    assert "holds a Python object" in message
    assert "open" in message
    assert not (tmp_path / "harm").exists()
    assert "torch.save({'model': checkpoint['model']}" in message


def test_a_whole_model_in_a_pickle_is_refused(trained: BiFormer, tmp_path: Path) -> None:
    torch.save(trained, tmp_path / "model.pt")
    assert "holds a Python object, edgeformer.models.biformer.BiFormer" in _message(tmp_path / "model.pt", _model(2))


@pytest.mark.parametrize("keep", [0, 10, 1000, -1000])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_truncated_files(trained: BiFormer, tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(trained.state_dict(), path)
    else:
        save_file(trained.state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "damaged or truncated?" in _message(path, _model(2))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_files_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 50)
    assert "that can be read (damaged or truncated?)" in _message(tmp_path / name, _model(2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors"),
        ({"model": {}}, "holds no tensors"),
        ([1, 2], "holds a list; expected is a state dict"),
        (torch.zeros(3), "holds a Tensor; expected is a state dict"),
        ({"epoch": 3, "loss": 0.1}, "is no state dict: epoch is a int, loss is a float. Expected are tensors"),
        ({3: torch.zeros(1)}, "is no state dict: 3 is no parameter name"),
    ],
)
def test_files_that_are_no_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    assert message in _message(tmp_path / "x.pth", _model(2))


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    assert "no such file" in _message(tmp_path / "nothing.pth", _model(2))
    assert "it is a folder" in _message(tmp_path, _model(2))
    for name in ("weights.ckpt", "weights"):
        (tmp_path / name).write_bytes(b"x")
        assert "a checkpoint is a .safetensors, .pth or .pt file" in _message(tmp_path / name, _model(2))


def test_a_pickle_does_not_pass_for_safetensors(trained: BiFormer, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "x.safetensors")
    assert "is no safetensors file" in _message(tmp_path / "x.safetensors", _model(2))


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'edgeformer\[export\]'"):
        read_state_dict(tmp_path / "x.safetensors")
