"""A double of TensorRT 10.3 for builds on a device: it parses, counts, takes limits, and its engines are text.

What it is told comes from the file that $TENSORRT_DOUBLE names, JSON: ``works_below`` is the workspace in bytes that a
build may have at most; ``out_of_memory`` says how a build with more ends: ``reported``, ``killed`` or ``no kernel``.
What it was given is added there, a line for each build: ``TENSORRT_DOUBLE.builds``.
"""

from __future__ import annotations

import enum
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = "10.3.0"

# NodeProto.op_type of our op, as protobuf writes it.
_OP = b'"\x17BiLevelRoutingAttention'


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def log(self, severity: enum.IntEnum, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


class LayerType(enum.Enum):
    PLUGIN, PLUGIN_V2, PLUGIN_V3, CONVOLUTION = range(4)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class OnnxParserFlag(enum.IntEnum):
    NATIVE_INSTANCENORM = 0


class ProfilingVerbosity(enum.Enum):
    DETAILED = 2


class MemoryPoolType(enum.Enum):
    WORKSPACE, TACTIC_DRAM = range(2)


def _told() -> dict[str, Any]:
    path = os.environ.get("TENSORRT_DOUBLE")
    told: dict[str, Any] = json.loads(Path(path).read_text()) if path else {}
    return told


class Network:
    def __init__(self) -> None:
        self.layers: list[LayerType] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    num_inputs = num_outputs = 1

    def get_layer(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(type=self.layers[index])

    def get_input(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(name="input", shape=(-1, 3, 112, 112), dtype=SimpleNamespace(name="FLOAT"))

    def get_output(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(name="output", shape=(-1, 10), dtype=SimpleNamespace(name="FLOAT"))


class OnnxParser:
    num_errors = 0

    def __init__(self, network: Network, logger: ILogger) -> None:
        self._network = network

    def parse_from_file(self, path: str) -> bool:
        count = Path(path).read_bytes().count(_OP)
        self._network.layers = [LayerType.CONVOLUTION, *[LayerType.PLUGIN_V3] * count]
        return True


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"timed;"


class Config:
    profiling_verbosity: Any = None
    max_aux_streams = -1
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.limits: dict[str, int] = {}
        self.cache: TimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.limits[pool.name] = size

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(bytes(content))

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and not cache.content.startswith(b"timed;"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.cache


class Profile:
    def set_shape(self, name: str, *shapes: Any) -> None:
        pass


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def get_plugin_registry(self) -> SimpleNamespace:
        creator = SimpleNamespace(name="BiLevelRoutingAttention", plugin_version="1", plugin_namespace="")
        return SimpleNamespace(all_creators_recursive=[creator])

    def create_network(self, flags: int) -> Network:
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        told = _told()
        if "TENSORRT_DOUBLE" in os.environ:
            with Path(os.environ["TENSORRT_DOUBLE"] + ".builds").open("a") as file:
                cache = config.cache.content.decode() if config.cache else None
                file.write(json.dumps({**config.limits, "cache": cache}) + "\n")
        limit = told.get("works_below")
        if limit is not None and config.limits.get("WORKSPACE", 1 << 60) > limit:
            if told["out_of_memory"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            text = "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)"
            if told["out_of_memory"] == "no kernel":
                text = "Error Code 10: Internal Error (Could not find any implementation for node conv.)"
            self._logger.log(Severity.ERROR, text)
            return None
        return f"engine with {sum(layer is LayerType.PLUGIN_V3 for layer in network.layers)} plugins".encode()
