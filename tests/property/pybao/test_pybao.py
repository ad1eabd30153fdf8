"""pybao does what the reference does, for any blob, ranges, split and damage."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from hashlib import shake_128

import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

import pybao
from tests.property.pybao import reference

STREAM = shake_128(b"pybao").digest(300 * 1024)
"""Every blob begins like this, so that the reference hashes each chunk only once."""

U64_MAX = 2**64 - 1
EDGES = [
    0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 16383, 16384, 16385, 17409,
    32767, 32768, 32769, 49153, 65536, 65537, 98304, 131072, 131073, 262144, 262145, 307200,
]  # fmt: skip
SIZES = st.one_of(st.sampled_from(EDGES), st.integers(0, 4000), st.integers(0, len(STREAM)))

FEW, SOME, MANY = (settings(max_examples=n, deadline=None) for n in (60, 200, 400))


@cache
def made(size: int) -> tuple[bytes, bytes, bytes]:
    """A blob with its root and outboard, all by the reference."""
    data = STREAM[:size]
    return data, reference.root_of(data), reference.outboard_of(data)


@st.composite
def range_sets(draw: st.DrawFn, chunks: int) -> list[int]:
    """Boundaries, mostly within a blob of so many chunks or just beyond its end."""
    near = st.integers(0, chunks + 3)
    aligned = st.integers(0, chunks // 16 + 1).map(lambda group: group * 16)
    points = st.one_of(near, near, aligned, st.integers(0, U64_MAX), st.just(U64_MAX))
    return sorted(draw(st.sets(points, max_size=8)))


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A size and the ranges asked for."""
    size = draw(SIZES)
    return size, draw(range_sets(reference.chunk_count(size)))


