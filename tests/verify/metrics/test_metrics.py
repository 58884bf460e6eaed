"""Which metric is chosen."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgeformer.errors import InputError
from edgeformer.verify.metrics import TaskMetric, choose_metric, load_metrics
from edgeformer.verify.metrics.classification import Top1


def test_labels_by_sample_choose_top1() -> None:
    metric = choose_metric({"maps": np.zeros((2, 3, 4, 4)), "logits": np.zeros((2, 5))}, np.zeros(2, int))
    assert isinstance(metric, Top1)
    assert metric.outputs == ("logits",)


def test_labels_that_fit_no_output_say_what_would() -> None:
    with pytest.raises(InputError) as caught:
        choose_metric({"boxes": np.zeros((2, 5, 4), np.float32), "kinds": np.zeros((2, 5), int)}, np.zeros(2, int))
    message = str(caught.value)
    assert message.startswith(
        "labels int64 [2] fit none of the outputs (boxes float32 [2, 5, 4], kinds int64 [2, 5]): "
        "top-1 accuracy needs logits [samples, classes] and labels [samples]"
    )
    assert message.endswith("Give images without labels to have the outputs compared with each other alone")
    assert all(re.search(rf"{metric.name} needs ", message) for metric in load_metrics())


def test_every_metric_is_one() -> None:
    metrics = load_metrics()
    assert metrics[0] is Top1
    assert all(issubclass(metric, TaskMetric) for metric in metrics)
    assert len({metric.name for metric in metrics}) == len(metrics)
