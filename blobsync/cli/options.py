"""Options that several commands have, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from blobsync.cli.context import CommandContext

if TYPE_CHECKING:
    from collections.abc import Callable

AnyCallable = TypeVar("AnyCallable", bound="Callable[..., Any]")

JSON_HELP = "Print JSON objects, one a line."
QUIET_HELP = "Print the result only."


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that notes an option which was given in the shared context."""

    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(CommandContext), name, value)

    return callback


def global_options(command: AnyCallable) -> AnyCallable:
    """`--home` and `--debug`: before or after the name of the command."""
    command = click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_keep("debug"),
        help="Show logs, and the stack trace of a failure.",
    )(command)
    return click.option(
        "--home",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_keep("home"),
        metavar="DIR",
        help="Folder of keys and store. [default: BLOBSYNC_HOME, else the platform's data folder]",
    )(command)


def json_option(command: AnyCallable) -> AnyCallable:
    """`--json`, kept in the context before anything else of the command line is looked at."""
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_keep("json"),
        help=JSON_HELP,
    )(command)


def quiet_option(command: AnyCallable) -> AnyCallable:
    """`--quiet`."""
    return click.option(
        "--quiet",
        "-q",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_keep("quiet"),
        help=QUIET_HELP,
    )(command)


def network_options(*, relay_default: str) -> Callable[[AnyCallable], AnyCallable]:
    """`--transport`, `--relay`, `--relay-token` and `--bind`; `relay_default` tells what happens
    without."""

    def decorate(command: AnyCallable) -> AnyCallable:
        command = click.option(
            "--bind",
            multiple=True,
            metavar="ADDR",
            help="Local address IP:PORT; at most one IPv4 and one IPv6. [default: all interfaces]",
        )(command)
        command = click.option(
            "--relay-token",
            envvar="BLOBSYNC_RELAY_TOKEN",
            show_envvar=True,
            metavar="TOKEN",
            help="What a relay of your own asks for; better given by the environment.",
        )(command)
        command = click.option(
            "--transport",
            type=click.Choice(["auto", "iroh", "aioquic"]),
            default="auto",
            show_default=True,
            help="auto: iroh where it is installed, else aioquic: direct addresses only, slower.",
        )(command)
        return click.option(
            "--relay",
            metavar="default|disabled|URL",
            help=f"The public relays of iroh, none, or one of your own. [default: {relay_default}]",
        )(command)

    return decorate


copy_option = click.option(
    "--copy",
    is_flag=True,
    help="Copy files into the store instead of serving them from where they are.",
)
