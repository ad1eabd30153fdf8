"""The program: its commands, each imported when it is asked for, and how a run of it ends."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from blobsync.cli.context import CommandContext, OpenApp
from blobsync.cli.failures import STDOUT_CLOSED_EXIT_CODE, Failure, describe_failure, root_error
from blobsync.cli.formatting import printable
from blobsync.cli.options import global_options
from blobsync.cli.output import (
    Output,
    StdoutClosedError,
    forget_stdout,
    prepare_streams,
    write_stderr,
)
from blobsync.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "share": "share",
    "get": "get",
    "add": "add",
    "ls": "ls",
    "cat": "cat",
    "verify": "verify",
    "tags": "tags",
    "gc": "gc",
    "ticket": "ticket",
    "id": "about",
    "version": "about",
}
"""Name of each command and the module of this package that holds it, in the order of the help."""


class LazyGroup(click.Group):
    """A group that imports a command when it is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: Any = getattr(
            importlib.import_module(f"blobsync.cli.{module}"), f"{cmd_name}_command"
        )
        return command if isinstance(command, click.Command) else None


@click.command(
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
@global_options
def program() -> None:
    """Share folders by ticket and fetch them verified, whole or by range, over iroh."""


def main(args: Sequence[str] | None = None, *, open_app: OpenApp | None = None) -> int:
    """Run one command line (that of the process by default); returns the exit code.

    Whatever happens, a person sees one line or none, and never a stack trace without `--debug`.
    """
    prepare_streams()
    context = CommandContext(open_app_with=open_app)
    try:
        result = program.main(args, prog_name="blobsync", obj=context, standalone_mode=False)
        return result if isinstance(result, int) else ExitCode.OK
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        return _fail_usage(error)
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last frame: each error becomes a code here
        if isinstance(root_error(error), StdoutClosedError):
            forget_stdout()
            return STDOUT_CLOSED_EXIT_CODE
        return _fail(context, error)


def _fail_usage(error: click.ClickException) -> int:
    command = "blobsync"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        command = error.ctx.command_path
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    write_stderr(f"{command}: {printable(message)} (see {command} --help)\n")
    return ExitCode.USAGE


def _fail(context: CommandContext, error: Exception) -> int:
    failure = describe_failure(error)
    if context.debug:
        _show_traceback(error)
    output = context.output
    if output.json:
        try:
            _tell_json(output, failure)
        except StdoutClosedError:
            forget_stdout()
    else:
        write_stderr(f"blobsync: {printable(failure.message)}\n")
    return failure.exit_code


def _tell_json(output: Output, failure: Failure) -> None:
    output.event(
        {
            "event": "error",
            "kind": failure.kind,
            "message": failure.message,
            "exit_code": failure.exit_code,
            "retry": failure.retry,
        }
    )


def _show_traceback(error: Exception) -> None:
    import traceback

    for part in traceback.format_exception(error):
        for line in part.splitlines():
            write_stderr(printable(line) + "\n")
