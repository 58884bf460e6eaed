"""Is each form of the model as good as the one before? Figures, gates, routing agreement, task accuracy.

Each name is loaded when it is first used: a device judges its engine without onnx, which the other forms need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeformer.records.verification import Comparison as Comparison
    from edgeformer.records.verification import FormReport as FormReport
    from edgeformer.records.verification import GateVerdict as GateVerdict
    from edgeformer.records.verification import RoutingAgreement as RoutingAgreement
    from edgeformer.records.verification import Score as Score
    from edgeformer.records.verification import VerifyReport as VerifyReport
    from edgeformer.verify.compare import compare_models as compare_models
    from edgeformer.verify.decisions import RoutingOutput as RoutingOutput
    from edgeformer.verify.decisions import expose_routing as expose_routing
    from edgeformer.verify.figures import worst as worst
    from edgeformer.verify.forms import ENGINE_NOT_RUN as ENGINE_NOT_RUN
    from edgeformer.verify.forms import Form as Form
    from edgeformer.verify.gates import DEFAULT_MAX_DROP as DEFAULT_MAX_DROP
    from edgeformer.verify.gates import GATES as GATES
    from edgeformer.verify.gates import Gate as Gate
    from edgeformer.verify.gates import check as check
    from edgeformer.verify.gates import judge as judge
    from edgeformer.verify.metrics import TaskMetric as TaskMetric
    from edgeformer.verify.metrics import choose_metric as choose_metric
    from edgeformer.verify.metrics.classification import top1_accuracy as top1_accuracy
    from edgeformer.verify.routing import compare_routing as compare_routing
    from edgeformer.verify.run import BatchSource as BatchSource
    from edgeformer.verify.verification import require as require
    from edgeformer.verify.verification import verify_forms as verify_forms

# Where each name lives.
_HOMES = {
    "BatchSource": "edgeformer.verify.run",
    "Comparison": "edgeformer.records.verification",
    "DEFAULT_MAX_DROP": "edgeformer.verify.gates",
    "ENGINE_NOT_RUN": "edgeformer.verify.forms",
    "Form": "edgeformer.verify.forms",
    "FormReport": "edgeformer.records.verification",
    "GATES": "edgeformer.verify.gates",
    "Gate": "edgeformer.verify.gates",
    "GateVerdict": "edgeformer.records.verification",
    "RoutingAgreement": "edgeformer.records.verification",
    "RoutingOutput": "edgeformer.verify.decisions",
    "Score": "edgeformer.records.verification",
    "TaskMetric": "edgeformer.verify.metrics",
    "VerifyReport": "edgeformer.records.verification",
    "check": "edgeformer.verify.gates",
    "choose_metric": "edgeformer.verify.metrics",
    "compare_models": "edgeformer.verify.compare",
    "compare_routing": "edgeformer.verify.routing",
    "expose_routing": "edgeformer.verify.decisions",
    "judge": "edgeformer.verify.gates",
    "require": "edgeformer.verify.verification",
    "top1_accuracy": "edgeformer.verify.metrics.classification",
    "verify_forms": "edgeformer.verify.verification",
    "worst": "edgeformer.verify.figures",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeformer.verify' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
