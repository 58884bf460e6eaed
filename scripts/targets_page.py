#!/usr/bin/env python3
"""Write the tables of docs/targets.md: machines, sources, JetPacks and types, as edgeformer's own tables have them.

    scripts/targets_page.py             write them
    scripts/targets_page.py --check     only say whether they are as they would be written

Exit code 0: they are written, or as they should be; 1: ``--check`` found them otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeformer.engine.target_types import support_table
from edgeformer.engine.targets import Figure, Target, list_targets
from edgeformer.machine.jetpack import list_jetpacks, tensorrt_without_jetpack

PAGE = Path(__file__).resolve().parent.parent / "docs" / "targets.md"


def page(text: str) -> str:
    """The page with every table between its marks as it should be.

    Raises:
        ValueError: the marks of a table are missing.
    """
    tables = {"machines": _machines(), "sources": _sources(), "jetpacks": _jetpacks(), "types": _types()}
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{PAGE} has no marks for the table {name!r}")
        before, after = text.split(begin)[0], text.split(end)[1]
        text = "\n".join([before + begin, *lines, "", end + after])
    return text


def _machines() -> list[str]:
    rows = [
        (
            f"`{target.name}`",
            target.description,
            target.compute_capability,
            target.cpu,
            _tensorrt(target),
            "" if target.memory_gb is None else f"{target.memory_gb:g} GB",
            "anywhere" if target.built == "anywhere" else "on the device",
            target.kernels,
        )
        for target in list_targets()
    ]
    heads = ("target", "machine", "compute capability", "CPU", "TensorRT", "memory", "engine built", "plugin library")
    return _table(heads, rows)


def _tensorrt(target: Target) -> str:
    name = "TensorRT-RTX" if target.flavour == "tensorrt_rtx" else "TensorRT"
    return f"{name} {target.tensorrt_minimum} or newer, below {target.tensorrt_below}"


def _sources() -> list[str]:
    rows = []
    for target in list_targets():
        sources, peaks = target.sources, target.peaks
        rows.append((f"`{target.name}`", "compute capability", target.compute_capability, sources.compute_capability))
        if target.memory_gb is not None and sources.memory is not None:
            rows.append(("", "memory", f"{target.memory_gb:g} GB", sources.memory))
        if sources.tensorrt_minimum is not None:
            rows.append(("", "lowest TensorRT", target.tensorrt_minimum, sources.tensorrt_minimum))
        figures: tuple[tuple[str, Figure | None, str], ...] = (
            ("DRAM bandwidth", peaks.dram_gb_s, "GB/s"),
            ("FP16, dense", peaks.fp16_tflops, "TFLOP/s"),
            ("INT8, dense", peaks.int8_tops, "TOPS"),
        )
        rows += [("", name, f"{figure.value:g} {unit}", figure.source) for name, figure, unit in figures if figure]
    return _table(("target", "figure", "value", "source"), rows)


def _jetpacks() -> list[str]:
    rows = [
        (
            jetpack.name,
            ", ".join(jetpack.l4t),
            jetpack.tensorrt or "",
            jetpack.cuda or "",
            jetpack.python or "",
            ", ".join(map(str, jetpack.sms)),
            "; ".join(filter(None, (jetpack.note, jetpack.source))),
        )
        for jetpack in list_jetpacks()
    ]
    rows.append(("none", "", ", ".join(tensorrt_without_jetpack()), "", "", "", ""))
    return _table(("JetPack", "L4T", "TensorRT", "CUDA", "Python", "SM", "note, source"), rows)


def _types() -> list[str]:
    rows = []
    for flavour, sms, found in support_table():
        name = "TensorRT-RTX" if flavour == "tensorrt_rtx" else "TensorRT"
        capabilities = ", ".join(f"{sm // 10}.{sm % 10}" for sm in sms)
        rows += [
            (name, capabilities, f"`{one.precision}`", one.gain, f"{one.why}; {one.source}") for one in found.values()
        ]
    return _table(("built by", "compute capability", "precision", "gain", "why, source"), rows)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *rows)]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if arguments.check:
        if new != old:
            print(f"{PAGE} is not as the tables are: run scripts/targets_page.py", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
