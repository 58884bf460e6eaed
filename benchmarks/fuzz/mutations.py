"""Mutations that know the structure of what they change, so that most of the results are nearly valid."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["mutate_archive", "mutate_array", "mutate_bytes", "mutate_json", "mutate_onnx", "mutate_safetensors"]

Rng = np.random.Generator
_NUMBERS = [0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, -(2**63)]
_FLOATS = [0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 65505.0]
_DOCUMENTS = [
    "1" * 5000,
    "1e400",
    "NaN",
    "[" * 100000,
    "{}",
    "[]",
    "null",
    "true",
    '""',
    '"[/red]"',
    "-1",
    "1e-320",
    "{",
]
_TYPES = ["<f4", ">f4", "<f8", "|u1", "|O", "<U9", "|S3", "<c8", "[('a', '<f4')]", "<M8[s]", "?", "<f2", "x"]
_TEXTS = ["", "input", "[/red]", "[bold]x", "\x1b[31m", "a/b", "../x", "\u202e", "x" * 5000, "\ud7ff", "NaN"]


def pick(rng: Rng, values: Any) -> Any:
    """One of a sequence."""
    return values[int(rng.integers(len(values)))]


def mutate_bytes(content: bytes, rng: Rng) -> bytes:
    """Change, remove, repeat or insert a few bytes, or cut the end off; most often near the beginning."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not found:
            break
        end = len(found) if rng.random() < 0.5 else min(len(found), 400)
        place = int(rng.integers(end))
        length = int(rng.integers(1, 9))
        kind = int(rng.integers(5))
        if kind == 0:
            found[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            found[place : place + length] = rng.bytes(length)
        elif kind == 2:
            del found[place : place + length]
        elif kind == 3:
            found[place:place] = found[place : place + length] * int(rng.integers(1, 40))
        else:
            del found[place:]
    return bytes(found)


def mutate_onnx(content: bytes, rng: Rng) -> bytes:
    """Change a few fields of a model, or, more rarely, its bytes."""
    if rng.random() < 0.15:
        return mutate_bytes(content, rng)
    model = onnx.load_model_from_string(content)
    for _ in range(int(rng.integers(1, 4))):
        pick(rng, _ONNX)(model, rng)
    changed: bytes = model.SerializeToString()
    if rng.random() < 0.1:
        name = pick(rng, [output for node in model.graph.node for output in node.output]).encode()
        changed = changed.replace(name, b"\xb5" + name[1:])
    return changed


def _drop_node(model: onnx.ModelProto, rng: Rng) -> None:
    if len(model.graph.node):
        del model.graph.node[int(rng.integers(len(model.graph.node)))]


def _move_node(model: onnx.ModelProto, rng: Rng) -> None:
    node = onnx.NodeProto()
    place = int(rng.integers(len(model.graph.node)))
    node.CopyFrom(model.graph.node[place])
    if rng.random() < 0.5:
        del model.graph.node[place]
    model.graph.node.insert(int(rng.integers(len(model.graph.node) + 1)), node)


def _rewire(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    if node.input:
        other = pick(rng, model.graph.node)
        node.input[int(rng.integers(len(node.input)))] = pick(rng, [*other.output, *other.input, "", "nowhere"])


def _more_inputs(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    field = node.input if rng.random() < 0.5 else node.output
    if rng.random() < 0.5 and field:
        del field[-1]
    else:
        field.append(pick(rng, ["", "one_more", *node.input]))


def _operator(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    node.op_type = pick(rng, ["Add", "Relu", "TopK", "Softmax", "MatMul", "Loop", "[/b]", "", "Conv", "Gather", "Nope"])
    if rng.random() < 0.3:
        node.domain = pick(rng, ["com.microsoft", "nobody", "ai.onnx.ml", "edgeformer", "[x]"])


def _attribute(model: onnx.ModelProto, rng: Rng) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = pick(rng, nodes)
    attribute = pick(rng, node.attribute)
    value = pick(
        rng,
        [
            pick(rng, _NUMBERS),
            pick(rng, _FLOATS),
            pick(rng, _TEXTS),
            [pick(rng, _NUMBERS) for _ in range(int(rng.integers(4)))],
            numpy_helper.from_array(np.zeros(int(rng.integers(3)), np.float32)),
        ],
    )
    if value == []:
        node.attribute.remove(attribute)
    else:
        attribute.CopyFrom(helper.make_attribute(attribute.name, value))


def _weight(model: onnx.ModelProto, rng: Rng) -> None:
    tensor = pick(rng, model.graph.initializer)
    kind = int(rng.integers(7))
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: -int(rng.integers(1, 9))]
    elif kind == 1:
        tensor.raw_data += rng.bytes(int(rng.integers(1, 9)))
    elif kind == 2 and tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = pick(rng, _NUMBERS)
    elif kind == 3:
        tensor.data_type = int(rng.integers(0, 26))
    elif kind == 4 and tensor.data_type == TensorProto.FLOAT and tensor.raw_data:
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        values[int(rng.integers(values.size))] = pick(rng, _FLOATS)
        tensor.raw_data = values.tobytes()
    elif kind == 5:
        tensor.name = pick(rng, ["", *_TEXTS, pick(rng, model.graph.initializer).name])
    else:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        where = pick(rng, ["../x", "/etc/passwd", "a\0b", "gone.bin", "", "model.onnx", "."])
        tensor.external_data.add(key="location", value=where)
        tensor.external_data.add(key="offset", value=pick(rng, ["0", "-1", "x", str(2**63)]))


def _value(model: onnx.ModelProto, rng: Rng) -> None:
    graph = model.graph
    value = pick(rng, [*graph.input, *graph.output, *graph.value_info])
    kind = int(rng.integers(4))
    dims = value.type.tensor_type.shape.dim
    if kind == 0 and dims:
        dims[int(rng.integers(len(dims)))].dim_value = pick(rng, _NUMBERS)
    elif kind == 1 and dims:
        dims[int(rng.integers(len(dims)))].dim_param = pick(rng, _TEXTS)
    elif kind == 2:
        value.type.tensor_type.elem_type = int(rng.integers(0, 26))
    else:
        pick(rng, [lambda: value.ClearField("type"), lambda: value.type.tensor_type.ClearField("shape")])()


def _outputs(model: onnx.ModelProto, rng: Rng) -> None:
    kind = int(rng.integers(3))
    if kind == 0 and model.graph.output:
        del model.graph.output[0]
    elif kind == 1:
        model.graph.output.add(name=pick(rng, [*pick(rng, model.graph.node).output] or [""]))
    elif model.graph.output:
        model.graph.output.append(pick(rng, model.graph.output))


def _model(model: onnx.ModelProto, rng: Rng) -> None:
    kind = int(rng.integers(5))
    if kind == 0:
        model.opset_import[0].version = pick(rng, [*range(7, 26), *_NUMBERS])
    elif kind == 1:
        model.ir_version = pick(rng, [*range(3, 13), 0, 2**31])
    elif kind == 2:
        model.producer_version = pick(rng, _TEXTS)
    elif kind == 3:
        model.metadata_props.add(
            key="edgeformer.preprocessing", value=pick(rng, [*_TEXTS, "{}", "[" * 100000, "1" * 5000])
        )
    else:
        for node in model.graph.node:
            node.name = "same"


_ONNX: list[Callable[[onnx.ModelProto, Rng], None]] = [
    _drop_node,
    _move_node,
    _rewire,
    _more_inputs,
    _operator,
    _attribute,
    _weight,
    _weight,
    _value,
    _outputs,
    _model,
]


def mutate_json(content: bytes, rng: Rng) -> bytes:
    """Change a value or a key of a document, or its bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    document = json.loads(content)
    keys = list(document)
    key = pick(rng, keys)
    kind = int(rng.integers(4))
    if kind == 0:
        del document[key]
    elif kind == 1:
        document[pick(rng, _TEXTS)] = document[key]
    else:
        document[key] = "HERE"
    text = json.dumps(document).replace('"HERE"', pick(rng, _DOCUMENTS))
    if kind == 3:
        text = text[:-1] + "," + text[1:]
    return text.encode(errors="surrogatepass")


def mutate_array(content: bytes, rng: Rng) -> bytes:
    """Change the header of an ``.npy`` file, or its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    length = struct.unpack("<H", content[8:10])[0]
    dtype = pick(
        rng, ["<f4", ">f4", "<f8", "|u1", "|O", "<U9", "|S3", "<c8", "[('a', '<f4')]", "<M8[s]", "?", "<f2", "x"]
    )
    size = [pick(rng, [0, 1, 2, 3, 64, *_NUMBERS]) for _ in range(int(rng.integers(0, 6)))]
    shape = pick(rng, [(3, 3, 64, 64), tuple(size), "(" * 2000, "__import__('os')", (3.5, 3), -1])
    order = pick(rng, ["True", "False", "None"])
    header = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(length - 1) + b"\n"
    return content[:8] + struct.pack("<H", min(len(header), 65535)) + header + content[10 + length :]


def mutate_archive(content: bytes, rng: Rng) -> bytes:
    """Change a member of a zip archive (an ``.npz`` or ``.pth`` file), its list of members, or its bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place = int(rng.integers(len(members)))
    name, data = members[place]
    kind = int(rng.integers(4))
    if kind == 0:
        members[place] = (name, mutate_array(data, rng) if name.endswith(".npy") else mutate_bytes(data, rng))
    elif kind == 1:
        members[place] = (pick(rng, ["../x", "/x", "labels", "x.npy", ""]), data)
    elif kind == 2:
        del members[place]
    else:
        members.append((name, data))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name or "empty"), data)
    return made.getvalue()


def mutate_safetensors(content: bytes, rng: Rng) -> bytes:
    """Change the header of a safetensors file, or its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = pick(rng, list(header))
    kind = int(rng.integers(6))
    if kind == 0:
        del header[name]
    elif kind == 1 and name != "__metadata__":
        header[name]["dtype"] = pick(rng, ["F64", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "X"])
    elif kind == 2 and name != "__metadata__":
        header[name]["shape"] = [pick(rng, _NUMBERS) for _ in range(int(rng.integers(5)))]
    elif kind == 3 and name != "__metadata__":
        header[name]["data_offsets"] = [pick(rng, _NUMBERS), pick(rng, _NUMBERS)]
    elif kind == 4:
        header[pick(rng, _TEXTS)] = header[name]
    text = json.dumps(header).encode(errors="surrogatepass")
    claimed = len(text) if kind != 5 else pick(rng, [0, 1, 2**40, 2**63, len(text) - 1])
    return struct.pack("<Q", claimed) + text + content[8 + length :]
