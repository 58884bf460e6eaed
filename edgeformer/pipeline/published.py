"""What goes into a bundle is passed on: paths of the machine that made it and notes on its sources stay behind."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeformer.records.base import Record
from edgeformer.text import printable

if TYPE_CHECKING:
    import onnx

__all__ = ["without_notes", "without_paths"]

R = TypeVar("R", bound=Record)

# Of what exporters note at each node, where it comes from in the model. Other notes of theirs are stack traces.
_EXPORTERS_NOTES = "pkg."
_KEPT_NOTES = frozenset({"pkg.torch.onnx.name_scopes"})
_PATH = re.compile(r"""(?<![\w.~/-])/(?:[^\s/:;,'"()<>|]+/)+[^\s/:;,'"()<>|]*""")


def without_paths(record: R, given: Iterable[Any] = ()) -> R:
    """A copy of a record with the name alone in place of every absolute path in its texts.

    A path is what lies below the user's home, the working or the temporary folder, or in a folder that exists here:
    node names of ONNX graphs, which begin with a slash as well, stay.

    Args:
        record: of any type; the keys of its tables are left as they are.
        given: paths that the user gave, which may have spaces in them; what is no path is passed over.
    """
    spellings: dict[str, str] = {}
    for path in given:
        if isinstance(path, (str, os.PathLike)):
            for spelling in (Path(path), Path(path).absolute(), Path(path).resolve()):
                if spelling.is_absolute() and spelling.name:
                    spellings |= dict.fromkeys((str(spelling), printable(str(spelling))), printable(spelling.name))
    ordered = sorted(spellings.items(), key=lambda item: -len(item[0]))
    return type(record).model_validate(_hidden(record.model_dump(), ordered))


def without_notes(model: onnx.ModelProto) -> None:
    """Take out of a model, in place, what its exporter noted of the sources: documentation strings and stack traces.

    The model's own metadata stay, with names in place of paths.
    """
    model.doc_string = ""
    for entry in model.metadata_props:
        entry.value = _hidden(entry.value, [])
    for function in model.functions:
        function.doc_string = ""
        _drop_notes(function)
        _clean_nodes(function.node)
        for value in function.value_info:
            _clean(value)
    _clean_graph(model.graph)


def _clean_graph(graph: onnx.GraphProto) -> None:
    _clean(graph)
    for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        _clean(item)
    _clean_nodes(graph.node)


def _clean_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    from edgeformer.graph.protos import subgraphs

    for node in nodes:
        _clean(node)
        for attribute in node.attribute:
            attribute.doc_string = ""
        for body in subgraphs(node):
            _clean_graph(body)


def _clean(item: Any) -> None:
    if item.doc_string:
        item.doc_string = ""
    _drop_notes(item)


def _drop_notes(item: Any) -> None:
    kept = [e for e in item.metadata_props if e.key in _KEPT_NOTES or not e.key.startswith(_EXPORTERS_NOTES)]
    if len(kept) < len(item.metadata_props):
        del item.metadata_props[:]
        item.metadata_props.extend(kept)


def _hidden(value: Any, spellings: list[tuple[str, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(item, spellings) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_hidden(item, spellings) for item in value)
    if not isinstance(value, str) or "/" not in value:
        return value
    for spelling, name in spellings:
        value = value.replace(spelling, name)
    return _PATH.sub(_name, value)


def _name(match: re.Match[str]) -> str:
    path = Path(match[0])
    ours = any(path.is_relative_to(root) for root in _roots())
    return path.name if ours or path.parent.is_dir() else match[0]


def _roots() -> Iterator[Path]:
    for root in (Path.home(), Path.cwd(), Path(tempfile.gettempdir())):
        for spelling in (root, root.resolve()):
            if spelling != Path("/"):
                yield spelling
