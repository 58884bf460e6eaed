#!/usr/bin/env python3
"""A detector with two BRA blocks, from PyTorch to a bundle at INT8 that Python runs.

Run it in the environment that scripts/setup made (source .venv/bin/activate):

    python examples/yolo_with_bra/build.py

It trains for a few minutes on scenes that it draws itself; `--steps 0` takes random weights, which find nothing. What
it leaves in the folder of the bundle's name and an ending: the ONNX file, the scenes to calibrate on, and three to try.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The example is used from the sources: it is not installed, and its modules' names would hide others.
sys.path[0] = str(ROOT)

import edgeformer as ef  # noqa: E402
from edgeformer.inference import Model  # noqa: E402
from examples.yolo_with_bra.boxes import find, overlap  # noqa: E402
from examples.yolo_with_bra.scenes import CLASSES, Scene, make_scene  # noqa: E402
from examples.yolo_with_bra.training import FIRST_UNSEEN, train  # noqa: E402

CALIBRATION_SCENES, SHOWN_SCENES, JUDGED_SCENES = 32, 3, 50


def write_onnx(path: Path, size: int, steps: int) -> None:
    """Train the detector and export it as anybody would, with PyTorch's exporter."""
    import torch

    from examples.yolo_with_bra.detector import Detector

    torch.manual_seed(0)
    model = Detector(len(CLASSES))
    train(model, size, steps, print)
    # Two images: a batch of one would be taken for a constant.
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, size, size),),
        path,
        input_names=["images"],
        output_names=["boxes", "scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def write_scenes(folder: Path, size: int, first: int, count: int, ending: str) -> list[Path]:
    """Draw scenes into files: ``.png``, or ``.ppm``, which detect.cpp reads without a library."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03}{ending}" for index in range(count)]
    for index, path in enumerate(paths):
        make_scene(size, first + index).picture.save(path)
    return paths


def count_found(model: Model, scenes: list[Scene], least_score: float) -> str:
    """How many of the scenes' objects the model finds, by class and an overlap of at least one half."""
    right = wanted = reported = 0
    for scene in scenes:
        outputs = model(model.preprocess([scene.picture]))
        objects = find(outputs["boxes"][0], outputs["scores"][0], least_score)
        wanted += len(scene.labels)
        reported += len(objects)
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            right += any(one.label == label and overlap(one.box, box) >= 0.5 for one in objects)
    return f"{right} of {wanted} objects found, in {reported} boxes"


def show(bundle: Path, pictures: list[Path], size: int, least_score: float) -> None:
    """Run the bundle on pictures, print what is in them, and count what it finds in scenes that it never saw."""
    unseen = [make_scene(size, FIRST_UNSEEN + 1000 + index) for index in range(JUDGED_SCENES)]
    with ef.load(bundle, graph="fused", backend="onnxruntime") as model:
        print(f"FP32 on {len(unseen)} unseen scenes: {count_found(model, unseen, least_score)}")
    with ef.load(bundle) as model:
        description = model.describe()
        print(f"INT8 on the same: {count_found(model, unseen, least_score)}")
        print(f"run by {description.backend} {description.backend_version}")
        for path in pictures:
            outputs = model(model.preprocess([path]))
            print(f"{path}:")
            for one in find(outputs["boxes"][0], outputs["scores"][0], least_score):
                print(f"  {one.line(description.labels, _scale(path, size))}")


def _scale(path: Path, size: int) -> tuple[float, float]:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.width / size, picture.height / size


def main() -> None:
    """Train, export, fuse, build, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="of training; 0: random weights (default: %(default)s)")
    parser.add_argument("--least-score", type=float, default=0.4, help="of an object (default: %(default)s)")
    parser.add_argument("--target", default="rtx-40", help="see 'edgeformer targets' (default: %(default)s)")
    parser.add_argument("--output", "-o", type=Path, default=ROOT / "build" / "yolo_with_bra", help="the bundle")
    arguments = parser.parse_args()
    output: Path = arguments.output

    path = output.with_suffix(".onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(path, arguments.size, arguments.steps)
    calibration = output.with_suffix(".calibration")
    write_scenes(calibration, arguments.size, FIRST_UNSEEN, CALIBRATION_SCENES, ".png")
    # Twice as wide as the network's input: boxes are given in pixels of the picture.
    pictures = write_scenes(
        output.with_suffix(".pictures"), 2 * arguments.size, FIRST_UNSEEN + 2000, SHOWN_SCENES, ".ppm"
    )
    labels = output.with_suffix(".labels.txt")
    labels.write_text("\n".join(CLASSES) + "\n")
    try:
        blocks = ef.fuse(ef.load_model(path)).blocks
        print(f"{sum(block.status == 'fused' for block in blocks)} of {len(blocks)} routing-attention blocks fused")
        result = ef.build(
            path,
            precision="int8",
            data=calibration,
            preprocessing="scale",
            labels=labels,
            target=arguments.target,
            compare_plugin=False,
            output=output,
        )
        for stage in result.manifest.stages:
            print(f"{stage.name}: {stage.verdict}{f', {stage.gate}' if stage.gate else ''}")
        print(f"bundle: {result.path}")
        show(result.path, pictures, arguments.size, arguments.least_score)
    except ef.EdgeformerError as error:  # its message says what is wrong and what to do
        raise SystemExit(f"{error.code}: {error}") from error


if __name__ == "__main__":
    main()
