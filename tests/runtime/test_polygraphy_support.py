from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgeformer.runtime.engine_session import tensor_info
from edgeformer.runtime.polygraphy_support import quiet_polygraphy, use_flavour


def test_within_it_polygraphy_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    with quiet_polygraphy(), pytest.raises(PolygraphyException, match="broken"):
        G_LOGGER.critical("broken")
    assert capfd.readouterr() == ("", "")
    G_LOGGER.error("still there")
    assert "still there" in capfd.readouterr().out


def test_a_flavour_can_be_chosen_after_polygraphy_was_imported() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    import polygraphy.comparator

    use_flavour("tensorrt_rtx")
    assert tensor_info(rtx.float16, (-1, 3)) == (np.dtype(np.float16), ("dim0", 3))
    assert tensor_info(rtx.int64, (2,)) == (np.dtype(np.int64), (2,))
    import polygraphy.backend
    from polygraphy.backend.trt import runner, util

    assert runner.trt.__version__ == util.trt.__version__ == rtx.__version__
    assert polygraphy.backend.trt.TrtRunner is runner.TrtRunner


def test_choosing_a_flavour_imports_no_tensorrt() -> None:
    code = "import sys; from edgeformer.runtime.polygraphy_support import use_flavour; use_flavour('tensorrt_rtx'); "
    code += "print(sorted({m.split('.')[0] for m in sys.modules} & {'tensorrt', 'tensorrt_rtx', 'torch'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
