"""`blobsync ticket`: what a ticket says, without asking anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from blobsync.cli.inputs import parse_ticket
from blobsync.cli.options import global_options, json_option

if TYPE_CHECKING:
    from blobsync.cli.context import CommandContext


@click.group("ticket", short_help="Look into tickets.")
@global_options
def ticket_command() -> None:
    """Look into tickets."""


@ticket_command.command("show")
@click.argument("ticket")
@json_option
@global_options
@click.pass_obj
def show_ticket(context: CommandContext, ticket: str) -> None:
    """Show what TICKET names and where: nothing is opened, nobody is asked."""
    parsed = parse_ticket(ticket)
    relay = next(iter(parsed.addr.relay_urls), None)
    addresses = [str(address) for address in parsed.addr.ip_addrs]
    format_name = parsed.format.name.lower()
    output = context.output
    output.event(
        {
            "event": "ticket_info",
            "id": str(parsed.addr.id),
            "relay": relay,
            "addresses": addresses,
            "hash": str(parsed.hash),
            "format": format_name,
        }
    )
    output.result(f"id       {parsed.addr.id}")
    output.result(f"relay    {relay or 'none'}")
    for address in addresses:
        output.result(f"address  {address}")
    output.result(f"hash     {parsed.hash}")
    output.result(f"format   {format_name}")
