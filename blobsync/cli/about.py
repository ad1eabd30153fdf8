"""`blobsync id` and `blobsync version`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from blobsync.cli.options import global_options, json_option

if TYPE_CHECKING:
    from blobsync.cli.context import CommandContext


@click.command("id", short_help="Print the endpoint id of this home.")
@json_option
@global_options
@click.pass_obj
def id_command(context: CommandContext) -> None:
    """Print the endpoint id that shares of this home folder have; makes the key at first use."""

    async def run() -> None:
        async with context.open_app() as app:
            endpoint_id = str(app.endpoint_id())
        context.output.event({"event": "id", "id": endpoint_id})
        context.output.result(endpoint_id)

    context.run(run())


@click.command("version", short_help="Print the version.")
@json_option
@global_options
@click.pass_obj
def version_command(context: CommandContext) -> None:
    """Print the version."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    try:
        program = version("blobsync")
    except PackageNotFoundError:
        program = "(not installed)"
    python = platform.python_version()
    context.output.event({"event": "version", "version": program, "python": python})
    context.output.result(f"blobsync {program}")
