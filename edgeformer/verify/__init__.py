"""Is each form of the model as good as the one before? Figures, gates, routing agreement, task accuracy."""

from __future__ import annotations

from edgeformer.records.verification import Comparison, FormReport, GateVerdict, RoutingAgreement, Score, VerifyReport
from edgeformer.verify.compare import compare_models
from edgeformer.verify.decisions import RoutingOutput, expose_routing
from edgeformer.verify.figures import worst
from edgeformer.verify.forms import ENGINE_NOT_RUN, Form
from edgeformer.verify.gates import DEFAULT_MAX_DROP, GATES, Gate, check, judge
from edgeformer.verify.metrics import TaskMetric, choose_metric
from edgeformer.verify.metrics.classification import top1_accuracy
from edgeformer.verify.routing import compare_routing
from edgeformer.verify.run import BatchSource
from edgeformer.verify.verification import require, verify_forms

__all__ = [
    "DEFAULT_MAX_DROP",
    "ENGINE_NOT_RUN",
    "GATES",
    "BatchSource",
    "Comparison",
    "Form",
    "FormReport",
    "Gate",
    "GateVerdict",
    "RoutingAgreement",
    "RoutingOutput",
    "Score",
    "TaskMetric",
    "VerifyReport",
    "check",
    "choose_metric",
    "compare_models",
    "compare_routing",
    "expose_routing",
    "judge",
    "require",
    "top1_accuracy",
    "verify_forms",
    "worst",
]
