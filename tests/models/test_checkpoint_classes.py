"""Names of classes in checkpoints, as training scripts and libraries save them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeformer.models import checkpoint_labels
from tests.raising import raises

WEIGHTS = {"weight": torch.zeros(2)}
NAMES = ["tench", "goldfish", "shark"]
LABELS = tuple(NAMES)


@pytest.mark.parametrize(
    "beside",
    [
        {"class_names": NAMES},
        {"classes": tuple(NAMES)},
        {"id2label": dict(enumerate(NAMES))},
        {"config": {"id2label": {str(index): name for index, name in enumerate(NAMES)}}},
        {"class_to_idx": {"shark": 2, "tench": 0, "goldfish": 1}},
        {"idx_to_class": {2: "shark", 0: "tench", 1: "goldfish"}},
        {"meta": {"CLASSES": NAMES}},
        {"hyper_parameters": {"class_names": NAMES, "lr": 0.1}},
        {"classes": 3, "meta": {"CLASSES": NAMES}},
    ],
)
def test_they_are_found(beside: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, **beside}, tmp_path / "c.pth")
    assert checkpoint_labels(tmp_path / "c.pth", 3) == LABELS


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS, "args": argparse.Namespace(classes=NAMES), "meta": None},
        {"model": WEIGHTS, "classes": 3, "class_names": None, "id2label": {}},
    ],
)
def test_most_checkpoints_have_none(content: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(content, tmp_path / "c.pth")
    assert checkpoint_labels(tmp_path / "c.pth", 3) is None
    assert caplog.records == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["crane", "ship", "crane"], "'crane' is there twice"),
        (["a", "", "c"], "class 1 has no name"),
        ([1, 2, 3], "neither a list of names"),
        ({"a": 0, "b": 1, "c": 1}, "two names have the same index"),
        ({(0, 1): "a"}, "0 to 0"),
    ],
)
def test_what_names_no_classes_is_left_aside_with_a_warning(
    value: Any, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": WEIGHTS, "class_names": value}, tmp_path / "c.pth")
    assert checkpoint_labels(tmp_path / "c.pth", 3) is None
    (record,) = caplog.records
    assert words in record.getMessage()
    assert "class_names" in record.getMessage()


def test_names_of_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "meta": {"CLASSES": NAMES}}, tmp_path / "c.pth")
    with raises("EF843", "names 3 classes", "meta.CLASSES", "has 10", "--labels"):
        checkpoint_labels(tmp_path / "c.pth", 10)


def test_safetensors_keep_them_in_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for metadata, labels in (
        ({"format": "pt", "class_names": json.dumps(NAMES)}, LABELS),
        ({"id2label": json.dumps(dict(enumerate(NAMES)))}, LABELS),
        ({"class_names": "tench, goldfish"}, None),
        (None, None),
    ):
        save_file(WEIGHTS, path, metadata=metadata)
        assert checkpoint_labels(path, 3) == labels
    path.write_bytes(b"damaged")
    assert checkpoint_labels(path, 3) is None  # loading the weights says what is wrong
    np.save(tmp_path / "c.npy", np.zeros(1))
    assert checkpoint_labels(tmp_path / "c.npy", 3) is None


def test_labels_of_a_safetensors_file_need_no_torch(tmp_path: Path) -> None:
    """A build whose stages are all reused reads them, too: importing torch takes longer than all that it does."""
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"class_names": '["a", "b"]'})
    probe = (
        "import sys\nfrom edgeformer.models import checkpoint_labels\n"
        f"print(checkpoint_labels({str(path)!r}, 2), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "('a', 'b') False"
