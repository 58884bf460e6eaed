"""Which metric is chosen."""

from __future__ import annotations

import numpy as np

from edgeformer.verify.metrics import TaskMetric, choose_metric, load_metrics
from edgeformer.verify.metrics.classification import Top1
from tests.raising import raises


def test_labels_by_sample_choose_top1() -> None:
    metric = choose_metric({"maps": np.zeros((2, 3, 4, 4)), "logits": np.zeros((2, 5))}, np.zeros(2, int))
    assert isinstance(metric, Top1)
    assert metric.outputs == ("logits",)


def test_labels_that_fit_no_output_say_what_would() -> None:
    needs = [f"{metric.name} needs {metric.needs}" for metric in load_metrics()]
    with raises("EF821", "int64 [2]", "boxes float32 [2, 5, 4]", "kinds int64 [2, 5]", *needs, "without labels"):
        choose_metric({"boxes": np.zeros((2, 5, 4), np.float32), "kinds": np.zeros((2, 5), int)}, np.zeros(2, int))


def test_every_metric_is_one() -> None:
    metrics = load_metrics()
    assert metrics[0] is Top1
    assert all(issubclass(metric, TaskMetric) for metric in metrics)
    assert len({metric.name for metric in metrics}) == len(metrics)
