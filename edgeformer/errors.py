"""The errors a user can meet, and the exit code each one ends the command line with."""

from __future__ import annotations

__all__ = ["EdgeformerError", "EnvironmentFault", "GateMissed", "InputError"]


class EdgeformerError(Exception):
    """Base of every error that edgeformer raises on purpose.

    The message is written for the user: the value at fault, the limit, and the way out. The command line prints it
    without a traceback and exits with ``exit_code``. Any other exception is a fault of edgeformer and keeps its
    traceback.
    """

    exit_code = 1


class InputError(EdgeformerError):
    """What the user gave cannot be used: a file, an option, a shape, a checkpoint. Exit code 2, as Click's own."""

    exit_code = 2


class GateMissed(EdgeformerError):
    """A stage ran, and its figure missed the gate. Nothing is published. Exit code 3."""

    exit_code = 3


class EnvironmentFault(EdgeformerError):
    """The machine lacks something: a package, a compiler, a driver, disk space. Exit code 4."""

    exit_code = 4
