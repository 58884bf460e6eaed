"""Is each form of the model as good as the one before? Figures, gates, routing agreement, task accuracy."""

from __future__ import annotations

from edgeformer.verify.compare import compare_models
from edgeformer.verify.decisions import expose_routing
from edgeformer.verify.figures import Comparison, worst
from edgeformer.verify.forms import ENGINE_NOT_RUN, Form, verify_forms
from edgeformer.verify.gates import DEFAULT_MAX_DROP, GATES, Gate, Verdict, check
from edgeformer.verify.metrics.classification import Accuracy, top1_accuracy
from edgeformer.verify.results import FormReport, VerifyReport, require
from edgeformer.verify.routing import RoutingAgreement, compare_routing

__all__ = [
    "DEFAULT_MAX_DROP",
    "ENGINE_NOT_RUN",
    "GATES",
    "Accuracy",
    "Comparison",
    "Form",
    "FormReport",
    "Gate",
    "RoutingAgreement",
    "Verdict",
    "VerifyReport",
    "check",
    "compare_models",
    "compare_routing",
    "expose_routing",
    "require",
    "top1_accuracy",
    "verify_forms",
    "worst",
]
