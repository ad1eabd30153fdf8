"""Everything pybao computes, against what the Rust crates computed."""

import re
from functools import cache

import blake3
import pytest

import pybao
from tests.property.pybao import reference
from tests.unit.pybao import vectors
from tests.unit.pybao.vectors import boundaries

BLOBS = vectors.load("blobs.json")
ENCODINGS = [
    (blob, case) for blob in vectors.load("encodings.json")["blobs"] for case in blob["cases"]
]
ERRORS = [
    (blob, case) for blob in vectors.load("decode_errors.json")["blobs"] for case in blob["cases"]
]
SUBTREES = vectors.load("subtrees.json")
MATH = vectors.load("ranges_math.json")
TREES = vectors.load("tree.json")["trees"]
VALID = vectors.load("valid_ranges.json")["cases"]


@cache
def data(size: int) -> bytes:
    return vectors.data(size)


@cache
def outboard(size: int) -> tuple[bytes, bytes]:
    return pybao.outboard(data(size))


def digest(content: bytes) -> str:
    return blake3.blake3(content).hexdigest()


@pytest.mark.parametrize("blob", BLOBS["blobs"] + BLOBS["more"], ids=lambda blob: f"{blob['size']}")
@pytest.mark.parametrize("threads", [1, 2])
def test_outboard(blob, threads, tmp_path):
    content = data(blob["size"])
    root, pairs = pybao.outboard(content, threads=threads)
    assert root.hex() == blob["root"] == pybao.hash(content).hex()
    assert len(pairs) == blob["outboard_len"] == pybao.outboard_size(len(content))
    assert digest(pairs) == blob["preorder_outboard_blake3"]
    if "preorder_outboard" in blob:
        assert pairs.hex() == blob["preorder_outboard"]
    (tmp_path / "data").write_bytes(content)
    with (tmp_path / "data").open("rb") as file, (tmp_path / "pairs").open("wb") as out:
        assert pybao.outboard_fd(file.fileno(), len(content), threads=threads) == (root, pairs)
        assert pybao.outboard_fd(
            file.fileno(), len(content), outboard_fd=out.fileno(), threads=threads
        ) == (root, b"")
    assert (tmp_path / "pairs").read_bytes() == pairs


@pytest.mark.parametrize(
    ("blob", "case"), ENCODINGS, ids=[f"{b['size']}-{c['name']}" for b, c in ENCODINGS]
)
def test_encoding(blob, case):
    size, content = blob["size"], data(blob["size"])
    root, pairs = outboard(size)
    ranges = boundaries(case["ranges"])
    encoder = pybao.Encoder(root, size, ranges, content, pairs)
    assert encoder.encoded_size == case["len"]
    encoded = encoder.next(1 << 30)
    assert encoder.next() == b""
    assert (len(encoded), digest(encoded)) == (case["len"], case["blake3"])
    if "hex" in case:
        assert encoded.hex() == case["hex"]
    # The canonical ranges are the same request.
    canonical = boundaries(case["canonical_ranges"])
    again = pybao.Encoder(root, size, canonical, content, pairs, header=False)
    assert again.next(1 << 30) == encoded[8:]

    decoder = pybao.Decoder(root, ranges)
    decoder.feed(encoded)
    decoder.finish()
    assert decoder.is_done
    assert decoder.size == size
    items = [
        {
            "parent": item.tree.node,
            "level": (item.tree.count - 1).bit_length() - 1,
            "start_chunk": item.tree.start,
            "in_outboard": item.tree.is_stored,
        }
        if item.is_pair
        else {"leaf": item.tree.bytes.start, "len": item.length}
        for item in reference.plan(size, ranges)
    ]
    assert items == case.get("items", items)
    leaves = [item for item in items if "leaf" in item]
    assert (len(items) - len(leaves), len(leaves)) == (case["parents"], case["leaves"])
    stored = [item for item in items if item.get("in_outboard")]
    pieces = decoder.take_pieces()
    assert [(offset, len(piece)) for offset, piece in pieces] == [
        (item["leaf"], item["len"]) for item in leaves if item["len"]
    ]
    assert all(content[offset:].startswith(piece) for offset, piece in pieces)
    taken = decoder.take_pairs()
    assert len(taken) == len(stored)
    assert all(pairs[offset : offset + 64] == pair for offset, pair in taken)
    received = boundaries(case["chunks_received"])
    # There, the one chunk of the empty blob, having no bytes, is not counted.
    assert decoder.proven == (received if size else decoder.proven)
    assert decoder.proven == pybao.truncate_ranges(ranges, size)

    # What was received is valid again as far as it came in whole groups.
    held, held_pairs = bytearray(size), bytearray(len(pairs))
    for offset, piece in pieces:
        held[offset : offset + len(piece)] = piece
    for offset, pair in taken:
        held_pairs[offset : offset + 64] = pair
    valid = pybao.valid_ranges(root, size, bytes(held), bytes(held_pairs), decoder.proven)
    if size:
        assert valid == boundaries(case["valid_ranges_of_group_outboard"])
    else:
        assert valid == decoder.proven


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{tree['size']}")
def test_tree(tree):
    size = tree["size"]
    assert pybao.outboard_size(size) == tree["outboard_size"]
    if not tree["nodes"]:
        return
    stored = list(reference.stored(reference.whole(size)))
    listed = {
        (node, level, start, mid): index
        for node, level, start, mid, _, index, _, _ in tree["nodes"]
        if index is not None
    }
    assert {
        (
            subtree.node,
            (subtree.count - 1).bit_length() - 1,
            subtree.start,
            subtree.start + subtree.left_count,
        ): index
        for index, subtree in enumerate(stored)
    } == listed
    # pybao has each pair at the place listed: damage there is found at that node.
    if size > 1 << 21:
        return
    root, pairs = outboard(size)
    for (node, *_), index in listed.items():
        damaged = bytearray(pairs)
        damaged[64 * index] ^= 1
        encoder = pybao.Encoder(root, size, [0], data(size), bytes(damaged))
        with pytest.raises(pybao.EncodeError) as caught:
            while encoder.next():
                pass
        assert (caught.value.kind, caught.value.node) == ("parent_hash_mismatch", node)


