"""The image over which routing is drawn: one of those that ``parity.npz`` records, made a picture again."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np

from edgeformer.artifacts import sha256_of_file
from edgeformer.bundle.application import ImageRecord, NormalizedImage
from edgeformer.bundle.files import PARITY
from edgeformer.bundle.manifest import Manifest
from edgeformer.errors import EnvironmentFault

__all__ = ["sample_picture"]

# Pixels along the longer side: routing has 7 regions there, or a few more.
_LARGEST = 256
_QUALITY = 85


def sample_picture(bundle: Path, manifest: Manifest, sample: int) -> str | None:
    """One of the recorded inputs as a ``data:`` address of a JPEG file.

    Args:
        bundle: the bundle's folder.
        manifest: its manifest.
        sample: the position of the input among those recorded.

    Returns:
        The address; None where the network's input is no image, or the file is not the one that the manifest lists.

    Raises:
        InputError: the manifest lists a file that holds no such input.
        EnvironmentFault: Pillow is not installed.
    """
    image, path = manifest.application.image, bundle / PARITY
    record = manifest.files.get(PARITY)
    if image is None or record is None or not path.is_file() or sha256_of_file(path) != record.sha256:
        return None
    try:
        from PIL import Image

        from edgeformer.data.array_files import read_array
    except ImportError as error:  # a device may have no Pillow, which the room of data needs, too
        raise EnvironmentFault("EF601", f"the report needs Pillow ({error}): pip install pillow") from error
    inputs = read_array(path, f"input:{image.input}")
    if sample >= len(inputs) or inputs.ndim != 4:
        return None
    picture = Image.fromarray(_pixels(inputs[sample], image))
    picture.thumbnail((_LARGEST, _LARGEST))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def _pixels(values: np.ndarray, image: ImageRecord) -> np.ndarray:
    """An input as uint8 ``[height, width, 3]``."""
    array = values.astype(np.float64)
    if image.layout == "NCHW":
        array = array.transpose(1, 2, 0)
    if isinstance(image, NormalizedImage):
        array = 255 * (array * np.array(image.std) + np.array(image.mean))
    elif image.normalization == "scale":
        array = 255 * array
    return np.clip(np.rint(np.nan_to_num(array)), 0, 255).astype(np.uint8)
