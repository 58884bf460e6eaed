"""The command line: one file a command, each a thin layer over the Python API.

Exit codes: 0 done; 1 a fault of edgeformer (with a traceback); 2 bad input or usage; 3 a missed gate; 4 the machine
lacks something; 129, 130 and 143 ended by SIGHUP, SIGINT (Ctrl-C) and SIGTERM.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import logging
import sys
from typing import NoReturn

import click

from edgeformer.errors import EdgeformerError, EnvironmentFault, InputError
from edgeformer.supervision import interrupted
from edgeformer.supervision.limits import stage
from edgeformer.text import printable
from edgeformer.version import __version__

__all__ = ["cli", "main"]

# Name of the command and of the module that holds it; the module is imported when the command is asked for.
COMMANDS = (
    *("bench", "build", "doctor", "export", "finish", "fuse", "inspect", "models", "quantize", "report", "run"),
    *("sensitivity", "sign", "targets", "verify"),
)

log = logging.getLogger("edgeformer")


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is used or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"edgeformer.cli.{cmd_name}").command
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgeformer")
@click.pass_context
def cli(context: click.Context) -> None:
    """From a trained BiFormer to a parity-checked TensorRT engine with fused bi-level routing attention.

    Exit codes: 2 bad input, 3 missed gate, 4 the machine lacks something. docs/errors.md lists the codes of errors.
    """
    context.with_resource(stage(context.invoked_subcommand or ""))


def main() -> NoReturn:
    """Run the command line in this process and exit.

    The ``edgeformer`` script is `edgeformer.__main__.main`, which does this in a process that is watched.
    """
    as_json = "--json" in sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding shows what it cannot hold as an escape, instead of ending the program.
            stream.reconfigure(errors="backslashreplace")
    try:
        # Without standalone mode a command's exit code comes back as the result.
        sys.exit(cli.main(standalone_mode=False))
    except click.ClickException as error:
        if as_json:
            click.echo(json.dumps({"error": {"kind": "UsageError", "code": None, "message": error.format_message()}}))
        vars(error)["message"] = printable(error.message)
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing was left behind", err=True)
        sys.exit(130)
    except EdgeformerError as error:
        _leave(error, as_json)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; nobody is there to be told
        sys.exit(141)
    except OSError as error:
        _leave(_fault_of(error), as_json)


def _fault_of(error: OSError) -> EdgeformerError:
    """What the operating system refused, as one of our errors."""
    message = f"{error.filename or 'a file'}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
        return EnvironmentFault("EF602", message)
    return InputError("EF102", message)


def _leave(error: EdgeformerError, as_json: bool) -> NoReturn:
    """Say what is wrong, to people and to machines, and end with the error's exit code."""
    if (number := interrupted()) is not None:
        sys.exit(128 + number)  # interrupted code fails in many ways
    from edgeformer.cli._common import error_document, print_error, print_json

    log.debug("where it was raised", exc_info=True)
    if as_json:
        print_json({"error": error_document(error)})
    print_error(error)
    sys.exit(error.exit_code)
