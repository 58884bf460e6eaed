"""A model behind an input of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from edgeformer.data import Preprocessing
from edgeformer.runtime import OnnxSession
from edgeformer.runtime.normalizing_session import NormalizingSession
from tests.raising import raises

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
PREPARED = Preprocessing(5, 7, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("shape", ["N,3,5,7", "2,5,7,3"])
@pytest.mark.parametrize(("kind", "dtype"), [("float", np.float32), ("float16", np.float16)])
def test_it_gives_the_model_what_preprocessing_makes_of_pixels(shape: str, kind: str, dtype: type) -> None:
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g ({kind}[{shape}] x) => ({kind}[{shape}] y) {{ y = Identity(x) }}'
    )
    with NormalizingSession(OnnxSession(model), PREPARED) as session:
        assert session.inputs["x"].dtype == np.uint8
        assert session.inputs["x"].shape[1:] == (5, 7, 3)
        assert list(session.outputs) == ["y"]
        found = session.run({"x": PIXELS})["y"]
        wanted: np.ndarray = PREPARED.normalize(PIXELS).astype(dtype)
        np.testing.assert_array_equal(found, wanted if shape.startswith("N") else wanted.transpose(0, 2, 3, 1))
        with raises("EF802", "uint8", "float32"):
            session.run({"x": PIXELS.astype(np.float32)})
    with raises("EF803", "closed"):
        session.run({"x": PIXELS})