def test_subtrees_of_the_reference():
    content = data(SUBTREES["data_size"])
    assert pybao.hash(content).hex() == SUBTREES["root_of_data"]
    for subtree in SUBTREES["subtrees"]:
        assert chaining_value(subtree["start_chunk"], subtree["len"]).hex() == subtree["cv"]


def chaining_value(start: int, length: int) -> bytes:
    """Of a subtree of a longer blob, so that it is never the root."""
    content = data(SUBTREES["data_size"])[start * 1024 : start * 1024 + length]
    count = reference.chunk_count(length)
    if count == 1:
        return reference.chunk_hash(content, start, is_root=False)
    left = reference.Subtree(start, count, 1 << 40).left_count
    return reference.parent_hash(
        chaining_value(start, left * 1024),
        chaining_value(start + left, length - left * 1024),
        is_root=False,
    )


@pytest.mark.parametrize("case", SUBTREES["parents"])
def test_parents(case):
    halves = [case[side] for side in ("left", "right")]
    values = [chaining_value(half["start_chunk"], half["len"]) for half in halves]
    assert [value.hex() for value in values] == [half["cv"] for half in halves]
    assert reference.parent_hash(*values, case["is_root"]).hex() == case["hash"]


@pytest.mark.parametrize(("length", "left"), SUBTREES["left_subtree_len"])
def test_left_subtree(length, left):
    assert reference.whole(length).left_count * 1024 == left
    # The pair of chunk values is observable where the root is sent: its left half covers `left`.
    content = data(length)
    root, pairs = pybao.outboard(content)
    decoder = pybao.Decoder(root, [0, 1])
    encoded = pybao.Encoder(root, length, [0, 1], content, pairs).next()
    decoder.feed(encoded)
    decoder.finish()
    assert encoded[8:40] == chaining_value_of(content[:left])


def chaining_value_of(content: bytes) -> bytes:
    """Of a subtree at the beginning of a longer blob."""
    longer = content + bytes(len(content))
    return reference.subtree_hash(
        longer, reference.Subtree(0, reference.chunk_count(len(content)), len(longer))
    )


@pytest.mark.parametrize(("offset", "length"), SUBTREES["max_subtree_len_by_offset"])
def test_max_subtree(offset, length):
    # The largest subtree that starts at a chunk is as long as its alignment; at 0, the blob.
    blob = 4 << 20
    starting = [
        tree.count * 1024 for tree in subtrees(reference.whole(blob)) if tree.start * 1024 == offset
    ]
    assert max(starting) == (blob if length is None else length)


def subtrees(tree):
    yield tree
    if tree.count > 1:
        for child in tree.children:
            yield from subtrees(child)


