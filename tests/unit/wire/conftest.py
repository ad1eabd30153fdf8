"""The blobs that the Rust provider of the transcripts held, made again from their rules."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from blobstore.codec.bao import outboard
from blobstore.codec.hash import Hash

TRANSCRIPTS = json.loads((Path(__file__).parents[2] / "vectors/transcripts.json").read_text())


def vector_data(size: int) -> bytes:
    """Byte i is (i * 31 + i div 251) mod 256."""
    return bytes((i * 31 + i // 251) % 256 for i in range(size))


@dataclass(frozen=True)
class Blob:
    hash: Hash
    data: bytes
    outboard: bytes
    held: bytes
    """The data as the provider has it: zeroes where it has none."""


def make_blob(data: bytes, due_hash: str, *, held: tuple[int, int] | None = None) -> Blob:
    hash, pairs = outboard(data)
    assert hash.hex() == due_hash
    if held is None:
        return Blob(hash, data, pairs, data)
    start, end = held[0] * 1024, held[1] * 1024
    gap = bytes(start) + data[start:end] + bytes(len(data) - end)
    return Blob(hash, data, pairs, gap)


@pytest.fixture(scope="session")
def world() -> dict[Hash, Blob]:
    """All blobs of the provider, by hash."""
    blobs: list[Blob] = []
    for file in TRANSCRIPTS["world"]["files"]:
        data = bytearray(vector_data(file["size"]))
        data[:1] = bytes([data[0] ^ file["index"]]) if data else b""
        blobs.append(make_blob(bytes(data), file["hash"]))
    collection = TRANSCRIPTS["world"]
    meta = bytes.fromhex(collection["meta_blob"])
    root = bytes.fromhex(collection["hash_seq"])
    blobs.append(make_blob(meta, root[:32].hex()))
    blobs.append(make_blob(root, collection["root"]))
    holes = TRANSCRIPTS["hash_seq_with_missing_child"]
    blobs.append(make_blob(bytes.fromhex(holes["bytes"]), holes["hash"]))
    partial = TRANSCRIPTS["partial_blob"]
    (held,) = partial["has_chunks"]
    blobs.append(make_blob(vector_data(partial["size"]), partial["hash"], held=held))
    partial = TRANSCRIPTS["partial_blob_chunk3"]
    (held,) = partial["has_chunks"]
    data = bytearray(vector_data(partial["size"]))
    data[0] ^= 0x55
    blobs.append(make_blob(bytes(data), partial["hash"], held=held))
    return {blob.hash: blob for blob in blobs}
