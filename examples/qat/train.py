#!/usr/bin/env python3
"""Fine-tune biformer_nano with the rounding that its INT8 graph has, and export that graph.

Prints top-1 on the 1000 test digits, clean and degraded: of the float network, of INT8 before training and behind it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors"
VENV = ROOT / ".venv"
if Path(sys.prefix) != VENV and (VENV / "bin" / "python").exists():
    os.execv(VENV / "bin" / "python", [str(VENV / "bin" / "python"), *sys.argv])

# The example is used from the sources: it is not installed, and its modules' names would hide others.
sys.path[0] = str(ROOT)

from edgeformer.errors import EdgeformerError  # noqa: E402  only now is the interpreter the right one


def main() -> None:
    """Fine-tune, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--steps", type=int, help="steps of the optimizer (default: the plan's)")
    parser.add_argument("--images", type=int, default=1000, help="test images (default: %(default)s, all of them)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--output", "-o", type=Path, default=ROOT / "build" / "qat.onnx", help="the INT8 graph")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before torch is imported

    from examples.qat import run
    from examples.train_nano.digits import load_digits

    began = time.process_time()
    run.run(
        load_digits(),
        arguments.checkpoint,
        arguments.output,
        steps=arguments.steps,
        images=arguments.images,
        report=lambda line: print(line, flush=True),
    )
    print(f"{time.process_time() - began:.0f} s of CPU time in all")
    print(
        f"next: edgeformer build {arguments.output} --precision int8 --data calibration/digits/calibrate "
        "--eval-data calibration/digits/evaluate --target rtx-40 -o build/qat"
    )


if __name__ == "__main__":
    try:
        main()
    except EdgeformerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
