"""Who quantizes: a module for each tool with its rows, each of which runs in the environment of that tool.

A module has `ROWS`, by name, `quantize(job)`, and in `IMPORTS` the names of what that needs. But for edgeformer's it
can be imported with NumPy and onnx alone, to tell its rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.quantization.tools.job import Job, Row

__all__ = ["TOOLS", "Job", "Row", "Tool", "load_tool"]

TOOLS = ("edgeformer", "onnxruntime", "modelopt", "quark", "aimet", "neural_compressor")
"""In the order in which they run: edgeformer first, whose placement the others are given."""


@dataclass(frozen=True)
class Tool:
    """A tool's rows, how it makes one, and the modules that it is made of."""

    rows: Mapping[str, Row]
    imports: tuple[str, ...]
    quantize: Callable[[Job], dict[str, object] | None]


def load_tool(name: str) -> Tool:
    """A tool by its name in `TOOLS`."""
    module = importlib.import_module(f"benchmarks.quantization.tools.{name}_rows")
    return Tool(module.ROWS, module.IMPORTS, module.quantize)
