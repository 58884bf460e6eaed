"""`verify_bundle_blocks`: the forms of the model that a bundle holds, block by block."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeformer.bundle import open_bundle
from edgeformer.bundle.files import CALIBRATION, ENGINE, EXPORTED, FUSED, TYPED
from edgeformer.bundle.signature import is_trusted
from edgeformer.data import Preparation, open_samples
from edgeformer.pipeline.application import preprocessing_of
from edgeformer.pipeline.verification import engine_form, normalization_in_graph, recorded_images, torch_session
from edgeformer.progress import Progress

if TYPE_CHECKING:
    from edgeformer.data.sources import Source as DataSource
    from edgeformer.records.blocks import BlocksReport

__all__ = ["verify_bundle_blocks"]

# Each image gives hundreds of values for each channel of each tensor.
_IMAGES = 8


def verify_bundle_blocks(
    bundle: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    trust_bundle: bool = False,
    key: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> BlocksReport:
    """Compare the forms of the model that a bundle holds block by block, each with the one before.

    What does not run here is reported as not run, never as passed, as in `verify_bundle`.

    Args:
        bundle: folder of the bundle; every file is checked against its hash first.
        data: images, of which the first eight are run. Default: those recorded in the bundle.
        checkpoint: where the checkpoint lies now, if it was moved.
        trust_bundle: run the bundle's engine and plugin library: you trust whoever made it.
        key: PEM file with the public key of the bundle's maker: the signature has to hold for it, and the engine runs.
        progress: told after each block.

    Raises:
        InputError: as `verify_bundle`, or ``calibration.json`` is damaged.
        EnvironmentFault: ``key`` was given, and the package cryptography is not installed.
    """
    from edgeformer.graph.onnx_files import load_model
    from edgeformer.quantization.calibration import load_calibration
    from edgeformer.runtime.normalizing_session import NormalizingSession
    from edgeformer.verify.blocks.verification import TorchForm, verify_blocks

    folder = Path(bundle)
    manifest = open_bundle(folder)
    trusted = is_trusted(folder, trust_bundle=trust_bundle, key=None if key is None else Path(key))
    preprocessing = preprocessing_of(manifest)
    session = torch_session(folder, manifest, preprocessing, checkpoint)
    pytorch: TorchForm | str
    if isinstance(session, str):
        pytorch = session
    else:
        in_graph = normalization_in_graph(manifest, preprocessing)
        pytorch = TorchForm(session, _same if in_graph is None else NormalizingSession(session, in_graph).normalized)
    return verify_blocks(
        partial(load_model, folder / EXPORTED),
        partial(load_model, folder / FUSED),
        partial(load_model, folder / TYPED),
        _images(folder, data, preprocessing),
        precision=manifest.precision,
        pytorch=pytorch,
        engine=engine_form(folder, manifest, trusted) if ENGINE in manifest.files else None,
        ranges=load_calibration(folder / CALIBRATION).ranges if CALIBRATION in manifest.files else None,
        progress=progress,
    )


def _same(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return images


def _images(folder: Path, data: DataSource | None, preprocessing: Preparation) -> npt.NDArray[np.float32]:
    if data is None:
        return recorded_images(folder)[0][:_IMAGES]
    first = next(iter(open_samples(data, preprocessing).batches(_IMAGES)), None)
    return np.zeros((0, 3, 1, 1), np.float32) if first is None else first.images
