"""Two models on the same inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from edgeformer.errors import InputError
from edgeformer.records.verification import Comparison
from edgeformer.runtime.session import Array, Session, TensorInfo, as_input
from edgeformer.verify.batches import BatchLike, as_batch, input_name
from edgeformer.verify.figures import Accumulator

__all__ = ["OutputComparer", "check_types", "compare_models", "match_names"]


def check_types(outputs: Mapping[str, TensorInfo]) -> None:
    """Check that every output of a model can be compared.

    Raises:
        InputError: names each output that is not a tensor of floats, integers or booleans.
    """
    faults = [f"output {name!r} is {info}" for name, info in outputs.items() if np.dtype(info.dtype).kind not in "fiub"]
    if faults:
        raise InputError(
            "EF807",
            "; ".join(faults)
            + ": only tensors of floats, integers or booleans can be compared. Leave such outputs out "
            "of the model",
        )


def match_names(reference: Iterable[str], candidate: Iterable[str]) -> None:
    """Check that two models give the same outputs, so that none of either goes uncompared.

    Raises:
        InputError: names each output that one of them lacks.
    """
    first, second = list(reference), list(candidate)
    faults = [
        f"{side} has no output {', '.join(map(repr, names))}"
        for side, names in (
            ("this model", [name for name in first if name not in second]),
            ("the reference", [name for name in second if name not in first]),
        )
        if names
    ]
    if faults:
        raise InputError(
            "EF811",
            f"{' and '.join(faults)}: this model's outputs are {', '.join(second) or '(none)'}, the reference's "
            f"{', '.join(first) or '(none)'}. Every output has to be there under the same name",
        )


class OutputComparer:
    """Compares two models' outputs, name by name and batch by batch."""

    def __init__(self, names: Iterable[str]) -> None:
        """Start with nothing seen.

        Args:
            names: the outputs to compare.
        """
        self._accumulators = {name: Accumulator(name) for name in names}

    def update(self, reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
        """Add a batch of outputs by name.

        Raises:
            InputError: an output is missing, or its shapes differ.
        """
        for name, accumulator in self._accumulators.items():
            for side, outputs in (("reference", reference), ("candidate", candidate)):
                if name not in outputs:
                    raise InputError(
                        "EF811", f"the {side} has no output {name!r}; it has {', '.join(outputs) or 'none'}"
                    )
            accumulator.update(reference[name], candidate[name])

    def result(self) -> dict[str, Comparison]:
        """The figures per output. Raises InputError where there was no sample."""
        return {name: accumulator.result() for name, accumulator in self._accumulators.items()}


def compare_models(reference: Session, candidate: Session, batches: Iterable[BatchLike]) -> dict[str, Comparison]:
    """Run two models on the same batches, one batch in memory at a time.

    Args:
        reference: the model to agree with.
        candidate: the model that is judged; has the outputs of ``reference``, by name and shape.
        batches: images, float32 [samples, channels, height, width], bare or as batches; labels are not used.

    Returns:
        The figures per output of ``reference``.

    Raises:
        InputError: there is no batch, or the models do not fit each other or the batches.
    """
    for session in (reference, candidate):
        check_types(session.outputs)
    match_names(reference.outputs, candidate.outputs)
    comparer = OutputComparer(reference.outputs)
    first, second = input_name(reference), input_name(candidate)
    for item in batches:
        images, _ = as_batch(item)
        given = {first: as_input(reference.inputs[first], images)}
        comparer.update(reference.run(given), candidate.run({second: as_input(candidate.inputs[second], images)}))
    return comparer.result()
