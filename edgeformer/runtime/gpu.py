"""Can this machine run an engine?"""

from __future__ import annotations

from edgeformer.errors import EnvironmentFault
from edgeformer.machine.backends import Flavour, installed_flavours
from edgeformer.machine.devices import find_gpus

__all__ = ["can_run_engine"]


def can_run_engine(flavour: Flavour | None = None, *, raise_error: bool = False) -> bool:
    """Whether an engine can be run here: a CUDA GPU, and the TensorRT that the engine was built with.

    Args:
        flavour: the TensorRT that the engine needs; None asks for any.
        raise_error: raise instead of returning False.

    Raises:
        EnvironmentFault: with ``raise_error``, what is missing and how to get it.
    """
    survey = find_gpus()
    fault = None
    if not survey.gpus:
        reason = f"no CUDA GPU: {survey.problem}. Run the engine on the machine that it was built for"
        fault = EnvironmentFault("EF650", reason)
    elif not installed_flavours() or flavour not in (None, *installed_flavours()):
        wanted = flavour or "tensorrt"
        reason = f"the Python module {wanted!r} is not installed: pip install {wanted.replace('_', '-')}"
        fault = EnvironmentFault("EF605", reason)
    if fault is not None and raise_error:
        raise fault
    return fault is None
