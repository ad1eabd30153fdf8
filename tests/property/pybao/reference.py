"""The slow, obvious BLAKE3 and verified-streaming coder, which pybao has to agree with.

Written from the BLAKE3 paper and the rules of the encoding, one recursion per rule and sets of
chunk numbers for ranges, so that it can be checked by reading. Chunk hashes are remembered: blobs
that begin with the same bytes share them.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

CHUNK = 1024
GROUP_CHUNKS = 16

CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
IV = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXED = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
WORD = 0xFFFFFFFF


def _rotate(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & WORD


def compress(
    cv: Sequence[int], block: bytes, counter: int, length: int, flags: int
) -> tuple[int, ...]:
    """One compression of a 64-byte block: the next chaining value, eight words."""
    words = list(struct.unpack("<16I", block))
    v = [*cv, *IV[:4], counter & WORD, counter >> 32, length, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXED):
            v[a] = (v[a] + v[b] + words[2 * i]) & WORD
            v[d] = _rotate(v[d] ^ v[a], 16)
            v[c] = (v[c] + v[d]) & WORD
            v[b] = _rotate(v[b] ^ v[c], 12)
            v[a] = (v[a] + v[b] + words[2 * i + 1]) & WORD
            v[d] = _rotate(v[d] ^ v[a], 8)
            v[c] = (v[c] + v[d]) & WORD
            v[b] = _rotate(v[b] ^ v[c], 7)
        words = [words[i] for i in PERMUTATION]
    return tuple(v[i] ^ v[i + 8] for i in range(8))


@lru_cache(maxsize=1 << 15)
def chunk_hash(chunk: bytes, index: int, is_root: bool) -> bytes:
    """The hash of one chunk of at most 1024 bytes."""
    cv: tuple[int, ...] = IV
    starts = range(0, max(1, len(chunk)), 64)
    for start in starts:
        block = chunk[start : start + 64]
        flags = CHUNK_START if start == 0 else 0
        if start == starts[-1]:
            flags |= CHUNK_END | (ROOT if is_root else 0)
        cv = compress(cv, block.ljust(64, b"\0"), index, len(block), flags)
    return struct.pack("<8I", *cv)


@lru_cache(maxsize=1 << 15)
def parent_hash(left: bytes, right: bytes, is_root: bool) -> bytes:
    """The hash of an inner node."""
    cv = compress(IV, left + right, 0, 64, PARENT | (ROOT if is_root else 0))
    return struct.pack("<8I", *cv)


def chunk_count(size: int) -> int:
    return max(1, -(-size // CHUNK))


@dataclass(frozen=True)
class Subtree:
    """The chunks `[start, start + count)` of a blob of `size` bytes."""

    start: int
    count: int
    size: int

    @property
    def is_root(self) -> bool:
        return self.start == 0 and self.count == chunk_count(self.size)

    @property
    def chunks(self) -> range:
        return range(self.start, self.start + self.count)

    @property
    def bytes(self) -> slice:
        return slice(self.start * CHUNK, min((self.start + self.count) * CHUNK, self.size))

    @property
    def left_count(self) -> int:
        """The largest power of two strictly below `count`."""
        return 1 << ((self.count - 1).bit_length() - 1)

    @property
    def children(self) -> tuple["Subtree", "Subtree"]:
        k = self.left_count
        return (
            Subtree(self.start, k, self.size),
            Subtree(self.start + k, self.count - k, self.size),
        )

    @property
    def node(self) -> int:
        """In-order number over pairs of chunks."""
        return self.start + self.left_count - 1

    @property
    def is_stored(self) -> bool:
        """Whether the outboard has its pair."""
        return self.count > GROUP_CHUNKS


def whole(size: int) -> Subtree:
    return Subtree(0, chunk_count(size), size)


@lru_cache(maxsize=1 << 16)
def subtree_hash(data: bytes, tree: Subtree) -> bytes:
    if tree.count == 1:
        return chunk_hash(data[tree.bytes], tree.start, tree.is_root)
    left, right = tree.children
    return parent_hash(subtree_hash(data, left), subtree_hash(data, right), tree.is_root)


def root_of(data: bytes) -> bytes:
    return subtree_hash(data, whole(len(data)))


def pair_of(data: bytes, tree: Subtree) -> bytes:
    return b"".join(subtree_hash(data, child) for child in tree.children)


def stored(tree: Subtree) -> Iterator[Subtree]:
    """The subtrees whose pairs the outboard has, in its order."""
    if tree.is_stored:
        yield tree
        for child in tree.children:
            yield from stored(child)


def outboard_of(data: bytes) -> bytes:
    return b"".join(pair_of(data, tree) for tree in stored(whole(len(data))))


def members(boundaries: Iterable[int], limit: int) -> set[int]:
    """The chunks below `limit` in a set given by its boundaries."""
    points = sorted(boundaries)
    if len(points) % 2:
        points.append(limit)
    chunks: set[int] = set()
    for start, end in zip(points[::2], points[1::2], strict=True):
        chunks.update(range(start, min(end, limit)))
    return chunks


def boundaries_of(chunks: Iterable[int]) -> list[int]:
    """The boundaries of a finite set."""
    chunks = set(chunks)
    return sorted(
        {chunk for chunk in chunks if chunk - 1 not in chunks}
        | {chunk + 1 for chunk in chunks if chunk + 1 not in chunks}
    )


def selected(boundaries: Sequence[int], size: int) -> set[int]:
    """The chunks that are sent: past the end means the last one."""
    n = chunk_count(size)
    chunks = members(boundaries, n)
    if len(boundaries) % 2 or (boundaries and boundaries[-1] > n):
        chunks.add(n - 1)
    return chunks


@dataclass(frozen=True)
class Item:
    """A pair or a piece of data on the wire."""

    tree: Subtree
    is_pair: bool

    @property
    def length(self) -> int:
        piece = self.tree.bytes
        return 64 if self.is_pair else piece.stop - piece.start

    @property
    def place(self) -> tuple[int | None, int | None]:
        """Node or chunk, as errors tell it."""
        return (self.tree.node, None) if self.is_pair else (None, self.tree.start)


def items(tree: Subtree, chosen: set[int]) -> Iterator[Item]:
    """What is sent of a subtree, in order."""
    inside = chosen.intersection(tree.chunks)
    if not inside:
        return
    if tree.count <= GROUP_CHUNKS and len(inside) == tree.count:
        yield Item(tree, is_pair=False)
        return
    yield Item(tree, is_pair=True)
    for child in tree.children:
        yield from items(child, inside)


def plan(size: int, boundaries: Sequence[int]) -> list[Item]:
    return list(items(whole(size), selected(boundaries, size)))


def encode(data: bytes, boundaries: Sequence[int]) -> bytes:
    """Size header and items."""
    parts = [struct.pack("<Q", len(data))]
    for item in plan(len(data), boundaries):
        parts.append(pair_of(data, item.tree) if item.is_pair else data[item.tree.bytes])
    return b"".join(parts)


@dataclass
class Decoded:
    """What a decoder can say after reading some input."""

    pieces: list[tuple[int, bytes]]
    pairs: list[tuple[int, bytes]]
    proven: set[int]
    error: tuple[str, int | None, int | None] | None
    used: int


def decode(root: bytes, boundaries: Sequence[int], encoded: bytes) -> Decoded:
    """Read an encoding that starts with its size, up to the first error."""
    decoded = Decoded([], [], set(), None, 0)
    if len(encoded) < 8:
        decoded.error = ("truncated" if encoded else "size_not_found", None, None)
        return decoded
    size = int.from_bytes(encoded[:8], "little")
    decoded.used = 8
    offsets = {tree: 64 * i for i, tree in enumerate(stored(whole(size)))}
    expected = {whole(size): root}
    for item in plan(size, boundaries):
        tree = item.tree
        rest = encoded[decoded.used : decoded.used + item.length]
        if len(rest) < item.length:
            kind = "parent_not_found" if item.is_pair else "leaf_not_found"
            decoded.error = ("truncated" if rest else kind, *item.place)
            return decoded
        if item.is_pair:
            halves = rest[:32], rest[32:]
            if parent_hash(*halves, tree.is_root) != expected[tree]:
                decoded.error = ("parent_hash_mismatch", *item.place)
                return decoded
            expected.update(zip(tree.children, halves, strict=True))
            if tree.is_stored:
                decoded.pairs.append((offsets[tree], rest))
        else:
            shifted = _Shifted(rest, tree)
            if shifted.hash(tree) != expected[tree]:
                decoded.error = ("leaf_hash_mismatch", *item.place)
                return decoded
            if rest:
                decoded.pieces.append((tree.bytes.start, rest))
            decoded.proven.update(tree.chunks)
        decoded.used += item.length
    return decoded


class _Shifted:
    """The bytes of a subtree, hashed at their place in the blob."""

    def __init__(self, data: bytes, tree: Subtree) -> None:
        self.data = data
        self.offset = tree.start * CHUNK

    def hash(self, tree: Subtree) -> bytes:
        if tree.count == 1:
            piece = tree.bytes
            chunk = self.data[piece.start - self.offset : piece.stop - self.offset]
            return chunk_hash(chunk, tree.start, tree.is_root)
        left, right = tree.children
        return parent_hash(self.hash(left), self.hash(right), tree.is_root)
