"""Can this machine run an engine?"""

from __future__ import annotations

from edgeformer.errors import EnvironmentFault
from edgeformer.inference.backend_libraries import has_tensorrt
from edgeformer.machine.backends import FLAVOURS, Flavour, install_command
from edgeformer.machine.devices import find_gpus

__all__ = ["can_run_engine"]


def can_run_engine(flavour: Flavour | None = None, *, raise_error: bool = False) -> bool:
    """Whether an engine can be run here: a CUDA GPU, and the library of the TensorRT that the engine was built with.

    Its Python module is not needed: the runtime library calls the library itself.

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
    elif not any(has_tensorrt(name) for name in FLAVOURS if flavour in (None, name)):
        wanted = flavour or "tensorrt"
        reason = (
            f"the library of {wanted} is not there: {install_command(wanted)}, or name it in "
            f"EDGEFORMER_{wanted.upper()}_LIBRARY"
        )
        fault = EnvironmentFault("EF605", reason)
    if fault is not None and raise_error:
        raise fault
    return fault is None
