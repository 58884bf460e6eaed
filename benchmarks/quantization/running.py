"""Rows made and judged, a process for each; one that is there and depends on nothing that changed is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from benchmarks.quantization.tools import Row
from benchmarks.quantization.tools.job import Placement, stem_convolutions

__all__ = ["LIMIT", "ROOT", "Maker", "every_row", "make_row", "placement_of", "row_names"]

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1800.0
"""Seconds after which a row is given up."""

# Which of edgeformer's rows a placement is read off.
_READ_OFF = {"every": "default, nothing returned", "no stem": "default, nothing returned", "default": "default"}


@dataclass(frozen=True)
class Maker:
    """Who makes rows.

    Attributes:
        tool: its name.
        python: the interpreter of its environment.
        limit: seconds for a row.
    """

    tool: str
    python: Path
    limit: float = LIMIT


def row_names(maker: Maker) -> dict[str, Row]:
    """The rows of a tool, asked of its own environment."""
    script = (
        "import dataclasses, json, sys; from benchmarks.quantization.tools import load_tool; "
        "rows = load_tool(sys.argv[1]).rows; "
        "print(json.dumps({name: [row.placement, row.quick] for name, row in rows.items()}))"
    )
    done = _run([str(maker.python), "-c", script, maker.tool], 120)
    if isinstance(done, str):
        raise RuntimeError(f"{maker.tool}: {done}")
    listed = json.loads(done.stdout)
    return {name: Row(placement, quick=quick) for name, (placement, quick) in listed.items()}


def placement_of(placement: Placement, folder: Path) -> list[str] | None:
    """Names of the nodes of the exported graph that become INT8; None where the tool chooses.

    Args:
        placement: as in `Row`.
        folder: of a subject, where edgeformer's rows were made.

    Raises:
        FileNotFoundError: edgeformer's row, which tells, is not there.
        ValueError: a layer that it names is not in the exported graph.
    """
    if placement not in _READ_OFF:
        return None
    cost = json.loads((folder / "rows" / f"{_slug('edgeformer', _READ_OFF[placement])}.cost.json").read_text())
    exported = onnx.load(folder / "exported.onnx")
    strange = sorted(set(cost["layers"]) - {node.name for node in exported.graph.node})
    if strange:
        raise ValueError(f"not in the exported graph: {', '.join(strange)}")
    left = set(stem_convolutions(exported)) if placement == "no stem" else set()
    return [name for name in cost["layers"] if name not in left]


def make_row(maker: Maker, name: str, row: Row, folder: Path) -> dict[str, Any]:
    """Make and judge a row, or read what was found before from the same.

    Args:
        maker: the tool.
        name: of the row.
        row: what it asks for.
        folder: of the subject.

    Returns:
        ``tool``, ``row``, ``placement``, and either all figures or, under ``failed``, why there are none.
    """
    folder = folder.resolve()
    rows = folder / "rows"
    rows.mkdir(exist_ok=True)
    stem = _slug(maker.tool, name)
    known, output = rows / f"{stem}.json", rows / f"{stem}.onnx"
    head = {"tool": maker.tool, "row": name, "placement": row.placement}
    try:
        layers = placement_of(row.placement, folder)
    except (FileNotFoundError, ValueError) as error:
        return head | {"failed": f"edgeformer's placement is not known: {error}"}
    key = _key(maker, name, layers, folder)
    found: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    if found.pop("key", None) == key:
        return found
    found = head | _figures(maker, name, layers, folder, output)
    known.write_text(json.dumps(found | {"key": key}, indent=1) + "\n")
    return found


def _key(maker: Maker, name: str, layers: list[str] | None, folder: Path) -> str:
    """Hash of what a row depends on: of edgeformer's sources, too, where they make it."""
    here = Path(__file__).parent
    sources = [here / name for name in ("child.py", "judge.py", "multiply_adds.py", "environments.py")]
    sources += [here / "tools" / "job.py", here / "tools" / f"{maker.tool}_rows.py", folder / "prepared.json"]
    if maker.tool == "edgeformer":
        sources += sorted((ROOT / "edgeformer").rglob("*.py")) + sorted((ROOT / "edgeformer").rglob("*.json"))
    digest = hashlib.sha256(json.dumps([name, layers]).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _figures(maker: Maker, name: str, layers: list[str] | None, folder: Path, output: Path) -> dict[str, Any]:
    command = [str(maker.python), "-m", "benchmarks.quantization.child", maker.tool, name, str(folder), str(output)]
    if layers is not None:
        listed = output.with_suffix(".layers.json")
        listed.write_text(json.dumps(layers))
        command += ["--layers", str(listed)]
    made = _run(command, maker.limit)
    if isinstance(made, str):
        return {"failed": made}
    judged = _run([sys.executable, "-m", "benchmarks.quantization.judge", str(folder), str(output)], maker.limit)
    if isinstance(judged, str):
        return {"failed": f"made, but not judged: {judged}"}
    cost = json.loads(output.with_suffix(".cost.json").read_text())
    figures: dict[str, Any] = json.loads(judged.stdout)
    return {key: value for key, value in cost.items() if key != "layers"} | figures


def _run(command: list[str], limit: float) -> subprocess.CompletedProcess[str] | str:
    """A finished process, or why there is none in one line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        # Some tools leave files where they run.
        with tempfile.TemporaryDirectory() as elsewhere:
            done = subprocess.run(
                command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False, timeout=limit
            )
    except subprocess.TimeoutExpired:
        return f"not finished after {limit:.0f} s"
    if done.returncode == 0:
        return done
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"ended with {done.returncode}"


def _slug(tool: str, name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{tool} {name}")


def every_row(
    makers: list[Maker],
    folders: list[Path],
    *,
    quick: bool,
    wanted: str,
    tell: Callable[[str, dict[str, Any]], None],
) -> Iterator[dict[str, Any]]:
    """All rows of all tools on all subjects, subject by subject.

    Args:
        makers: edgeformer first.
        folders: prepared ones; their names are the subjects'.
        quick: only rows of `--quick`.
        wanted: regular expression that is found in "TOOL, ROW".
        tell: is given each subject and row.
    """
    listed = [(maker, row_names(maker)) for maker in makers]
    for folder in folders:
        for maker, rows in listed:
            for name, row in rows.items():
                if (quick and not row.quick) or not re.search(wanted, f"{maker.tool}, {name}"):
                    continue
                found = {"subject": folder.name, **make_row(maker, name, row, folder)}
                tell(folder.name, found)
                yield found
