"""A form of the model (PyTorch, exported, fused, typed, engine), which is opened when its turn to run comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.graph.onnx_files import load_model
from edgeformer.graph.protos import float_precision
from edgeformer.machine.devices import find_gpus
from edgeformer.machine.engine_code import UNTRUSTED
from edgeformer.runtime import EngineSession, Flavour, OnnxSession, Session, can_run_engine
from edgeformer.verify.decisions import RoutingOutput, expose_routing, show_routing
from edgeformer.verify.gates import fuse_stage

__all__ = ["ENGINE_NOT_RUN", "Form", "OpenForm"]

ENGINE_NOT_RUN = "engine not run: no GPU"

OnnxSource = onnx.ModelProto | str | os.PathLike[str] | Callable[[], onnx.ModelProto]


@dataclass(frozen=True)
class OpenForm:
    """A form that is ready to run.

    Attributes:
        session: what runs it.
        outputs: the model's own outputs; ``session`` may give more, to show its routing.
        routing: the outputs of ``session`` that show routing decisions, which are compared as sets.
    """

    session: Session
    outputs: tuple[str, ...]
    routing: tuple[RoutingOutput, ...] = ()


@dataclass(frozen=True)
class Form:
    """One form of the model. Use the constructors.

    Attributes:
        name: its name in the report; every form has another.
        gate: the name of its gate (see `gates`), or None where nothing is judged, as in the first form.
        opener: gives the form ready to run, for as long as it is entered; None where it cannot run here.
        reason: why it cannot run, where ``opener`` is None.
    """

    name: str
    gate: str | None
    opener: Callable[[], AbstractContextManager[OpenForm]] | None
    reason: str = ""

    @property
    def runs(self) -> bool:
        """Whether the form can run here."""
        return self.opener is not None

    @classmethod
    def not_run(cls, name: str, reason: str, gate: str | None = None) -> Form:
        """A form that cannot run here, and why."""
        return cls(name, gate, None, reason)

    @classmethod
    def from_session(
        cls,
        name: str,
        session: Session,
        gate: str | None = None,
        *,
        routing: tuple[RoutingOutput, ...] = (),
        close: bool = False,
    ) -> Form:
        """A form that runs in a session which is open already, such as a PyTorch model's.

        Args:
            name: the form's name.
            session: what runs it.
            gate: the name of its gate.
            routing: the outputs of ``session`` that show routing decisions and are not results of the model.
            close: close the session after the form's turn, which gives its memory to the forms that follow; else it
                stays open, and whoever opened it closes it.
        """

        @contextmanager
        def opener() -> Iterator[OpenForm]:
            with session if close else nullcontext():
                yield _open(session, routing)

        return cls(name, gate, opener)

    @classmethod
    def from_onnx(
        cls,
        name: str,
        model: OnnxSource,
        gate: str | None = None,
        *,
        threads: int | None = None,
    ) -> Form:
        """An ONNX model or file in ONNX Runtime, made to show its routing decisions as well.

        A file is read when the form's turn comes. If it is not an ONNX model, or one that ONNX Runtime cannot run, it
        is refused then.

        Args:
            name: the form's name.
            model: the model, the path of its file, or a function that makes it when the form's turn comes.
            gate: the name of its gate.
            threads: as for `OnnxSession`.

        Raises:
            InputError: there is no such file.
        """
        if isinstance(model, (str, os.PathLike)) and not Path(model).is_file():
            raise InputError("EF102", f"{Path(model)}: there is no such file")

        @contextmanager
        def opener() -> Iterator[OpenForm]:
            opened = _open_onnx(model, threads)
            with opened.session:
                yield opened

        return cls(name, gate, opener)

    @classmethod
    def fused(cls, exported: str | os.PathLike[str], fused: str | os.PathLike[str]) -> Form:
        """The fused form of an exported file, judged by the precision that this one computes in.

        Raises:
            InputError: one of the files is not there, or the exported one is not an ONNX model.
        """
        return cls.from_onnx("fused", fused, fuse_stage(float_precision(load_model(exported))))

    @classmethod
    def from_engine(
        cls,
        name: str,
        engine: str | os.PathLike[str],
        gate: str,
        *,
        plugin_library: str | os.PathLike[str] | None = None,
        flavour: Flavour | None = None,
        sms: tuple[int, ...] = (),
        trusted: bool = False,
        embedded_plugin: bool = False,
    ) -> Form:
        """An engine file on this machine's GPU.

        An engine only runs on the GPU architecture that it was built for. On a machine with another GPU or none, or
        without its TensorRT, the form does not run and says why; that is not an error.

        Args:
            name: the form's name.
            engine: the engine file; it is loaded when the form's turn comes.
            gate: the name of its gate.
            plugin_library: the library with the plugins in the engine, where there are any.
            flavour: the TensorRT that built the engine; None takes the only one that is installed.
            sms: compute capabilities that the engine was built for, times ten; none leaves it to TensorRT to refuse.
            trusted: its code and that of the plugin library may run; without that it does not run.
            embedded_plugin: as for `EngineSession`.
        """
        gpus = find_gpus().gpus
        if not gpus:
            return cls.not_run(name, ENGINE_NOT_RUN, gate)
        if sms and gpus[0].sm not in sms:
            built_for = ", ".join(map(str, sms))
            reason = (
                f"engine not run: it is for SM {built_for}, and this machine's GPU is a {gpus[0].name} "
                f"(SM {gpus[0].sm})"
            )
            return cls.not_run(name, reason, gate)
        if not trusted:
            return cls.not_run(name, f"engine not run: {UNTRUSTED}", gate)
        try:
            can_run_engine(flavour, raise_error=True)
        except EnvironmentFault as fault:
            return cls.not_run(name, f"engine not run: {fault}", gate)

        @contextmanager
        def opener() -> Iterator[OpenForm]:
            session = EngineSession(
                engine, plugin_library, flavour=flavour, trust_bundle=True, embedded_plugin=embedded_plugin
            )
            with session:
                yield _open(session)

        return cls(name, gate, opener)

    def opened(self) -> AbstractContextManager[OpenForm]:
        """The form ready to run, within the context; what it takes is given back after it.

        Raises:
            InputError: the form cannot run here, or what it is made of cannot be run.
        """
        if self.opener is None:
            raise InputError("EF815", f"the form {self.name!r} cannot run here: {self.reason}")
        return self.opener()


def _open(session: Session, routing: tuple[RoutingOutput, ...] = ()) -> OpenForm:
    shown = {output.name for output in routing}
    return OpenForm(session, tuple(name for name in session.outputs if name not in shown), routing)


def _open_onnx(model: OnnxSource, threads: int | None) -> OpenForm:
    if isinstance(model, onnx.ModelProto):
        own = [value.name for value in model.graph.output]
        exposed, routing = expose_routing(model)
    else:
        # This one is ours alone, so that it can be changed in place.
        exposed = load_model(model) if isinstance(model, (str, os.PathLike)) else model()
        own = [value.name for value in exposed.graph.output]
        routing = show_routing(exposed)
    return OpenForm(OnnxSession(exposed, threads=threads), tuple(own), routing)
