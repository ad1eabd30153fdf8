"""pybao: hashing, outboards, encoding and decoding of one blob; BLAKE3's own package beside it."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from typing import TYPE_CHECKING

import blake3

import pybao
from benchmarks.harness import BenchmarkError
from benchmarks.micro import Figure, MicroSize, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PIECE_SIZE = 1 << 20

ALL_CHUNKS = [0]


def measure(size: MicroSize, folder: Path) -> list[Figure]:
    """Rates in GB/s, 10^9 bytes of the blob a second."""
    data = os.urandom(size.blob_bytes)
    root, outboard = pybao.outboard(data)
    if blake3.blake3(data).digest() != root:
        raise BenchmarkError("the root is not the BLAKE3 hash")
    total = len(data)
    encoding = list(encode(root, data, outboard))
    amount = total / 1e9

    def figure(name: str, work: Callable[[], object]) -> Figure:
        return rate(name, "GB", amount, size.repeats, work)

    with tempfile.TemporaryFile(dir=folder) as file, tempfile.TemporaryFile(dir=folder) as target:
        file.write(data)
        file.flush()
        source_fd, target_fd = file.fileno(), target.fileno()
        return [
            figure("blake3 package, 1 thread", lambda: blake3.blake3(data).digest()),
            figure(
                "blake3 package, all threads",
                lambda: blake3.blake3(data, max_threads=blake3.blake3.AUTO).digest(),
            ),
            figure("hash, 1 thread", lambda: pybao.hash(data)),
            figure("hash + outboard, 1 thread", lambda: pybao.outboard(data, threads=1)),
            figure("hash + outboard, all threads", lambda: pybao.outboard(data)),
            figure(
                "hash + outboard of a file, all threads",
                lambda: pybao.outboard_fd(source_fd, total),
            ),
            figure("encode, 1 thread", lambda: deque(encode(root, data, outboard), maxlen=0)),
            figure("decode, 1 thread", lambda: decode(root, encoding, None)),
            figure("decode into a file, 1 thread", lambda: decode(root, encoding, target_fd)),
        ]


def encode(root: bytes, data: bytes, outboard: bytes) -> Iterator[bytes]:
    """The whole encoding in pieces of about 1 MiB."""
    encoder = pybao.Encoder(root, len(data), ALL_CHUNKS, data, outboard)
    while piece := encoder.next(PIECE_SIZE):
        yield piece


def decode(root: bytes, pieces: list[bytes], data_fd: int | None) -> None:
    """Verify a whole encoding; without a descriptor the data is dropped."""
    decoder = pybao.Decoder(root, ALL_CHUNKS, data_fd=data_fd)
    for piece in pieces:
        decoder.feed(piece)
        if data_fd is None:
            decoder.take_pieces()
        decoder.take_pairs()
    decoder.finish()
