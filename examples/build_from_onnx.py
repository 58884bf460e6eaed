#!/usr/bin/env python3
"""Build a bundle from an ONNX file that edgeformer did not export: show what the fuser finds in it, then build.

Run it in the environment that scripts/setup made (source .venv/bin/activate). Without a file it writes one first: the
shipped biformer_nano, exported by PyTorch alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgeformer as ef

ROOT = Path(__file__).resolve().parents[1]


def write_foreign_onnx(path: Path) -> None:
    """Export biformer_nano as anybody would, with PyTorch's exporter and no help from edgeformer's."""
    import torch

    model = ef.create_model("biformer_nano")
    ef.load_checkpoint(model, ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two images: a batch of one would be taken for a constant.
    images = torch.zeros(2, 3, 112, 112)
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(model, (images,), path, dynamo=True, external_data=False, dynamic_shapes=shapes, verbose=False)


def show_blocks(path: Path) -> None:
    """Fuse the graph and print what became of each block; the build fuses again and keeps the report."""
    for number, block in enumerate(ef.fuse(ef.load_model(path)).blocks):
        if block.status == "fused":
            print(f"block {number}: fused, error {block.proof_error:.1e} over {block.draws} random inputs")
        else:
            print(f"block {number}: left as it was: {block.reason}")


def main() -> None:
    """Fuse, show, build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, metavar="FILE.onnx", help="default: write one and take that")
    parser.add_argument("--precision", default="fp16", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--target", default="rtx-40", help="see 'edgeformer targets' (default: %(default)s)")
    parser.add_argument("--output", "-o", type=Path, default=ROOT / "build" / "from_onnx", help="the bundle")
    arguments = parser.parse_args()

    path = arguments.model
    if path is None:
        path = arguments.output.with_suffix(".onnx")
        write_foreign_onnx(path)
        print(f"wrote {path}")
    try:
        show_blocks(path)
        result = ef.build(path, precision=arguments.precision, target=arguments.target, output=arguments.output)
    except ef.EdgeformerError as error:  # its message says what is wrong and what to do
        raise SystemExit(f"{error.code}: {error}") from error
    for stage in result.manifest.stages:
        print(f"{stage.name}: {stage.verdict}{f', {stage.gate}' if stage.gate else ''}")
    print(f"bundle: {result.path}")


if __name__ == "__main__":
    main()
