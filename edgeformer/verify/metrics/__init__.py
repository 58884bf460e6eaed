"""Task metrics, and which of them suits the outputs and the labels."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from edgeformer.errors import InputError
from edgeformer.records.verification import Score
from edgeformer.runtime.session import Array
from edgeformer.verify.batches import Labels
from edgeformer.verify.metrics.base import TaskMetric

__all__ = ["METRICS", "Score", "TaskMetric", "choose_metric", "load_metrics"]

# Each metric's module here and its class. The first that finds outputs to judge is taken.
METRICS = ("classification.Top1", "segmentation.MeanIoU")


def load_metrics() -> tuple[type[TaskMetric], ...]:
    """The metrics that `METRICS` names."""
    places = (name.split(".") for name in METRICS)
    return tuple(getattr(import_module(f"{__name__}.{module}"), metric) for module, metric in places)


def choose_metric(outputs: Mapping[str, Array], labels: Labels) -> TaskMetric:
    """A metric that judges such outputs with such labels, with nothing seen yet.

    Args:
        outputs: a batch of a model's outputs by name, [samples, ...] each.
        labels: the batch's labels, [samples, ...].

    Raises:
        InputError: no metric fits; names the outputs, the labels, and what each metric needs.
    """
    metrics = load_metrics()
    for metric in metrics:
        found = metric.find(outputs, labels)
        if found:
            return metric(found)
    given = ", ".join(f"{name} {array.dtype.name} {list(array.shape)}" for name, array in outputs.items())
    needs = "; ".join(f"{metric.name} needs {metric.needs}" for metric in metrics)
    raise InputError(
        "EF821",
        f"labels {labels.dtype.name} {list(labels.shape)} fit none of the outputs ({given}): {needs}. Give images "
        "without labels to have the outputs compared with each other alone",
    )
