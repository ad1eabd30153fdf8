"""Blob tickets against the Rust peer."""

import base64
import json
from pathlib import Path

import pytest

from blobstore.codec.hash import BlobFormat, Hash, HashAndFormat
from blobsync.address import EndpointAddr, EndpointId, RelayUrl, SocketAddr
from blobsync.errors import TicketError
from blobsync.wire.ticket import TICKET_TEXT_SIZE_MAX, BlobTicket

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/tickets.json").read_text())


def ticket_of(case, relays: list[str], addrs: list[str]) -> BlobTicket:
    return BlobTicket(
        EndpointAddr(
            EndpointId.from_text(case["endpoint_id"]),
            tuple(RelayUrl(url) for url in relays),
            tuple(SocketAddr.from_text(addr) for addr in addrs),
        ),
        Hash.from_text(case["hash"]),
        BlobFormat(case["format"]),
    )


@pytest.mark.parametrize("case", VECTORS["tickets"], ids=lambda case: case["name"])
def test_text_of_the_rust_peer(case):
    given = ticket_of(
        case,
        [each.removeprefix("relay:") for each in case["input_addrs"] if each.startswith("relay:")],
        [each.removeprefix("ip:") for each in case["input_addrs"] if each.startswith("ip:")],
    )
    assert given.to_text() == str(given) == case["ticket"]
    decoded = BlobTicket.from_text(case["ticket"])
    assert decoded == ticket_of(case, case["relay_after_decoding"], case["addrs_after_decoding"])
    assert decoded.to_text() == case["ticket"]
    assert [str(addr) for addr in decoded.addr.ip_addrs] == case["addrs_after_decoding"]
    assert decoded.target == HashAndFormat(decoded.hash, decoded.format)


@pytest.mark.parametrize("case", VECTORS["decoding"], ids=lambda case: case["what"])
def test_accepted_and_refused_texts(case):
    if case["accepted"]:
        ticket = BlobTicket.from_text(case["ticket"])
        assert BlobTicket.from_text(ticket.to_text()) == ticket
    else:
        with pytest.raises(TicketError):
            BlobTicket.from_text(case["ticket"])


@pytest.mark.parametrize("case", VECTORS["tickets"], ids=lambda case: case["name"])
def test_every_cut_is_refused(case):
    for size in range(len(case["ticket"])):
        with pytest.raises(TicketError):
            BlobTicket.from_text(case["ticket"][:size])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "starts with 'blob'"),
        ("endpointaaaa", "starts with 'blob'"),
        ("blob" + "a" * TICKET_TEXT_SIZE_MAX, "too long"),
        ("blobé", "letters"),
        ("bloba\n", "letters"),
        ("bloba", "cut off"),
        ("blobaf", "stray bits"),
    ],
)
def test_refusals_say_why(text: str, reason: str):
    with pytest.raises(TicketError, match=reason):
        BlobTicket.from_text(text)


def test_a_relay_url_that_we_cannot_use():
    case = next(case for case in VECTORS["tickets"] if case["name"] == "relay only")
    data = bytes.fromhex(case["bytes"])
    bad = data.replace(b"https://relay", b"gophr://relay")
    text = "blob" + base64.b32encode(bad).decode().rstrip("=").lower()
    with pytest.raises(TicketError, match="relay"):
        BlobTicket.from_text(text)
