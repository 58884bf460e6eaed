"""A bundle's folder with the manifest of the documented example in it, edited as a test likes, and recorded inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.bundle import Manifest, read_manifest
from edgeformer.report.page import Subject

EXAMPLE = Path(__file__).parents[2] / "docs" / "manifest.example.json"
Document = dict[str, Any]
Edit = Callable[[Document], None]
SIZE = 112


def stage(document: Document, name: str) -> Document:
    """The record of a stage in a manifest."""
    found: Document = next(stage for stage in document["stages"] if stage["name"] == name)
    return found


def add_file(document: Document, folder: Path, name: str, content: bytes) -> None:
    """Put a file into a bundle."""
    (folder / name).write_bytes(content)
    document["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def make_bundle(folder: Path, edit: Edit | None = None) -> Path:
    """A bundle that can be opened: of its files only ``parity.npz`` holds what its name says."""
    folder.mkdir(parents=True)
    document = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    for name in document["files"]:
        add_file(document, folder, name, name.encode())
    ramp = np.linspace(-2, 2, 8 * 3 * SIZE * SIZE, dtype=np.float32).reshape(8, 3, SIZE, SIZE)
    with (folder / "parity.npz").open("wb") as file:
        arrays: dict[str, Any] = {"input:input": ramp, "output:logits": np.zeros((8, 10), np.float32)}
        np.savez_compressed(file, **arrays)
    add_file(document, folder, "parity.npz", (folder / "parity.npz").read_bytes())
    if edit is not None:
        edit(document)
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def edited(bundle: Path, edit: Edit) -> None:
    """Change a bundle's manifest."""
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    edit(document)
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")


def subject_of(bundle: Path) -> Subject:
    """What pages are made of."""
    sha256 = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    return Subject(bundle, bundle.name, read_manifest(bundle), sha256)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "b")


@pytest.fixture(scope="session")
def example() -> Manifest:
    return Manifest.model_validate_json(EXAMPLE.read_text(encoding="utf-8"))
