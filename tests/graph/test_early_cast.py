"""A byte input is cast before its bytes move, and the graph computes the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, parser

from edgeformer.graph.early_cast import with_early_casts
from edgeformer.runtime import OnnxSession

X = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 3), dtype=np.uint8)


def graph(body: str, kind: str = "uint8", shape: str = "1,3,2,4") -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g ({kind}[1,2,4,3] x) => (float[{shape}] y) {{ {body} }}'
    )


def test_the_cast_comes_first() -> None:
    model = graph("t = Transpose<perm=[0, 3, 1, 2]>(x) i = Identity(t) f = Cast<to=1>(i) y = Neg(f)")
    moved = with_early_casts(model)
    assert [node.op_type for node in moved.graph.node] == ["Cast", "Transpose", "Identity", "Cast", "Neg"]
    assert moved.graph.node[0].input[0] == "x"
    assert moved.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    onnx.checker.check_model(moved, full_check=True)
    with OnnxSession(model) as before, OnnxSession(moved) as after:
        np.testing.assert_array_equal(before.run({"x": X})["y"], after.run({"x": X})["y"])


def test_what_needs_no_cast_or_cannot_have_it_is_returned_itself() -> None:
    for model in (
        graph("f = Cast<to=1>(x) y = Transpose<perm=[0, 3, 1, 2]>(f)"),
        graph("t = Transpose<perm=[0, 3, 1, 2]>(x) u = Add(t, t) y = Cast<to=1>(u)"),
        graph("y = Transpose<perm=[0, 3, 1, 2]>(x)", "float"),
    ):
        assert with_early_casts(model) is model
