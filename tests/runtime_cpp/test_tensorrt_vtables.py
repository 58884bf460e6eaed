"""The places of TensorRT's methods in ``runtime/src/tensorrt/abi.cpp``, held to those that NVIDIA's own bindings call.

The bindings get a library whose methods note their number (`vtable_recorder.cpp`). This tries those that are installed;
which others agreed is written in ``abi.cpp``.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "runtime" / "src" / "tensorrt"
BINDINGS = {
    "tensorrt": ("libnvinfer.so.{major}", ("libnvinfer_plugin.so.{major}", "libnvonnxparser.so.{major}")),
    "tensorrt_rtx": ("libtensorrt_rtx.so.1", ("libtensorrt_onnxparser_rtx.so.1",)),
}


def slot_names() -> dict[str, list[str]]:
    """The fields of each struct of `Abi`, in order."""
    header = (SOURCES / "abi.h").read_text(encoding="utf-8")
    structs = re.findall(r"    struct (\w+) \{\n(.*?)\n    \};", header, re.DOTALL)
    return {name: re.findall(r"^\s+Slot (\w+);", body, re.MULTILINE) for name, body in structs}


def table(flavour: str) -> dict[str, int]:
    """The places that the runtime has for a flavour, such as ``TensorRtRtx``; absent ones left out."""
    source = re.sub(r"//.*", "", (SOURCES / "abi.cpp").read_text(encoding="utf-8"))
    entry = re.search(rf"constexpr Abi k{flavour} = \{{(.*?)\n\}};", source, re.DOTALL)
    assert entry is not None
    groups = [
        [place.strip() for place in group.split(",") if place.strip()] for group in re.findall(r"\{(.*?)\}", entry[1])
    ]
    names = slot_names()
    assert [len(group) for group in groups] == [len(fields) for fields in names.values()]
    places = {
        f"{struct}.{field}": int(place)
        for (struct, fields), group in zip(names.items(), groups, strict=True)
        for field, place in zip(fields, group, strict=True)
        if place != "kAbsent"
    }
    versioned, plain = (word == "true" for word in re.findall(r"\b(?:true|false)\b", entry[1]))
    return places | allocator_places(plain) | {"log": 4 if versioned else 0}


def allocator_places(plain: bool) -> dict[str, int]:
    """Where the runtime's own IOutputAllocator has its methods: behind four places that describe and destroy it."""
    source = (SOURCES / "output_allocator.cpp").read_text(encoding="utf-8")
    name = "PlainInterface" if plain else "AsyncInterface"
    (body,) = re.findall(rf"^class OutputAllocator::{name} final .*?^}};", source, re.MULTILINE | re.DOTALL)
    theirs = {
        "Reallocate": "reallocate_output",
        "ReallocateAsync": "reallocate_output_async",
        "NotifyShape": "notify_shape",
    }
    methods = re.findall(r"^    virtual .*?(\w+)\(", body, re.MULTILINE)
    return {f"OutputAllocator.{theirs[method]}": place for place, method in enumerate(methods, 4)}


def probe(module: str, folder: Path) -> tuple[str, dict[str, int]]:
    """The flavour of the installed bindings, and the places that they call."""
    spec = importlib.util.find_spec(f"{module}_bindings")
    if spec is None or spec.origin is None:
        pytest.skip(f"{module} is not installed")
    bindings = Path(spec.origin).parent
    needed = subprocess.run(
        ["objdump", "-p", str(bindings / f"{module}.so")], capture_output=True, text=True, check=True
    ).stdout
    major = re.search(r"libnvinfer\.so\.(\d+)", needed)
    soname, others = BINDINGS[module]
    soname = soname.format(major=major[1] if major else "")
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    recorder = str(HERE / "vtable_recorder.cpp")
    subprocess.run(["g++", *flags, f"-Wl,-soname,{soname}", recorder, "-o", str(folder / soname)], check=True)
    for other in others:
        name = other.format(major=major[1] if major else "")
        empty = ["-x", "c++", "/dev/null", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run(["g++", *flags, *empty], check=True)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "vtable_probe.py"), str(bindings), module, soname],
        env={"LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    places: dict[str, int] = json.loads(result.stdout)
    return f"TensorRt{major[1]}" if major else "TensorRtRtx", places


@pytest.mark.parametrize("module", BINDINGS)
def test_the_runtime_calls_methods_where_nvidias_bindings_do(module: str, tmp_path: Path) -> None:
    for program in ("g++", "objdump"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    flavour, places = probe(module, tmp_path)
    expected = table(flavour)
    # Bindings of TensorRT 10.11 and later have methods that the runtime calls of TensorRT-RTX alone.
    assert {name: place for name, place in places.items() if name in expected} == expected


def test_the_table_is_read_as_it_is_written() -> None:
    ten, eleven, rtx = table("TensorRt10"), table("TensorRt11"), table("TensorRtRtx")
    assert ten["Runtime.deserialize_engine"] == 3
    assert ten["log"] == 0
    assert (ten["OutputAllocator.notify_shape"], rtx["OutputAllocator.notify_shape"]) == (6, 5)
    assert "Context.is_stream_capturable" not in ten | eleven
    # TensorRT-RTX has what TensorRT 11 has, in the same places, and more.
    methods = {name: place for name, place in eleven.items() if not name.startswith("OutputAllocator.")}
    assert methods.items() <= rtx.items()
    assert len(rtx) == sum(map(len, slot_names().values())) + 2 + 1
