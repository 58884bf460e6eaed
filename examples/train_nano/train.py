#!/usr/bin/env python3
"""Train biformer_nano on handwritten digits and write the checkpoint, its model card and the image folders.

With --evaluate: remake the test split and report the accuracy of the committed checkpoint instead.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "checkpoints" / "biformer_nano_digits"
IMAGES = ROOT / "calibration" / "digits"
VENV = ROOT / ".venv"
if Path(sys.prefix) != VENV and (VENV / "bin" / "python").exists():
    os.execv(VENV / "bin" / "python", [str(VENV / "bin" / "python"), *sys.argv])

# The example is used from the sources: it is not installed, and its modules' names would hide others.
sys.path[0] = str(ROOT)

from edgeformer.errors import EdgeformerError  # noqa: E402  only now is the interpreter the right one


def main() -> None:
    """Train, or measure what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="measure the committed checkpoint; train nothing")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before torch is imported

    from examples.train_nano import checkpoint
    from examples.train_nano.digits import load_digits, write_image_folder
    from examples.train_nano.training import TrainingPlan

    split = load_digits()
    for name, digits, per_class in (("calibrate", split.train, 20), ("evaluate", split.test, 50)):
        if not arguments.evaluate and not (IMAGES / name).exists():
            write_image_folder(IMAGES / name, digits, per_class)
    if arguments.evaluate:
        model = checkpoint.load_nano(CHECKPOINT / checkpoint.WEIGHTS)
        result = checkpoint.measure(model, checkpoint.digit_samples(split.test))
    else:
        result = checkpoint.make_checkpoint(
            split,
            TrainingPlan(),
            folder=CHECKPOINT,
            command=f"examples/train_nano/train.py --threads {arguments.threads}",
            report=functools.partial(print, flush=True),
        )
    print(f"{result.images} test images: top-1 {result.top1:.2f} %")


if __name__ == "__main__":
    try:
        main()
    except EdgeformerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
