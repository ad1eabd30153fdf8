"""Messages as bytes and back: a request for many children, names of a collection, tickets."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from nacl.signing import SigningKey

from benchmarks.harness import BenchmarkError
from benchmarks.micro import Figure, MicroSize, rate
from blobstore import BlobFormat, ChunkRanges, Collection, Hash, HashSeq
from blobsync.address import EndpointAddr, EndpointId, SocketAddr
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import GetRequest, decode_request, encode_request
from blobsync.wire.ticket import BlobTicket

if TYPE_CHECKING:
    from collections.abc import Callable

TICKETS = 500


def measure(size: MicroSize) -> list[Figure]:
    """Round trips: elements, names and tickets a second."""
    hashes = [Hash(os.urandom(32)) for _ in range(size.items)]
    # Every other child, so that nothing can be run-length coded.
    elements = [(index, ChunkRanges.all()) for index in range(1, size.items * 2, 2)]
    request = GetRequest(hashes[0], ChunkRangesSeq.from_elements(elements))
    named = Collection(
        tuple((f"tree/folder-{i % 97}/file-{i}.rs", hash) for i, hash in enumerate(hashes))
    )
    ticket = BlobTicket(
        EndpointAddr(
            EndpointId(bytes(SigningKey.generate().verify_key)),
            ip_addrs=(SocketAddr(IPv4Address("127.0.0.1"), 4433),),
        ),
        hashes[0],
        BlobFormat.HASH_SEQ,
    )

    def collection_round_trip() -> Collection:
        meta = named.encode_meta()
        seq = named.hash_seq(hashes[0])
        return Collection.decode(meta, HashSeq.from_bytes(bytes(seq)))

    def tickets_round_trip() -> BlobTicket:
        read = ticket
        for _ in range(TICKETS):
            read = BlobTicket.from_text(ticket.to_text())
        return read

    checks: list[tuple[Callable[[], object], object]] = [
        (lambda: decode_request(encode_request(request)), request),
        (collection_round_trip, named),
        (tickets_round_trip, ticket),
    ]
    for work, expected in checks:
        if work() != expected:
            raise BenchmarkError(f"a round trip changed {type(expected).__name__}")
    names = ["Get request, elements", "collection, names", "ticket"]
    amounts = [len(elements), size.items, TICKETS]
    return [
        rate(f"{name}, there and back", "items", amount, size.repeats, work)
        for name, amount, (work, _) in zip(names, amounts, checks, strict=True)
    ]
