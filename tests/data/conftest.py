"""What the data tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeformer.data import Preprocessing

PLAIN = Preprocessing(4, 6, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", 1.0)
"""Only scales to 0..1: what went in can be read off what comes out."""


def grey_image(value: int, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.fromarray(np.full((size[1], size[0]), value, np.uint8))


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """Write ``{relative path: grey value}`` as images below a folder."""

    def make(images: dict[str, int]) -> Path:
        root = tmp_path / "images"
        for name, value in images.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            grey_image(value).save(path)
        return root

    return make