def split(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    """The data in pieces of these lengths, over and over."""
    start = turn = 0
    while start < len(data):
        length = lengths[turn % len(lengths)]
        yield data[start : start + length]
        start, turn = start + length, turn + 1


LENGTHS = st.lists(
    st.one_of(st.integers(1, 100), st.integers(1, 40_000)), min_size=1, max_size=5
).filter(lambda lengths: sum(lengths) / len(lengths) > 20)


@contextmanager
def file_of(data: bytes = b"") -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def error_of(caught: pybao.DecodeError | None) -> tuple[str, int | None, int | None] | None:
    return None if caught is None else (caught.kind, caught.node, caught.chunk)


def feed(decoder: pybao.Decoder, pieces: Iterator[bytes]) -> pybao.DecodeError | None:
    """Feed all pieces and finish; the error, if that is how it ended."""
    try:
        for piece in pieces:
            decoder.feed(piece)
        decoder.finish()
    except pybao.DecodeError as error:
        return error
    return None


def encode_error(work: Callable[[], None]) -> pybao.EncodeError | None:
    try:
        work()
    except pybao.EncodeError as error:
        return error
    return None


def assert_agrees(decoder: pybao.Decoder, expected: reference.Decoded) -> None:
    assert decoder.take_pieces() == expected.pieces
    assert decoder.take_pairs() == expected.pairs
    assert decoder.proven == reference.boundaries_of(expected.proven)
    assert decoder.is_done == (expected.error is None)
    if decoder.size is not None:
        last = reference.chunk_count(decoder.size) - 1
        assert decoder.size_proven == (last in expected.proven)


@MANY
@given(st.binary(max_size=3000), st.integers(1, 3))
def test_any_bytes_have_their_root(data, threads):
    root = reference.root_of(data)
    assert blake3.blake3(data).digest() == root
    assert pybao.hash(data) == root
    assert pybao.outboard(data, threads=threads) == (root, b"")


@SOME
@given(SIZES, st.integers(0, 3))
def test_outboards(size, threads):
    data, root, pairs = made(size)
    assert blake3.blake3(data).digest() == root
    assert pybao.hash(data) == root
    assert pybao.outboard(data, threads=threads) == (root, pairs)
    with file_of(data) as fd, file_of() as out:
        assert pybao.outboard_fd(fd, size, threads=threads) == (root, pairs)
        assert pybao.outboard_fd(fd, size, outboard_fd=out, threads=threads) == (root, b"")
        assert content(out) == pairs


@FEW
@given(st.lists(SIZES, max_size=8), st.integers(0, 3))
def test_many_roots(sizes, threads):
    blobs = [STREAM[:size] for size in sizes]
    roots = [reference.root_of(blob) for blob in blobs]
    assert pybao.hash_many(blobs, threads=threads) == roots


@MANY
@given(requests(), st.booleans(), st.integers(0, 100_000), st.booleans())
def test_encodings(request, header, max_bytes, from_files):
    size, ranges = request
    data, root, pairs = made(size)
    expected = reference.encode(data, ranges)[0 if header else 8 :]
    with file_of(data) as data_fd, file_of(pairs) as pairs_fd:
        sources = (data_fd, pairs_fd) if from_files else (data, pairs)
        encoder = pybao.Encoder(root, size, ranges, *sources, header=header)
    assert encoder.encoded_size == len(expected)
    parts = list(iter(lambda: encoder.next(max_bytes), b""))
    assert b"".join(parts) == expected
    assert all(len(part) <= max(max_bytes, 16384) for part in parts)


@MANY
@given(requests(), LENGTHS, st.binary(max_size=100), st.booleans())
def test_decoding_any_split(request, lengths, beyond, with_header):
    size, ranges = request
    data, root, _ = made(size)
    encoded = reference.encode(data, ranges)
    expected = reference.decode(root, ranges, encoded)
    assert expected.error is None
    decoder = pybao.Decoder(root, ranges, size=None if with_header else size)
    stream = encoded if with_header else encoded[8:]
    assert feed(decoder, split(stream + beyond, lengths)) is None
    assert_agrees(decoder, expected)
    assert all(data[offset:].startswith(piece) for offset, piece in expected.pieces)
    assert decoder.proven == pybao.truncate_ranges(ranges, size)
    assert (decoder.size, decoder.needed, decoder.remaining) == (size, 0, 0)
    assert (decoder.take_unused(), decoder.take_unused()) == (beyond, b"")


@SOME
@given(requests(), LENGTHS)
def test_decoding_to_files(request, lengths):
    size, ranges = request
    data, root, _ = made(size)
    encoded = reference.encode(data, ranges)
    expected = reference.decode(root, ranges, encoded)
    with file_of() as data_fd, file_of() as pairs_fd:
        decoder = pybao.Decoder(root, ranges, data_fd=data_fd, outboard_fd=pairs_fd)
        assert feed(decoder, split(encoded, lengths)) is None
        assert (decoder.take_pieces(), decoder.take_pairs()) == ([], [])
        written, written_pairs = content(data_fd), content(pairs_fd)
        # What came can be served and validated again as far as whole groups go.
        groups = pybao.full_groups(decoder.proven)
        valid = pybao.valid_ranges(root, size, data_fd, pairs_fd, decoder.proven)
    held, held_pairs = bytearray(len(written)), bytearray(len(written_pairs))
    for offset, piece in expected.pieces:
        held[offset : offset + len(piece)] = piece
    for offset, pair in expected.pairs:
        held_pairs[offset : offset + 64] = pair
    assert (written, written_pairs) == (bytes(held), bytes(held_pairs))
    chunks = reference.chunk_count(size)
    whole = {
        chunk
        for chunk in expected.proven
        if expected.proven.issuperset(range(chunk // 16 * 16, min(chunk // 16 * 16 + 16, chunks)))
    }
    assert reference.members(valid, chunks) == whole
    assert reference.members(groups, chunks) <= whole


@MANY
@given(requests(), LENGTHS, st.data())
def test_any_damaged_byte_is_refused(request, lengths, draws):
    size, ranges = request
    data, root, _ = made(size)
    encoded = bytearray(reference.encode(data, ranges))
    if len(encoded) == 8:
        return
    place = draws.draw(st.integers(8, len(encoded) - 1))
    encoded[place] ^= draws.draw(st.integers(1, 255))
    damaged = bytes(encoded)
    expected = reference.decode(root, ranges, damaged)
    assert expected.error is not None
    decoder = pybao.Decoder(root, ranges)
    error = feed(decoder, split(damaged, lengths))
    assert error_of(error) == expected.error
    assert error is not None
    assert error.kind.endswith("_hash_mismatch")
    assert decoder.remaining == len(damaged) - expected.used
    # What came before the damage stays, and nothing behind it is believed.
    assert_agrees(decoder, expected)
    assert all(data[offset:].startswith(piece) for offset, piece in expected.pieces)
    assert error_of(feed(decoder, iter([b"more"]))) == expected.error


@SOME
@given(requests(), LENGTHS, st.data())
def test_any_cut_is_noticed(request, lengths, draws):
    size, ranges = request
    data, root, _ = made(size)
    encoded = reference.encode(data, ranges)
    lengths_at_items = [8]
    for item in reference.plan(size, ranges):
        lengths_at_items.append(lengths_at_items[-1] + item.length)
    cuts = st.one_of(st.integers(0, len(encoded) - 1), st.sampled_from(lengths_at_items))
    cut = encoded[: draws.draw(cuts)]
    if len(cut) == len(encoded):
        return
    expected = reference.decode(root, ranges, cut)
    assert expected.error is not None
    decoder = pybao.Decoder(root, ranges)
    for piece in split(cut, lengths):
        decoder.feed(piece)
    if len(cut) >= 8:
        assert decoder.remaining == len(encoded) - len(cut)
    needed = next(end for end in lengths_at_items if end > len(cut)) - len(cut)
    assert decoder.needed == needed
    assert error_of(feed(decoder, iter([]))) == expected.error
    assert_agrees(decoder, expected)


@SOME
@given(requests(), st.integers(0, 400 * 1024), LENGTHS)
def test_a_wrong_size_proves_nothing_false(request, claimed, lengths):
    size, ranges = request
    data, root, _ = made(size)
    encoded = claimed.to_bytes(8, "little") + reference.encode(data, ranges)[8:]
    expected = reference.decode(root, ranges, encoded)
    decoder = pybao.Decoder(root, ranges)
    assert error_of(feed(decoder, split(encoded, lengths))) == expected.error
    assert_agrees(decoder, expected)
    assert all(data[offset:].startswith(piece) for offset, piece in expected.pieces)
    if claimed != size:
        assert not decoder.size_proven


@MANY
@given(
    st.one_of(st.integers(0, U64_MAX), st.integers(0, 70_000), st.sampled_from(EDGES)),
    range_sets(70),
    st.binary(max_size=400),
    LENGTHS,
    st.booleans(),
)
def test_arbitrary_bytes_never_crash(claimed, ranges, body, lengths, is_parent):
    """A peer that claims anything costs next to nothing, and proves nothing."""
    # A root that the first pair fits lets the decoder get further than the first item.
    root = bytes(32)
    if is_parent and len(body) >= 64:
        root = reference.parent_hash(body[:32], body[32:64], is_root=True)
    decoder = pybao.Decoder(root, ranges)
    error = feed(decoder, split(claimed.to_bytes(8, "little") + body, lengths))
    if claimed >= 2**63:
        assert error_of(error) == ("size_invalid", None, None)
        assert decoder.size is None
    else:
        assert (error is None) == (ranges == [])
        assert decoder.size == claimed
        remaining = decoder.remaining
        assert remaining is not None
        assert remaining >= 0
    assert decoder.proven == []
    assert decoder.take_pieces() == []


@MANY
@given(requests())
def test_range_functions(request):
    size, ranges = request
    chosen = reference.selected(ranges, size)
    assert pybao.truncate_ranges(ranges, size) == reference.boundaries_of(chosen)
    limit = 320
    held = reference.members(ranges, limit)
    groups = [range(start, start + 16) for start in range(0, limit, 16)]
    rounded = {chunk for group in groups if held.intersection(group) for chunk in group}
    full = {chunk for group in groups if held.issuperset(group) for chunk in group}
    assert reference.members(pybao.round_up_to_groups(ranges), limit) == rounded
    assert reference.members(pybao.full_groups(ranges), limit) == full


@SOME
@given(requests(), st.data(), st.integers(1, 3))
def test_valid_ranges_of_damaged_files(request, draws, threads):
    size, ranges = request
    data, root, pairs = made(size)
    damaged, damaged_pairs = bytearray(data), bytearray(pairs)
    places = st.lists(st.integers(0, max(0, size - 1)), max_size=3)
    for place in draws.draw(places) if size else []:
        damaged[place] ^= 1
    for place in draws.draw(st.sets(st.integers(0, len(pairs) - 1), max_size=1)) if pairs else []:
        damaged_pairs[place] ^= 1
    held = bytes(damaged)[: draws.draw(st.one_of(st.none(), st.integers(0, size)))]
    held_pairs = bytes(damaged_pairs)

    def valid(tree: reference.Subtree, expected: bytes) -> set[int]:
        if tree.is_stored:
            at = offsets[tree]
            pair = held_pairs[at : at + 64]
            if reference.parent_hash(pair[:32], pair[32:], tree.is_root) != expected:
                return set()
            left, right = tree.children
            return valid(left, pair[:32]) | valid(right, pair[32:])
        if held[tree.bytes] != data[tree.bytes] or not touched.intersection(tree.chunks):
            return set()
        return set(tree.chunks)

    offsets = {t: 64 * i for i, t in enumerate(reference.stored(reference.whole(size)))}
    touched = reference.selected(ranges, size)
    expected = reference.boundaries_of(valid(reference.whole(size), root))
    assert pybao.valid_ranges(root, size, held, held_pairs, ranges, threads=threads) == expected
    with file_of(held) as fd, file_of(held_pairs) as pairs_fd:
        assert pybao.valid_ranges(root, size, fd, pairs_fd, ranges, threads=threads) == expected


@SOME
@given(SIZES, st.data())
def test_verified_reads(size, draws):
    data, root, pairs = made(size)
    start, end = (draws.draw(st.integers(0, size + 100)) for _ in range(2))
    assert pybao.read_verified(root, size, data, pairs, start, end) == data[start:end]
    with file_of(data) as fd, file_of(pairs) as pairs_fd, file_of() as out:
        assert pybao.read_verified(root, size, fd, pairs_fd, start, end) == data[start:end]
        pybao.copy_verified(root, size, fd, pairs_fd, out)
        assert content(out) == data


@SOME
@given(requests(), st.data(), st.integers(0, 50_000))
def test_nothing_of_damaged_files_is_served(request, draws, max_bytes):
    size, ranges = request
    data, root, pairs = made(size)
    files = bytearray(data + pairs)
    if not files:
        return
    files[draws.draw(st.integers(0, len(files) - 1))] ^= draws.draw(st.integers(1, 255))
    damaged, damaged_pairs = bytes(files[:size]), bytes(files[size:])
    good = reference.encode(data, ranges)
    encoder = pybao.Encoder(root, size, ranges, damaged, damaged_pairs)
    served: list[bytes] = []
    error = encode_error(lambda: served.extend(iter(lambda: encoder.next(max_bytes), b"")))
    if error is None:
        # The damage lies where nothing was asked for.
        assert b"".join(served) == good
    else:
        assert good.startswith(b"".join(served))
        assert b"".join(served) != good
        assert (error.kind, error.node is None) in {
            ("parent_hash_mismatch", False),
            ("leaf_hash_mismatch", True),
        }
    with file_of() as out:
        copy = partial(pybao.copy_verified, root, size, damaged, damaged_pairs, out)
        assert encode_error(copy) is not None
        assert data.startswith(content(out))
