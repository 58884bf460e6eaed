"""Checkpoints load whole or not at all, and whatever is wrong with one is said at once."""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeformer.errors import InputError
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


def _head(model: BiFormer) -> torch.Tensor:
    found: torch.Tensor = model.state_dict()["head.weight"]
    return found


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


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model.backbone.", "module.model._orig_mod."],
)
def test_prefixes_of_wrappers_are_taken_off(trained: BiFormer, tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in trained.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.ckpt")
    _assert_loads(tmp_path / "wrapped.ckpt", trained)


@pytest.mark.parametrize(
    "name", ["model_best.pth.tar", "last.ckpt", "pytorch_model.bin", "W.PTH", "Best.Pth.Tar", "epoch.tar", "w.th"]
)
def test_names_under_which_tools_save(trained: BiFormer, tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": trained.state_dict()}, tmp_path / name)
    _assert_loads(tmp_path / name, trained)


@pytest.mark.parametrize(
    "keys",
    [
        ("model_state_dict",),
        ("net",),
        ("weights",),
        ("module",),
        ("state", "model"),
        ("model", "state_dict"),
        ("params",),
    ],
)
def test_containers(trained: BiFormer, tmp_path: Path, keys: tuple[str, ...]) -> None:
    content: Any = trained.state_dict()
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "x.pth")
    if keys[0] == "state":  # no usual key: it has to be named
        model = _model(2)
        assert load_checkpoint(model, tmp_path / "x.pth", key="state.model") == "state.model"
        assert torch.equal(_head(model), _head(trained))
        return
    _assert_loads(tmp_path / "x.pth", trained)
    assert load_checkpoint(_model(2), tmp_path / "x.pth") == ".".join(keys)


def test_averaged_model(trained: BiFormer, tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(trained)
    torch.save(averaged.state_dict(), tmp_path / "averaged.pth")
    assert "n_averaged" in averaged.state_dict()
    _assert_loads(tmp_path / "averaged.pth", trained)


def test_numpy_beside_the_weights_is_thrown_away(trained: BiFormer, tmp_path: Path) -> None:
    figures = [np.float64(91.2), np.float32(1), np.int64(3), np.bool_(True), np.arange(3), np.zeros((2, 2), "f4", "F")]
    figures += [np.dtype("f8"), np.array(["a"]), np.array([{"a": 1}], object), np.str_("x")]
    torch.save({"model": trained.state_dict(), "figures": figures}, tmp_path / "numpy.pth")
    _assert_loads(tmp_path / "numpy.pth", trained)


class _Forged:
    """Pickles as a call of NumPy's with arguments that would take all memory, or hold another object."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return (np.zeros(1).__reduce__()[0], self.arguments)


def test_numpy_in_a_pickle_is_never_called(trained: BiFormer, tmp_path: Path) -> None:
    path = tmp_path / "forged.pth"
    torch.save({"model": trained.state_dict(), "x": _Forged(np.ndarray, (2**50,), "d")}, path)
    _assert_loads(path, trained)
    torch.save({"model": trained.state_dict(), "x": _Forged(_Harmful(tmp_path / "harm"))}, path)
    _check_refusal(path, "EF207", "open")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("average", ["model_ema", "state_dict_ema", "ema", "ema_state_dict"])
def test_an_average_beside_the_weights_is_told(
    trained: BiFormer, tmp_path: Path, average: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = {f"module.{name}": torch.zeros_like(value) for name, value in trained.state_dict().items()}
    path = tmp_path / "both.pth"
    torch.save({average: other, "model": trained.state_dict()}, path)
    _assert_loads(path, trained)
    assert all(word in caplog.text for word in (str(path), "'model' is taken", average, "--checkpoint-key"))
    caplog.clear()
    model = _model(2)
    assert load_checkpoint(model, path, key=average) == average
    assert not _head(model).any()
    assert caplog.text == ""
    torch.save({average: trained.state_dict()}, path)
    _assert_loads(path, trained)


def test_an_average_below_a_prefix_is_told(trained: BiFormer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {f"model.{name}": value for name, value in trained.state_dict().items()}
    state |= {f"model_ema.module.{name}": torch.zeros_like(value) for name, value in trained.state_dict().items()}
    path = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": state}, path)
    _assert_loads(path, trained)
    assert "'model.' is taken, not 'model_ema.module.'" in caplog.text
    model = _model(2)
    load_checkpoint(model, path, key="model_ema")
    assert not _head(model).any()


def test_a_key_that_is_not_there(trained: BiFormer, tmp_path: Path) -> None:
    torch.save({"model": trained.state_dict(), "optimizer": {"lr": 1}}, tmp_path / "x.pth")
    with raises("EF263", tmp_path / "x.pth", "'nothing'", "model, optimizer"):
        load_checkpoint(_model(2), tmp_path / "x.pth", key="nothing")
    with raises("EF205", tmp_path / "x.pth", "lr is a int"):
        load_checkpoint(_model(2), tmp_path / "x.pth", key="optimizer")


def test_tensors_beside_a_prefix_are_named(trained: BiFormer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {f"model.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(10)}}, tmp_path / "x.ckpt")
    _assert_loads(tmp_path / "x.ckpt", trained)
    assert "criterion.weight" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_checkpoints_of_one_type(trained: BiFormer, tmp_path: Path, dtype: torch.dtype) -> None:
    """Counters too: those of a half checkpoint are rounded, or infinite, and decide nothing."""
    counters = [name for name in trained.state_dict() if name.endswith("num_batches_tracked")]
    assert counters
    state = {name: value.to(dtype) for name, value in trained.state_dict().items()}
    state[counters[0]] = torch.tensor(float("inf")).to(dtype)
    del state[counters[-1]]
    torch.save(state, tmp_path / "x.pth")
    model = _model(2)
    load_checkpoint(model, tmp_path / "x.pth")
    assert torch.equal(_head(model), _head(trained).to(dtype).float())
    assert model.state_dict()[counters[0]].dtype == torch.int64
    assert model.state_dict()[counters[0]] == 0


def test_nan_is_named_without_advice_on_classes(trained: BiFormer, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    state["norm.weight"][3] = float("inf")
    torch.save(state, tmp_path / "nan.pth")
    message = _check_refusal(tmp_path / "nan.pth", "EF261", "norm.weight", "NaN or infinity in 1 of")
    assert "num_classes" not in message


def _with(trained: BiFormer, value: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**trained.state_dict(), "head.weight": value}


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda weight: weight.to_sparse(), "torch.sparse_coo"),
        (lambda weight: weight.to_sparse_csr(), "torch.sparse_csr"),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "quantized"),
        (lambda weight: weight.to("meta"), "without values"),
    ],
    ids=["coo", "csr", "quantized", "meta"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_dense(trained: BiFormer, tmp_path: Path, make: Any, value: str) -> None:
    torch.save(_with(trained, make(_head(trained))), tmp_path / "x.pth")
    message = _check_refusal(tmp_path / "x.pth", "EF262", "head.weight", value)
    assert "\n" not in message


def test_sizes_that_are_only_claimed(trained: BiFormer, tmp_path: Path) -> None:
    torch.save(_with(trained, torch.zeros(1).expand(2**20, 2**20)), tmp_path / "x.pth")
    _check_refusal(tmp_path / "x.pth", "EF208", "head.weight", "[1048576, 1048576]")


def test_archives_that_unpack_to_more_than_they_hold(trained: BiFormer, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as source, zipfile.ZipFile(tmp_path / "y.pth", "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info), zipfile.ZIP_DEFLATED)
        target.writestr("archive/data/bomb", bytes(1 << 24), zipfile.ZIP_DEFLATED)
    _check_refusal(tmp_path / "y.pth", "EF206", "would unpack to")


@pytest.mark.parametrize(
    "header",
    [
        '{"head.weight":{"dtype":"F32","shape":[1048576,1048576],"data_offsets":[0,4398046511104]}}',
        '{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % ("9" * 5000),
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}',
        "[" * 100_000,
        '{"__metadata__":{"a":1}}',
        "\udc80",
    ],
    ids=lambda text: text[:40],
)
def test_safetensors_headers_that_lie(tmp_path: Path, header: str) -> None:
    content = header.encode(errors="surrogateescape")
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(8))
    model = _model(2)
    with pytest.raises(InputError) as caught:
        load_checkpoint(model, path)
    assert caught.value.code in ("EF206", "EF208")
    assert len(str(caught.value)) < 2500


def test_safetensors_length_that_lies(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    _check_refusal(tmp_path / "x.safetensors", "EF206")


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
    for name in ("weights.onnx", "weights"):
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
