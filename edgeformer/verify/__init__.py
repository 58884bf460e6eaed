"""Is each form of the model as good as the one before? Figures, gates, routing agreement, task accuracy."""

from __future__ import annotations

from edgeformer.verify.compare import compare_models
from edgeformer.verify.decisions import RoutingOutput, expose_routing
from edgeformer.verify.figures import Comparison, worst
from edgeformer.verify.forms import ENGINE_NOT_RUN, Form
from edgeformer.verify.gates import DEFAULT_MAX_DROP, GATES, Gate, Verdict, check, judge
from edgeformer.verify.metrics import Score, TaskMetric, choose_metric
from edgeformer.verify.metrics.classification import top1_accuracy
from edgeformer.verify.results import FormReport, VerifyReport, require
from edgeformer.verify.routing import RoutingAgreement, compare_routing
from edgeformer.verify.run import BatchSource
from edgeformer.verify.verification import verify_forms

__all__ = [
    "DEFAULT_MAX_DROP",
    "ENGINE_NOT_RUN",
    "GATES",
    "BatchSource",
    "Comparison",
    "Form",
    "FormReport",
    "Gate",
    "RoutingAgreement",
    "RoutingOutput",
    "Score",
    "TaskMetric",
    "Verdict",
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