@pytest.mark.parametrize("case", MATH["truncate"])
def test_truncate(case):
    ranges, size = boundaries(case["ranges"]), case["size"]
    ours = pybao.truncate_ranges(ranges, size)
    # There, what lies beyond the end stays open; it means the last chunk.
    assert ours == pybao.truncate_ranges(boundaries(case["canonical"]), size)
    assert ours == reference.boundaries_of(reference.selected(ranges, size))


@pytest.mark.parametrize("case", MATH["groups_log4"])
def test_groups(case):
    ranges = boundaries(case["ranges"])
    assert pybao.round_up_to_groups(ranges) == boundaries(case["round_up_to_groups"])
    assert pybao.full_groups(ranges) == boundaries(case["full_groups_only"])


@pytest.mark.parametrize("case", MATH["bytes_to_chunks"])
def test_bytes_to_chunks(case):
    """Reading bytes needs just the chunks listed, and takes their whole groups."""
    content = data(200 * 1024)
    root, pairs = pybao.outboard(content)
    chunks = boundaries(case["chunks"])
    groups = reference.members(pybao.round_up_to_groups(chunks), 200)
    held = bytearray(len(content))
    for chunk in groups:
        held[chunk * 1024 : chunk * 1024 + 1024] = content[chunk * 1024 : chunk * 1024 + 1024]
    for start, end in case["bytes"]:
        stop = len(content) if end is None else end
        read = pybao.read_verified(root, len(content), bytes(held), pairs, start, stop)
        assert read == content[start:stop]


def changed_payload(change: str, payload: bytes) -> bytes:
    if found := re.match(r"xor byte (\d+) ", change):
        place = int(found[1])
        return payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]
    if found := re.match(r"payload truncated to (\d+) ", change):
        return payload[: int(found[1])]
    assert change in {"none", "wrong size header"}
    return payload


@pytest.mark.parametrize(
    ("blob", "case"),
    ERRORS,
    ids=[f"{b['size']}-{c['claimed_size']}-{c['change'][:28]}" for b, c in ERRORS],
)
@pytest.mark.parametrize("step", [1 << 20, 37])
def test_decode_error(blob, case, step):
    size, ranges = blob["size"], boundaries(blob["ranges"])
    root, pairs = outboard(size)
    encoded = pybao.Encoder(root, size, ranges, data(size), pairs).next(1 << 30)
    assert (root.hex(), digest(encoded)) == (blob["root"], blob["encoded_blake3"])
    claimed = case["claimed_size"]
    payload = changed_payload(case["change"], encoded[8:])
    stream = claimed.to_bytes(8, "little") + payload

    decoder = pybao.Decoder(root, ranges)
    error = None
    try:
        for start in range(0, len(stream), step):
            decoder.feed(stream[start : start + step])
        decoder.finish()
    except pybao.DecodeError as caught:
        error = caught
        for again in (decoder.finish, lambda: decoder.feed(b"more")):
            with pytest.raises(pybao.DecodeError) as repeated:
                again()
            assert repeated.value.args == error.args

    items = reference.plan(claimed, ranges)[: case["items_ok_before_error"]]
    assert sum(len(piece) for _, piece in decoder.take_pieces()) == case["leaf_bytes_ok"]
    assert len(decoder.take_pairs()) == sum(i.is_pair and i.tree.is_stored for i in items)
    if case["error"] is None:
        assert error is None
        # A chunk in the middle verifies under many sizes; only the last one proves the size.
        assert decoder.size_proven == (blob["ranges_name"] == "all")
        return
    assert error is not None
    kind = case["error"]["kind"]
    if kind.endswith("_not_found") and len(payload) > sum(item.length for item in items):
        kind = "truncated"
    assert (error.kind, error.node, error.chunk) == (
        kind,
        case["error"].get("node"),
        case["error"].get("chunk"),
    )
    assert not decoder.is_done


@pytest.mark.parametrize("case", VALID)
@pytest.mark.parametrize("threads", [1, 2])
def test_valid_ranges(case, threads):
    size = case["size"]
    root, pairs = outboard(size)
    damaged = bytearray(data(size))
    for start, end in case["zeroed_bytes"]:
        damaged[start:end] = bytes(len(damaged[start:end]))
    held = pairs if case["outboard"] == "full" else bytes(len(pairs))
    valid = pybao.valid_ranges(root, size, bytes(damaged), held, threads=threads)
    assert valid == boundaries(case["valid_ranges"])
