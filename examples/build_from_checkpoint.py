#!/usr/bin/env python3
"""Build a bundle from a checkpoint: print the task accuracy of each precision, and what to do next.

Run it in the environment that scripts/setup made (source .venv/bin/activate). Without arguments it builds the shipped
biformer_nano. For a model of your own give at least its name, --checkpoint, --data and --eval-data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgeformer as ef
from edgeformer.records.terms import PRECISIONS

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "calibration" / "digits"


def main() -> None:
    """Build, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="biformer_nano", choices=ef.list_models(), metavar="MODEL")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/biformer_nano_digits/model.safetensors")
    parser.add_argument("--data", type=Path, default=DIGITS / "calibrate", help="calibration images")
    parser.add_argument("--eval-data", type=Path, default=DIGITS / "evaluate", help="labelled images")
    parser.add_argument("--precision", default="int8", choices=PRECISIONS)
    parser.add_argument("--target", default="rtx-40", help="see 'edgeformer targets' (default: %(default)s)")
    parser.add_argument("--batch", default="1:8:32", help="smallest:frequent:largest batch (default: %(default)s)")
    parser.add_argument("--output", "-o", type=Path, default=ROOT / "build" / "from_checkpoint", help="the bundle")
    arguments = parser.parse_args()

    try:
        result = ef.build(
            arguments.model,
            checkpoint=arguments.checkpoint,
            precision=arguments.precision,
            data=arguments.data,
            eval_data=arguments.eval_data,
            target=arguments.target,
            batch=arguments.batch,
            output=arguments.output,
        )
    except ef.GateMissed as missed:
        raise SystemExit(f"not good enough to ship: {missed}") from missed
    except ef.EdgeformerError as error:  # its message says what is wrong and what to do
        raise SystemExit(f"{error.code}: {error}") from error

    for precision, score in result.manifest.accuracy.items():
        unit = "%" if score.unit == "points" else score.unit
        print(f"{score.metric} {precision}: {score.value:.2f} {unit} of {score.samples} images")
    if "model.engine" in result.manifest.files:
        print(f"next: copy {result.path} to the machine that it is for: {result.manifest.target.description}")
    else:
        print(f"next: build the engine on the device; 'edgeformer inspect {result.path}' lists the steps")


if __name__ == "__main__":
    main()
