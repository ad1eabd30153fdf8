"""`blobsync tags`: the names that keep blobs and collections in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from blobsync.cli.inputs import parse_hash_and_format, with_known_format
from blobsync.cli.options import global_options, json_option

if TYPE_CHECKING:
    from blobstore import HashAndFormat, Tag
    from blobsync.cli.context import CommandContext
    from blobsync.cli.output import Output


@click.group(
    "tags",
    short_help="List and change the names that keep blobs.",
    invoke_without_command=True,
)
@global_options
@click.pass_context
def tags_command(click_context: click.Context) -> None:
    """Tags keep a blob, or a collection with all its files, from being removed by `gc`.

    Without a command all tags are listed.
    """
    if click_context.invoked_subcommand is None:
        click_context.invoke(list_tags, prefix="")


@tags_command.command("list")
@click.argument("prefix", required=False, default="")
@json_option
@global_options
@click.pass_obj
def list_tags(context: CommandContext, prefix: str) -> None:
    """List the tags whose name starts with PREFIX: all of them by default."""

    async def run() -> None:
        async with context.open_app() as app:
            for tag in await app.store.list_tags(prefix):
                show_tag(context.output, tag)

    context.run(run())


@tags_command.command("set")
@click.argument("name")
@click.argument("hash")
@json_option
@global_options
@click.pass_obj
def set_tag(context: CommandContext, name: str, hash: str) -> None:
    """Let NAME keep HASH, which the store must hold; NAME may be there already.

    With an `s` in front, HASH keeps the files of a collection as well.
    """
    context.run(_set(context, name, parse_hash_and_format(hash)))


async def _set(context: CommandContext, name: str, target: HashAndFormat) -> None:
    from blobstore import BlobNotFoundError, Tag

    async with context.open_app() as app:
        if await app.store.stat(target.hash) is None:
            raise BlobNotFoundError(target.hash)
        tag = Tag(name, await with_known_format(app.store, target))
        await app.store.set_tag(tag.name, tag.target)
    show_tag(context.output, tag)


@tags_command.command("rename")
@click.argument("old")
@click.argument("new")
@json_option
@global_options
@click.pass_obj
def rename_tag(context: CommandContext, old: str, new: str) -> None:
    """Rename the tag OLD to NEW; a tag named NEW is replaced."""

    async def run() -> None:
        async with context.open_app() as app:
            await app.store.rename_tag(old, new)

    context.run(run())


@tags_command.command("delete")
@click.argument("name")
@json_option
@global_options
@click.pass_obj
def delete_tag(context: CommandContext, name: str) -> None:
    """Delete the tag NAME; what only it kept goes with the next `gc`."""

    async def run() -> None:
        async with context.open_app() as app:
            await app.store.delete_tag(name)

    context.run(run())


def show_tag(output: Output, tag: Tag) -> None:
    """One tag, as a line or an object."""
    output.event(
        {
            "event": "tag",
            "name": tag.name,
            "hash": str(tag.target.hash),
            "format": tag.target.format.name.lower(),
        }
    )
    output.result(f"{tag.target}  {tag.name}")
