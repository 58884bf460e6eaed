"""`load`: what it takes, what it refuses, and how little it needs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeformer as ef
from edgeformer.inference import load
from edgeformer.inference.backend_libraries import onnx_runtime_library
from edgeformer.inference.library import RuntimeLibrary, default_library
from edgeformer.inference.loading import load_engine
from tests.inference.conftest import CLASSES, ROOT, SIZE
from tests.raising import raises


def test_a_bundle_and_an_onnx_file(small_bundle: Path) -> None:
    with ef.load(small_bundle) as model:
        found = model.describe()
    assert (found.name, found.task, found.labels) == ("biformer_nano", "classification", CLASSES)
    assert (found.backend, found.device, found.contexts, found.takes_images) == ("onnxruntime", None, 1, True)
    assert found.backend_reason.startswith("EF707")
    assert found.file == str(small_bundle / "typed.onnx")
    (taken,), (given,) = found.inputs, found.outputs
    assert (taken.name, taken.dtype, taken.shape) == ("input", np.dtype(np.float32), (None, 3, SIZE, SIZE))
    assert (taken.minimum, taken.maximum) == ((1, 3, SIZE, SIZE), (None, 3, SIZE, SIZE))
    assert (given.name, given.dtype, given.shape) == ("logits", np.dtype(np.float32), (None, len(CLASSES)))
    with load(f"{small_bundle}/fused.onnx") as model:
        found = model.describe()
    assert (found.name, found.task, found.labels, found.takes_images) == ("fused.onnx", "", (), False)


def test_the_graph_and_the_backend_are_the_callers_choice(small_bundle: Path) -> None:
    with load(small_bundle, graph="fused", backend="onnxruntime", contexts=3, threads=1) as model:
        found = model.describe()
    assert found.file == str(small_bundle / "fused.onnx")
    assert (found.contexts, found.backend_reason) == (3, "")


def test_the_libraries_are_the_callers_choice(small_bundle: Path, tmp_path: Path) -> None:
    path = onnx_runtime_library()
    assert path is not None
    link = tmp_path / path.name
    link.symlink_to(path)
    own = RuntimeLibrary(default_library().path)
    with load(small_bundle, backend="onnxruntime", backend_library=link, library=own) as model:
        assert Path(model.describe().backend_library).samefile(link)
    missing = tmp_path / "libnothing.so"
    with raises("EF605", missing):
        load(small_bundle, backend="onnxruntime", backend_library=missing)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "cuda"}, ("backend", "'cuda'", "onnxruntime")),
        ({"graph": "exported"}, ("graph", "'exported'", "fused")),
        ({"backend_library": "libonnxruntime.so"}, ("backend_library",)),
        ({"contexts": 65}, ("contexts=65", 64)),
        ({"contexts": -1}, ("contexts", -1)),
        ({"contexts": 0}, ("contexts is 0", "1 or more")),
        ({"threads": 2**32 + 1}, ("threads", 2**32 + 1)),
        ({"device": -1}, ("device", -1)),
        ({"cuda_graphs": 2000}, ("cuda_graphs=2000", 1024)),
        ({"device": "cuda:1"}, ("device", "'cuda:1'", "number")),
        ({"device": "cpu"}, ("device", "backend='onnxruntime'")),
        ({"device": None}, ("device", None)),
        ({"contexts": 2.0}, ("contexts", "2.0", "whole number")),
        ({"threads": "4"}, ("threads", "'4'")),
        ({"backend": ["tensorrt"]}, ("backend", "['tensorrt']")),
        ({"graph": {}}, ("graph", "{}")),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: tuple[Any, ...], small_bundle: Path) -> None:
    with raises("EF101", *words):
        load(small_bundle, **options)


def test_what_is_no_model(tmp_path: Path, small_bundle: Path) -> None:
    with raises("EF701", "nothing", "edgeformer build"):
        load(tmp_path / "nothing")
    with raises("EF701", tmp_path):
        load(tmp_path)
    with raises("EF102", "NUL"):
        load(f"{small_bundle}\0tail")
    for path in ("", b""):
        with raises("EF701"):
            load(path)  # type: ignore[arg-type]
    for wrong in (None, 5, ["bundle"]):
        with raises("EF102", "path", "None" if wrong is None else type(wrong).__name__):
            load(wrong)  # type: ignore[arg-type]
    with raises("EF102", "int"):
        load(small_bundle, plugin_library=5)  # type: ignore[arg-type]
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x0a" + bytes(100))
    with raises("EF804", damaged):
        load(damaged)
    with raises("EF762", damaged, "edgeformer build"):
        load(damaged, backend="tensorrt")


def test_a_changed_bundle_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(small_bundle, bundle)
    content = bytearray((bundle / "typed.onnx").read_bytes())
    content[-1] ^= 1
    (bundle / "typed.onnx").write_bytes(content)
    with raises("EF704", "typed.onnx"):
        load(bundle)
    (bundle / "typed.onnx").unlink()
    with pytest.raises(ef.InputError, match=r"typed\.onnx"):
        load(bundle)
    with raises("EF707", bundle, "rtx-40"):
        load(bundle, backend="tensorrt")


def test_names_of_any_bytes_are_paths(small_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / os.fsdecode(b"b\xfcndel \xe2\x82\xac")
    shutil.copytree(small_bundle, bundle)
    with load(bundle) as model:
        assert model.predict(np.zeros((4, 4, 3), np.uint8), top=1)


# Python's own modules, NumPy, Pillow and edgeformer can be imported; others are as if they were not installed.
DEVICE = """
import importlib.abc, sys
ALLOWED = {"numpy", "PIL", "edgeformer"} | set(sys.stdlib_module_names)
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] not in ALLOWED and not name.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
for name in ("onnx", "torch", "pydantic", "ml_dtypes", "click", "rich"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported")
"""
USE = """
import sys
import numpy as np
import edgeformer as ef
with ef.load(sys.argv[1], backend="onnxruntime", backend_library=sys.argv[2]) as model:
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    print([(one.label, one.probability) for one in model.predict(image, top=2)])
    print(model(np.ones((2, 3, 8, 8), np.float32)).tobytes().hex())
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[3].split(","))))
"""
OTHERS = "onnx,torch,pydantic,onnxruntime,rich,click,onnxscript,polygraphy,tensorrt"


def test_numpy_and_pillow_are_all_that_is_needed(small_bundle: Path) -> None:
    """The same results where nothing else is installed, and nothing else is imported where it is."""
    library = onnx_runtime_library()
    arguments = [str(small_bundle), str(library), OTHERS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = [
        subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for code in (DEVICE + USE, USE)
    ]
    assert printed[0] == printed[1]
    assert printed[1].splitlines()[-1] == "[]"


class Asked(Exception):
    """Raised in the place of loading."""


class NotedLibrary:
    """Notes what the runtime library is asked to load."""

    def load(self, path: bytes, options: Any) -> Any:
        self.path, self.options = path, options
        content = (ctypes.c_char * options.content_bytes).from_address(options.content).raw if options.content else None
        raise Asked(content)


def test_a_plugin_library_is_a_path_and_no_name(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    noted: Any = NotedLibrary()
    with pytest.raises(Asked):
        load(small_bundle, plugin_library="plugins.so", library=noted)
    assert noted.options.plugin_library == os.fsencode(tmp_path / "plugins.so")


@pytest.mark.parametrize("flavour", [None, "tensorrt", "tensorrt_rtx"])
def test_an_engine_is_handed_over_with_what_may_run(
    flavour: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeformer.inference.loading.tensorrt_library", lambda name: Path("/opt") / name)
    noted: Any = NotedLibrary()
    content = b"an engine\0with all its bytes"
    plugins = tmp_path / "plugins.so"
    with pytest.raises(Asked) as caught:
        load_engine("m.engine", content, flavour=flavour, plugin_library=plugins, embedded_plugin=True, library=noted)
    assert caught.value.args == (content,)
    options = noted.options
    assert (noted.path, options.backend, options.trust_bundle, options.embedded_plugin) == (b"m.engine", 1, 1, 1)
    assert options.plugin_library == os.fsencode(plugins)
    assert options.tensorrt_library == (None if flavour == "tensorrt_rtx" else b"/opt/tensorrt")
    assert options.tensorrt_rtx_library == (None if flavour == "tensorrt" else b"/opt/tensorrt_rtx")
