"""`verify_bundle`: run every form of the model that a bundle holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle import Manifest, open_bundle
from edgeformer.bundle.details import ParityDetails
from edgeformer.bundle.files import ENGINE, EXPORTED, FUSED, PARITY, TYPED
from edgeformer.bundle.signature import is_trusted
from edgeformer.data import Classes, Preparation, Preprocessing, open_samples, read_labels
from edgeformer.data.array_files import archive_names, read_array
from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.pipeline.application import preprocessing_of
from edgeformer.pipeline.model_source import NamedModel
from edgeformer.pipeline.parity_inputs import BATCH

if TYPE_CHECKING:
    from edgeformer.data.sources import Source as DataSource
    from edgeformer.records.verification import VerifyReport
    from edgeformer.runtime import TorchSession
    from edgeformer.verify import BatchSource, Form

__all__ = ["engine_form", "normalization_in_graph", "recorded_images", "torch_session", "verify_bundle"]


def verify_bundle(
    bundle: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    max_drop: float | None = None,
    trust_bundle: bool = False,
    key: str | os.PathLike[str] | None = None,
    save_outputs: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Run every form of the model that a bundle holds, one after the other, and judge each by its gate.

    PyTorch runs where the bundle was made from a checkpoint that is still there with the same hash; the engine runs
    where this machine has a GPU and the bundle is trusted: an engine and its plugin library are code. What does not run
    is reported as not run, never as passed.

    Args:
        bundle: folder of the bundle; every file is checked against its hash first.
        data: images to run; labelled ones give the task accuracy. Default: the images recorded in the bundle.
        checkpoint: where the checkpoint lies now, if it was moved.
        labels: a file with the names of the model's classes in order, for the class folders of ``data``; default: those
            that the bundle records, if any.
        max_drop: points of the task metric that INT8 may lose; default: what the build was asked for.
        trust_bundle: run the bundle's engine and plugin library: you trust whoever made it.
        key: PEM file with the public key of the bundle's maker: the signature has to hold for it, and the engine runs.
        save_outputs: folder for what each form gives for the first batch, and for its inputs, in Polygraphy's files.
        progress: called after each batch that a form has run with its number of images.

    Raises:
        InputError: no bundle, a damaged one, one whose signature does not hold for ``key``, another checkpoint than the
            bundle was made from, or unusable data.
        EnvironmentFault: ``key`` was given, and the package cryptography is not installed.
    """
    from edgeformer.verify import Form, verify_forms
    from edgeformer.verify.gates import DEFAULT_MAX_DROP
    from edgeformer.verify.polygraphy_results import PolygraphyResults

    saved = None if save_outputs is None else PolygraphyResults(Path(save_outputs))

    folder = Path(bundle)
    manifest = open_bundle(folder)
    trusted = is_trusted(folder, trust_bundle=trust_bundle, key=None if key is None else Path(key))
    preprocessing = preprocessing_of(manifest)
    pytorch = _pytorch(folder, manifest, preprocessing, checkpoint)
    forms = [pytorch] if pytorch.runs else []
    forms.append(Form.from_onnx("exported", folder / EXPORTED, "export" if forms else None))
    forms.append(Form.fused(folder / EXPORTED, folder / FUSED))
    forms.append(Form.from_onnx("typed", folder / TYPED, manifest.precision))
    if ENGINE in manifest.files:
        forms.append(engine_form(folder, manifest, trusted))
    if not pytorch.runs:
        forms.append(pytorch)
    batches: BatchSource
    if data is None:
        batches = recorded_images(folder)
    else:
        names = manifest.application.labels if labels is None else read_labels(labels)
        classes = Classes(_class_count(manifest), names)
        batches = partial(open_samples(data, preprocessing, classes=classes).batches, BATCH)
    parity = manifest.details(ParityDetails)
    if max_drop is None:
        max_drop = DEFAULT_MAX_DROP if parity is None else parity.max_drop
    done = 0

    def count(_: str, samples: int, __: int | None) -> None:
        nonlocal done
        if progress is not None and samples:
            progress(samples - done)
        done = samples

    accepted = () if parity is None else parity.accepted_outputs
    return verify_forms(
        forms,
        batches,
        max_drop=max_drop,
        accepted=accepted,
        progress=count,
        first_run=None if saved is None else saved.add,
    )


