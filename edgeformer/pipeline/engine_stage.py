"""The engine as a stage that runs on this machine's GPU, or that says why it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeformer.machine.backends import Flavour
    from edgeformer.verify import Form

__all__ = ["closing_engine", "engine_stage"]


def engine_stage(engine: Path, precision: str, *, sm: int, flavour: Flavour, plugin: Path | None) -> Form:
    """The engine file as the stage ``engine``.

    An engine only runs on the GPU architecture it was built for; on a machine with another one, as without any, the
    stage is not run and that is no fault.

    Args:
        engine: the engine file.
        precision: names the gate.
        sm: compute capability the engine was built for, times ten.
        flavour: TensorRT that built it.
        plugin: the plugin library it needs, if any.

    Raises:
        InputError: the GPU is the right one and TensorRT cannot load the engine.
    """
    from edgeformer.machine.devices import find_gpus
    from edgeformer.verify import Form

    gpus = find_gpus().gpus
    if gpus and gpus[0].sm != sm:
        reason = f"engine not run: it is for SM {sm}, and this machine's GPU is a {gpus[0].name} (SM {gpus[0].sm})"
        return Form("engine", None, precision, reason=reason)
    return Form.from_engine("engine", engine, precision, plugin_library=plugin, flavour=flavour)


@contextmanager
def closing_engine(stage: Form) -> Iterator[None]:
    """Free the engine of ``stage``, if it has one, on the way out."""
    from edgeformer.runtime import EngineSession

    try:
        yield
    finally:
        if isinstance(stage.session, EngineSession):
            stage.session.close()
