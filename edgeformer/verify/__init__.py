"""Is each stage as good as the one before? Figures, gates, routing agreement, task accuracy."""

from __future__ import annotations

from edgeformer.verify.compare import compare_models
from edgeformer.verify.figures import Comparison, worst
from edgeformer.verify.forms import ENGINE_NOT_RUN, Stage, verify_stages
from edgeformer.verify.gates import DEFAULT_MAX_DROP, GATES, Gate, Verdict, check
from edgeformer.verify.metrics.classification import Accuracy, top1_accuracy
from edgeformer.verify.results import StageReport, VerifyReport, require
from edgeformer.verify.routing import RoutingAgreement, compare_routing, expose_routing

__all__ = [
    "DEFAULT_MAX_DROP",
    "ENGINE_NOT_RUN",
    "GATES",
    "Accuracy",
    "Comparison",
    "Gate",
    "RoutingAgreement",
    "Stage",
    "StageReport",
    "Verdict",
    "VerifyReport",
    "check",
    "compare_models",
    "compare_routing",
    "expose_routing",
    "require",
    "top1_accuracy",
    "verify_stages",
    "worst",
]
