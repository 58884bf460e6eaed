"""Which class of a model a folder's name means."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.errors import InputError
from edgeformer.text import parse_json, printable, shortened

__all__ = ["Classes", "indices_of_folders", "labels_of", "read_labels"]

_MOST_BYTES = 16 << 20
_LISTED = 6


@dataclass(frozen=True)
class Classes:
    """What is known of the classes of a model.

    Attributes:
        count: how many there are; None where the model does not tell.
        names: their names in the order of their indices; None where nobody has said.
    """

    count: int | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.names is not None and self.count is not None and len(self.names) != self.count:
            raise InputError(
                "EF463", f"there are {len(self.names)} labels for {self.count} classes of the model: give one for each"
            )

    def names_any(self, folders: Iterable[str]) -> bool:
        """Whether one of these folders has the name of a class."""
        known = {_normal(name) for name in self.names or ()}
        return any(_normal(folder) in known for folder in folders)


def indices_of_folders(folder: Path, names: Sequence[str], classes: Classes | None) -> list[int]:
    """The class index of each class folder.

    A name that is a label of the model means that class. Names that are plain integers are class indices. Other names
    in sorted order are the classes (torchvision's convention), if there are as many as the model has.

    Args:
        folder: that holds the folders, for messages.
        names: of the folders, sorted.
        classes: of the model; None where there is no model, and sorted order is what is meant.

    Raises:
        InputError: the names do not tell, or name a class that the model does not have.
    """
    known = classes or Classes(len(names))
    if known.names is not None:
        index = {_normal(name): number for number, name in enumerate(known.names)}
        strange = [name for name in names if _normal(name) not in index]
        if not strange:
            return [index[_normal(name)] for name in names]
        if len(strange) < len(names) or not all(map(_is_number, names)):
            raise InputError(
                "EF461",
                f"{folder}: {len(strange)} of {len(names)} class folders are none of the model's {len(known.names)} "
                f"labels: {_some(strange)}. The labels are {_some(known.names)}: rename the folders to them or to "
                "class indices, or give other ones with --labels FILE",
            )
    if all(map(_is_number, names)):
        return _numbers(folder, names, known.count if classes is not None else None)
    if len(names) == known.count:
        return list(range(len(names)))
    how_many = "an unknown number of" if known.count is None else known.count
    raise InputError(
        "EF461",
        f"{folder} has {len(names)} class folders ({_some(names)}) and the model {how_many} classes, so that their "
        "order does not tell which is which: name the folders by class index (0, 1, ...), or give the model's labels "
        "in order with --labels FILE (one name a line)",
    )


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of classes in the order of their indices.

    Args:
        path: a text file with one name a line, or JSON: a list of names, or a map from index to name or from name to
            index, at the top or under ``id2label``.

    Raises:
        InputError: the file cannot be read, or does not give each class one name of its own.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES >> 20} MiB")
        if content.lstrip()[:1] in (b"[", b"{"):
            return labels_of(parse_json(content))
        lines = content.decode("utf-8").splitlines()
        while lines and not lines[-1].strip():
            lines.pop()
        names = [line.strip() for line in lines]
        _check_names(names)
    except OSError as error:
        raise InputError("EF102", f"cannot read the labels {path}: {error}") from error
    except ValueError as error:
        raise InputError(
            "EF463", f"{path} does not give the names of the classes (one a line, or a JSON list): {error}"
        ) from error
    return tuple(names)


def labels_of(document: Any) -> tuple[str, ...]:
    """The names of classes in the order of their indices, out of a list or a map as `read_labels` takes them in JSON.

    Raises:
        ValueError: it is neither, or does not give each class one name of its own.
    """
    names = _of_json(document)
    _check_names(names)
    return tuple(names)


def _of_json(document: Any) -> list[str]:
    if isinstance(document, Mapping):
        document = document.get("id2label", document)
    if isinstance(document, Mapping):
        document = {str(key): value for key, value in document.items()}
        if all(type(value) is int for value in document.values()):
            if len(set(document.values())) != len(document):
                raise ValueError("two names have the same index")
            document = {str(index): name for name, index in document.items()}
        if sorted(document) != sorted(map(str, range(len(document)))):
            raise ValueError(f"its indices are not 0 to {len(document) - 1}")
        document = [document[str(index)] for index in range(len(document))]
    if not isinstance(document, (list, tuple)) or not all(isinstance(name, str) for name in document):
        raise ValueError("it is neither a list of names nor a map of indices and names")
    return list(document)


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("it is empty")
    seen: set[str] = set()
    for number, name in enumerate(names):
        if not name:
            raise ValueError(f"class {number} has no name")
        if _normal(name) in seen:
            raise ValueError(f"{shortened(name)!r} is there twice")
        seen.add(_normal(name))


def _numbers(folder: Path, names: Sequence[str], count: int | None) -> list[int]:
    found = [int(name) for name in names]
    twice = [name for name, number in zip(names, found, strict=True) if found.count(number) > 1]
    if twice:
        raise InputError("EF461", f"{folder}: the class folders {_some(twice)} mean the same class")
    beyond = [name for name, number in zip(names, found, strict=True) if count is not None and number >= count]
    if beyond:
        raise InputError(
            "EF461",
            f"{folder}: class folders {_some(beyond)} are beyond the model's {count} classes, which are counted from "
            "0: rename them, or give the model's labels in order with --labels FILE (one name a line)",
        )
    return found


def _is_number(name: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", name) is not None


def _normal(name: str) -> str:
    # File systems differ in how they compose accents.
    return unicodedata.normalize("NFC", name.strip())


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(printable(shortened(name, 40)) for name in names[:_LISTED])
    return listed + (", ..." if len(names) > _LISTED else "")
