"""What people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blobstore import BlobFormat, Hash, HashAndFormat
from blobsync.app import OptionError
from blobsync.cli.inputs import (
    InputError,
    parse_byte_range,
    parse_hash,
    parse_hash_and_format,
    parse_network,
    parse_source,
    parse_ticket,
)
from blobsync.errors import TicketError
from blobsync.wire.ticket import BlobTicket

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "tickets.json").read_text())
HASH = Hash(bytes(range(32)))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("0:", 0, None),
        (":", 0, None),
        (":10", 0, 10),
        ("5:10", 5, 10),
        ("5:5", 5, 5),
        ("16384:", 16384, None),
        (f"{2**63}:", 2**63, None),
    ],
)
def test_ranges(text: str, start: int, end: int | None) -> None:
    assert parse_byte_range(text) == (start, end)


@pytest.mark.parametrize(
    "text", ["", "5", "10:5", "-1:", ":-1", "a:b", "1:2:3", "1 :2", "٣:٤", "+1:"]
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InputError):
        parse_byte_range(text)


@pytest.mark.parametrize("text", [HASH.hex(), HASH.to_base32(), HASH.to_base32().upper()])
def test_hashes(text: str) -> None:
    assert parse_hash(text) == HASH
    assert parse_source(f" {text}\n") == HashAndFormat(HASH, BlobFormat.RAW)
    assert parse_hash_and_format("s" + text) == HashAndFormat(HASH, BlobFormat.HASH_SEQ)
    assert parse_source("s" + text) == HashAndFormat(HASH, BlobFormat.HASH_SEQ)


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, HASH.hex().upper(), "1" * 52])
def test_what_is_no_hash(text: str) -> None:
    with pytest.raises(InputError):
        parse_hash(text)


def test_tickets_of_the_vectors() -> None:
    for case in VECTORS["tickets"]:
        ticket = parse_ticket(f"  {case['ticket']}\n")
        assert ticket.hash.hex() == case["hash"]
        assert isinstance(parse_source(case["ticket"]), BlobTicket)


@pytest.mark.parametrize("text", ["", "blob", "blob!", "nodeabc", "x" * 100])
def test_what_is_no_ticket(text: str) -> None:
    with pytest.raises(TicketError):
        parse_ticket(text)


def test_network_options() -> None:
    options = parse_network(
        "auto", "https://relay.example:444", ("127.0.0.1:0", "[::1]:7"), "secret"
    )
    assert options.relay == "https://relay.example:444"
    assert [str(addr) for addr in options.bind_addrs()] == ["127.0.0.1:0", "[::1]:7"]
    assert options.relay_token == "secret"
    assert parse_network("iroh", None, (), None).relay is None


@pytest.mark.parametrize(
    ("relay", "bind"),
    [
        ("ftp://relay", ()),
        ("Default", ()),
        ("disabled", ("localhost:0",)),
        ("disabled", ("127.0.0.1:99999",)),
        ("disabled", ("127.0.0.1:0", "127.0.0.2:0")),
        ("disabled", ("[::1]:0", "[::2]:0")),
    ],
)
def test_network_options_that_are_none(relay: str, bind: tuple[str, ...]) -> None:
    with pytest.raises(OptionError):
        parse_network("auto", relay, bind, None)


def test_a_transport_without_relays_is_asked_for_none() -> None:
    assert parse_network("aioquic", None, (), None).transport == "aioquic"
    assert parse_network("aioquic", "disabled", (), None).relay == "disabled"
    for relay in ("default", "https://relay.example"):
        with pytest.raises(OptionError, match="has no relays"):
            parse_network("aioquic", relay, (), None)


def test_there_is_no_other_transport() -> None:
    with pytest.raises(OptionError, match="no transport is called 'tcp'"):
        parse_network("tcp", None, (), None)
