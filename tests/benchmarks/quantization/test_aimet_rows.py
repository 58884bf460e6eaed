"""Where AIMET rounds what a layer reads. AIMET itself is not needed."""

from __future__ import annotations

from onnx import helper

from benchmarks.quantization.tools.aimet_rows import _rounded_at


def test_a_tensor_is_rounded_in_front_of_what_moves_it() -> None:
    nodes = [helper.make_node("Transpose", ["sum"], ["turned"]), helper.make_node("Reshape", ["turned", "s"], ["flat"])]
    maker = {node.output[0]: node for node in nodes}
    assert _rounded_at("flat", {"sum", "input"}, maker) == "sum"
    assert _rounded_at("turned", {"turned", "sum"}, maker) == "turned"
    assert _rounded_at("weight", set(), maker) == "weight"