def engine_form(folder: Path, manifest: Manifest, trusted: bool) -> Form:
    """The bundle's engine as a form, or a form that says why it does not run."""
    from edgeformer.ops.library_files import LIBRARY_NAME
    from edgeformer.verify import Form

    return Form.from_engine(
        "engine",
        folder / ENGINE,
        manifest.engine_precision or manifest.precision,
        plugin_library=folder / LIBRARY_NAME if LIBRARY_NAME in manifest.files else None,
        flavour=manifest.target.flavour,
        sms=manifest.target.sms,
        trusted=trusted,
    )


def _class_count(manifest: Manifest) -> int | None:
    """How many classes the first output of logits ``[batch, classes]`` has; None where there is none."""
    sizes = (output.shape[1] for output in manifest.outputs if len(output.shape) == 2)
    return next((size for size in sizes if isinstance(size, int) and size >= 2), None)


def recorded_images(folder: Path) -> list[npt.NDArray[np.float32]]:
    """The images that the build recorded."""
    names = [name for name in archive_names(folder / PARITY) if name.startswith("input:")]
    if len(names) != 1:
        raise InputError("EF704", f"{folder / PARITY} holds {len(names)} inputs, expected one: build the bundle again")
    return [read_array(folder / PARITY, names[0])]


def _pytorch(
    bundle: Path, manifest: Manifest, preprocessing: Preparation, checkpoint: str | os.PathLike[str] | None
) -> Form:
    """The PyTorch model as a form, or a form that says why it does not run."""
    from edgeformer.runtime import Session
    from edgeformer.runtime.normalizing_session import NormalizingSession
    from edgeformer.verify import Form

    session: Session | str = torch_session(bundle, manifest, preprocessing, checkpoint)
    if isinstance(session, str):
        return Form.not_run("pytorch", session)
    in_graph = normalization_in_graph(manifest, preprocessing)
    return Form.from_session(
        "pytorch", session if in_graph is None else NormalizingSession(session, in_graph), close=True
    )


def normalization_in_graph(manifest: Manifest, preprocessing: Preparation) -> Preprocessing | None:
    """How the bundle's graphs normalize pixels themselves, which the PyTorch model does not; None where they do not."""
    in_graph = manifest.model.normalized_in_graph
    if in_graph is None or not isinstance(preprocessing, Preprocessing):
        return None
    return replace(preprocessing, mean=in_graph.mean, std=in_graph.std)


def torch_session(
    bundle: Path, manifest: Manifest, preprocessing: Preparation, checkpoint: str | os.PathLike[str] | None
) -> TorchSession | str:
    """The PyTorch model that a bundle was made from, on normalized images, or why it does not run.

    Args:
        bundle: the bundle's folder.
        manifest: its manifest.
        preprocessing: what its images go through.
        checkpoint: where the checkpoint lies now, if it was moved.

    Raises:
        InputError: ``checkpoint`` is not there, is another one, or was not asked for.
    """
    from edgeformer.runtime import TorchSession

    def not_run(reason: str) -> str:
        return f"pytorch not run: {reason}"

    made_from = manifest.model
    if made_from.source != "registry":
        if checkpoint is not None:
            raise InputError("EF104", "the bundle was made from an ONNX file: there is no checkpoint to compare with")
        return not_run("the bundle was made from an ONNX file")
    if not isinstance(preprocessing, Preprocessing):
        raise InputError("EF702", f"{bundle}: a named model takes images, and the manifest has none: build it again")
    weights = None
    if made_from.checkpoint_sha256 is not None:
        if checkpoint is not None:
            weights = Path(checkpoint)
            if not weights.is_file():
                raise InputError("EF102", f"{weights}: no such checkpoint file")
        else:
            recorded = Path(made_from.checkpoint or "")
            # The manifest has no path of the machine that made the bundle: from here, or beside the bundle.
            there = [path for path in (recorded, bundle.parent / recorded.name) if path.is_file()]
            weights = next((path for path in there if sha256_of_file(path) == made_from.checkpoint_sha256), None)
            if weights is None:
                state = "is another file than it was made from" if there else "is not there"
                return not_run(f"the checkpoint {recorded} {state}; name it with --checkpoint")
    named = NamedModel(made_from.name, weights, made_from.overrides, preprocessing, made_from.checkpoint_key)
    if named.checkpoint_sha256 != made_from.checkpoint_sha256:
        raise InputError(
            "EF706",
            f"{weights} is not the checkpoint this bundle was made from (SHA-256 differs): "
            "name that one with --checkpoint",
        )
    try:
        network, _ = named.create()
    except EnvironmentFault as fault:
        return not_run(str(fault))
    return TorchSession(network, input_size=(preprocessing.height, preprocessing.width))
