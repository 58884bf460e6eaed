from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeformer.engine.targets import Target, get_target
from edgeformer.machine.plugin_library import PluginLibrary, find_plugin_library
from edgeformer.ops.bi_level_routing_attention import Attributes, with_function

# Small enough to build in a fraction of a second: two regions a side, one head.
ATTRIBUTES = Attributes(num_heads=2, regions=2, topk=2, qk_dim=16, scale=0.25)


def linear_model(batch: int | str = "N", activation: str = "Relu", domain: str = "") -> onnx.ModelProto:
    """x [batch, 8] -> MatMul -> activation -> y [batch, 4], FP32."""
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name="matmul"),
            helper.make_node(activation, ["product"], ["y"], name="last", domain=domain),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def attention_model(
    blocks: int = 2,
    element_type: int = TensorProto.FLOAT16,
    shape: tuple[int | str, int | str, int | str] = ("N", 8, 12),
) -> onnx.ModelProto:
    """x [N, H, W, 48] -> (op -> MatMul back to 48 channels) * blocks -> y, with the op's function."""
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    rng = np.random.default_rng(1)
    nodes, weights, value = [], [], "x"
    for index in range(blocks):
        weights.append(numpy_helper.from_array(rng.standard_normal((16, 48)).astype(dtype), f"w{index}"))
        nodes.append(ATTRIBUTES.make_node(value, f"attended{index}", f"attention{index}"))
        last = "y" if index == blocks - 1 else f"value{index}"
        nodes.append(helper.make_node("MatMul", [f"attended{index}", f"w{index}"], [last], name=f"matmul{index}"))
        value = last
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", element_type, [*shape, 48])],
        [helper.make_tensor_value_info("y", element_type, [*shape, 48])],
        weights,
    )
    return with_function(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


@pytest.fixture
def rtx30() -> Target:
    return get_target("rtx-30")


@pytest.fixture
def plugin_library() -> PluginLibrary:
    library = find_plugin_library()
    if library is None:
        pytest.skip("the plugin library is not built: cmake --preset default && cmake --build --preset default")
    return library


@pytest.fixture
def no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A check that a build left neither files in the temporary folder nor a process that works on them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    def check() -> None:
        assert list(folder.iterdir()) == []
        assert processes_naming(folder) == []

    return check


def processes_naming(folder: Path) -> list[str]:
    """Command lines of the processes that have ``folder`` among their arguments."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            lines.append(line)
    return lines
