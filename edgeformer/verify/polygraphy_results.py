"""The outputs of each form in Polygraphy's files, for its tools: ``polygraphy inspect data``, ``polygraphy run``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeformer.artifacts import write_text
from edgeformer.errors import InputError
from edgeformer.outputs import check_output, making_folders
from edgeformer.runtime.session import Array

__all__ = ["INPUTS_FILE", "PolygraphyResults", "results_file"]

INPUTS_FILE = "inputs.json"


def results_file(form: str) -> str:
    """The name of the file with a form's outputs."""
    return f"{form}.json"


class PolygraphyResults:
    """Writes what forms gave: a file a form, which Polygraphy's ``RunResults`` reads, and one with the inputs."""

    def __init__(self, folder: Path) -> None:
        """Check where the files go; nothing is written yet.

        Args:
            folder: made where it is not there; files of the same names are replaced.

        Raises:
            InputError: the files cannot be written there.
        """
        try:
            check_output(folder, folder=True)
        except OSError as error:
            raise InputError("EF102", f"{error.filename or folder}: {error.strerror}") from error
        if folder.exists() and not folder.is_dir():
            raise InputError("EF102", f"{folder}: is no folder; name one for the outputs")
        self._folder = folder

    def add(self, form: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Write one run of a form.

        Args:
            form: its name.
            inputs: what it was given, by name.
            outputs: what it gave, by name.

        Raises:
            InputError: a file cannot be written.
        """
        from polygraphy.comparator import RunResults
        from polygraphy.json import to_json

        results = RunResults()
        results.add([dict(outputs)], runner_name=form)
        try:
            with making_folders(self._folder):
                write_text(self._folder / INPUTS_FILE, to_json([dict(inputs)]))
                write_text(self._folder / results_file(form), results.to_json())
        except OSError as error:
            raise InputError("EF102", f"{error.filename or self._folder}: {error.strerror}") from error
