"""Imports stay cheap: the package, its command line and its ONNX rooms need neither torch nor TensorRT nor CUDA."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    *("torch", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda", "mlxtend", "safetensors"),
    *("dask", "distributed", "jinja2", "matplotlib"),
)

CHEAP_MODULES = (
    "edgeformer",
    "edgeformer.bundle",
    "edgeformer.cli",
    "edgeformer.data",
    "edgeformer.engine",
    "edgeformer.export",
    "edgeformer.graph",
    "edgeformer.inference",
    "edgeformer.machine",
    "edgeformer.models",
    "edgeformer.ops.bi_level_routing_attention",
    "edgeformer.ops.cuda",
    "edgeformer.pipeline",
    "edgeformer.quantization",
    "edgeformer.report",
    "edgeformer.runtime",
    "edgeformer.verify",
)


def _heavy_after(code: str) -> str:
    probe = f"import sys\n{code}\nprint(*sorted(set(sys.modules) & set({HEAVY!r})))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize("module", CHEAP_MODULES)
def test_import_is_cheap(module: str) -> None:
    assert _heavy_after(f"import {module}") == ""


def test_the_probe_sees_heavy_modules() -> None:
    pytest.importorskip("torch", reason="scripts/try_pythons does without torch")
    assert _heavy_after("import torch") == "torch"


def test_help_of_every_command_is_cheap() -> None:
    code = (
        "import contextlib, io\n"
        "from edgeformer.cli import COMMANDS, cli\n"
        "for words in [[], *([name] for name in COMMANDS)]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as shown:\n"
        "        cli.main([*words, '--help'], standalone_mode=False)\n"
        "    assert 'Usage: ' in shown.getvalue(), words\n"
    )
    assert _heavy_after(code) == ""


def test_a_device_needs_no_onnx_runtime_to_run_engines() -> None:
    probe = (
        "import sys\nimport edgeformer.runtime as runtime\nfrom edgeformer.runtime import EngineSession\n"
        "print(*sorted(set(sys.modules) & {'onnxruntime', 'torch'}))\n"
        "assert runtime.OnnxSession.__name__ == 'OnnxSession' and 'onnxruntime' in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_the_runtime_has_no_other_names() -> None:
    import edgeformer.runtime

    with pytest.raises(AttributeError, match=r"'edgeformer\.runtime' has no attribute 'OnnxSessions'"):
        edgeformer.runtime.OnnxSessions  # noqa: B018


def test_only_the_runtime_knows_onnx_runtime() -> None:
    package = Path(__file__).parents[1] / "edgeformer"
    knowing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.MULTILINE)
    }
    assert knowing == {"runtime/onnx_session.py"}


def test_importing_the_package_alone_is_nearly_free() -> None:
    probe = "import sys, edgeformer; print(*sorted(set(sys.modules) & {'onnx', 'numpy', 'onnxruntime', 'click'}))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_no_command_reports_to_anybody_or_leaves_files_behind(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry would put a database into the cache and a session file into the temporary folder."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    # Where CI is set it keeps quiet by itself, and Python's own cache of compiled files is not what is looked for.
    kept = {name: text for name, text in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    kept = {name: text for name, text in kept.items() if not name.startswith(("XDG_", "GITHUB_", "TF_BUILD"))}
    environment = {**kept, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    run = "import numpy, onnx\nfrom onnx import helper\n{first}\nfrom edgeformer.runtime import OnnxSession\n" + (
        "value = helper.make_tensor_value_info\n"
        "node = helper.make_node('Relu', ['x'], ['y'])\n"
        "graph = helper.make_graph([node], 'g', [value('x', 1, [1])], [value('y', 1, [1])])\n"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)\n"
        "print(OnnxSession(model).run({{'x': numpy.ones(1, numpy.float32)}})['y'])\n"
    )
    left = {}
    for first in ("", "import onnxruntime"):
        code = run.format(first=first)
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
        left[first] = [path for path in (*home.rglob("*"), *temporary.rglob("*")) if path.is_file()]
    assert left[""] == []
    if importlib.metadata.version("onnxruntime").startswith("1.32."):
        assert left["import onnxruntime"], "the test sees nothing: telemetry leaves no files any more"
