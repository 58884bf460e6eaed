"""load.py BUNDLE IMAGES: load.c in Python."""

import sys
import time

import numpy as np

import edgeformer as ef


def load_and_run(path: str, images: int) -> str:
    """Why it failed, or "ran"."""
    try:
        with ef.load(path, backend="tensorrt", trust_bundle=True) as model:
            if images > 0:
                model(np.zeros((images, 3, 2, 2), np.float32))
    except ef.EdgeformerError as error:
        return f"{error.code}: {error}"
    return "ran"


if __name__ == "__main__":
    # Looked up before the clock starts, as an application imports it before it loads: it imports on first use.
    load = ef.load
    before = time.perf_counter()
    message = load_and_run(sys.argv[1], int(sys.argv[2]))
    print(f"{(time.perf_counter() - before) * 1e3:.3f}\n{message}")
