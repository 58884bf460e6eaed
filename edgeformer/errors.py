"""The errors a user can meet: each with a stable code, and the exit code that it ends the command line with.

``docs/errors.md`` lists the codes. A code names a kind of fault and outlives its wording: programs and tests look at
the code and at the values in the message, people read the sentence.
"""

from __future__ import annotations

__all__ = ["EdgeformerError", "EnvironmentFault", "GateMissed", "InputError"]


class EdgeformerError(Exception):
    """Base of every error that edgeformer raises on purpose.

    The message is written for the user: the value at fault, the limit, and the way out. The command line prints code
    and message without a traceback and exits with ``exit_code``. Any other exception is a fault of edgeformer and keeps
    its traceback.

    Attributes:
        code: ``EF`` and three digits, as ``docs/errors.md`` lists them.
    """

    exit_code = 1

    def __init__(self, code: str, message: str) -> None:
        """Make an error.

        Args:
            code: the code of its kind.
            message: what is wrong, and the way out.
        """
        super().__init__(message)
        self.code = code


class InputError(EdgeformerError):
    """What the user gave cannot be used: a file, an option, a shape, a checkpoint. Exit code 2, as Click's own."""

    exit_code = 2


class GateMissed(EdgeformerError):
    """A stage ran, and its figure missed the gate. Nothing is published. Exit code 3."""

    exit_code = 3


class EnvironmentFault(EdgeformerError):
    """The machine lacks something: a package, a compiler, a driver, disk space. Exit code 4."""

    exit_code = 4
