"""Text that people type, parsed into values; what is wrong is a bad input, exit code 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobsync.errors import BlobsyncError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobstore import Hash, HashAndFormat, Store
    from blobsync.app import NetworkOptions
    from blobsync.wire.ticket import BlobTicket

HASH_TEXT_SIZES = frozenset((52, 53, 64, 65))
"""Characters of a hash in base32 or hex, without and with the `s` of a hash seq."""


class InputError(BlobsyncError, ValueError):
    """An argument is not what it should be."""

    exit_code = ExitCode.BAD_INPUT


def parse_ticket(text: str) -> BlobTicket:
    """A ticket as `share` and `sendme` print it; spaces around it do not matter.

    Raises:
        TicketError: it is none.
    """
    from blobsync.wire.ticket import BlobTicket

    return BlobTicket.from_text(text.strip())


def parse_hash(text: str) -> Hash:
    """A hash in hex or base32.

    Raises:
        InputError: it is none.
    """
    return parse_hash_and_format(text).hash


def parse_hash_and_format(text: str) -> HashAndFormat:
    """A hash in hex or base32, with an `s` in front if it names a hash seq.

    Raises:
        InputError: it is none.
    """
    from blobstore import HashAndFormat

    try:
        return HashAndFormat.from_text(text.strip())
    except ValueError as error:
        raise InputError(str(error)) from error


def parse_source(text: str) -> BlobTicket | HashAndFormat:
    """A ticket or a hash; they are told apart by their length.

    Raises:
        InputError: what has the length of a hash is none.
        TicketError: anything else that is no ticket.
    """
    if len(text.strip()) in HASH_TEXT_SIZES:
        return parse_hash_and_format(text)
    return parse_ticket(text)


def parse_byte_range(text: str) -> tuple[int, int | None]:
    """`START:END` in bytes, END not included; either may be left out.

    Raises:
        InputError: anything else, or END before START.
    """
    start_text, colon, end_text = text.partition(":")
    parts_are_numbers = all(
        part.isascii() and part.isdigit() for part in (start_text, end_text) if part
    )
    if not colon or not parts_are_numbers:
        raise InputError(f"not a range of bytes like 0:1024, 1024: or :1024: {text}")
    start = int(start_text or "0")
    end = int(end_text) if end_text else None
    if end is not None and end < start:
        raise InputError(f"a range ends before it starts: {text}")
    return start, end


def parse_network(
    transport: str, relay: str | None, bind: Sequence[str], relay_token: str | None
) -> NetworkOptions:
    """The network options of a command line, checked before anything is opened.

    Raises:
        OptionError: no relay, one for a transport without them, no address, or two addresses of
            one family.
    """
    from blobsync.network import NetworkOptions, OptionError, TransportName

    options = NetworkOptions(
        transport=transport, relay=relay, relay_token=relay_token, bind=tuple(bind)
    )
    if options.transport_name() is TransportName.AIOQUIC:
        options.check_no_relay()
    else:
        options.relays(if_unset=None)
    families = [addr.ip.version for addr in options.bind_addrs()]
    if len(set(families)) != len(families):
        raise OptionError("--bind takes at most one IPv4 and one IPv6 address")
    return options


async def with_known_format(store: Store, target: HashAndFormat) -> HashAndFormat:
    """`target`, as a hash seq if it was typed as a plain hash that a tag calls one."""
    from blobstore import BlobFormat, HashAndFormat

    as_hash_seq = HashAndFormat(target.hash, BlobFormat.HASH_SEQ)
    tags = await store.list_tags()
    return as_hash_seq if any(tag.target == as_hash_seq for tag in tags) else target
