"""The built files: what they export, what they need, what the metadata says."""

from __future__ import annotations

import ctypes
import json
import platform
import re
import subprocess
from pathlib import Path

from tests.plugins.conftest import ROOT

C_FUNCTIONS = [
    "edgeformerBiLevelRoutingAttention",
    "edgeformerBiLevelRoutingAttentionPlan",
    "edgeformerBiLevelRoutingAttentionWorkspace",
    "edgeformerTakeErrors",
]


def output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def dynamic_entries(library: Path, tag: str) -> list[str]:
    return re.findall(rf"\({tag}\).*\[(.*)\]", output_of("readelf", "--dynamic", "--wide", str(library)))


def exported_symbols(library: Path) -> list[str]:
    """Read with readelf, which knows every processor."""
    entry = re.compile(r"\s+\d+: \S+ +\d+ \w+ +(?:GLOBAL|WEAK) +DEFAULT +\d+ (\S+)$")
    lines = output_of("readelf", "--dyn-syms", "--wide", str(library)).splitlines()
    return sorted(match[1] for match in map(entry.match, lines) if match)


def test_only_the_entry_points_are_exported(plugin_library: Path) -> None:
    for_tensorrt = ["getCreators", "setLoggerFinder"]
    assert exported_symbols(plugin_library) == sorted([*C_FUNCTIONS, *for_tensorrt])


def test_the_c_headers_declare_what_is_exported() -> None:
    headers = ("bi_level_routing_attention/c_api.h", "common/c_status.h", "common/c_types.h")
    text = "".join((ROOT / "plugins" / header).read_text() for header in headers)
    assert sorted(re.findall(r"EDGEFORMER_API\s+\w+\s+(\w+)\(", text)) == sorted(C_FUNCTIONS)


def test_nothing_but_the_c_and_cpp_libraries_is_needed(plugin_library: Path) -> None:
    allowed = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2", "librt.so.1"}
    allowed |= {"libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert set(dynamic_entries(plugin_library, "NEEDED")) <= allowed
    undefined = output_of("nm", "-D", "--undefined-only", str(plugin_library))
    assert not re.search(r"getPluginRegistry|getLogger|nvinfer1|cudart", undefined)


def test_every_symbol_resolves_without_tensorrt(plugin_library: Path) -> None:
    code = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW)"
    loaded = subprocess.run(["python3", "-c", code, str(plugin_library)], capture_output=True, text=True, check=False)
    assert (loaded.returncode, loaded.stderr) == (0, "")


def test_the_alias_has_the_name_that_tensorrt_rtx_opens(plugin_library: Path) -> None:
    alias = plugin_library.with_name("libtensorrt_rtx.so")
    assert dynamic_entries(alias, "SONAME") == ["libtensorrt_rtx.so"]
    assert dynamic_entries(alias, "NEEDED")[0] == "libtensorrt_rtx.so.1"
    # A search path could find the stand-in it was linked against.
    assert dynamic_entries(alias, "RUNPATH") == dynamic_entries(alias, "RPATH") == []


def test_metadata_says_what_the_library_is(plugin_library: Path) -> None:
    metadata = json.loads(plugin_library.with_suffix(".json").read_text())
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert metadata["version"] == version[1]
    assert metadata["aux"] == "libtensorrt_rtx.so"
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["tensorrt_headers"])
    assert re.fullmatch(r"\d+\.\d+", metadata["cuda"])
    assert metadata["cpu"] == platform.machine()
    # nvcc stores one ELF image per architecture, with its name in it.
    content = plugin_library.read_bytes()
    assert metadata["architectures"]
    for architecture in metadata["architectures"]:
        assert f"sm_{architecture}".encode() in content


def test_messages_can_be_taken_from_python(plugin_library: Path) -> None:
    take = ctypes.CDLL(str(plugin_library)).edgeformerTakeErrors
    take.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    take.restype = ctypes.c_size_t
    buffer = ctypes.create_string_buffer(4096)
    take(buffer, len(buffer))
    assert take(buffer, len(buffer)) == 0
    assert buffer.value == b""
