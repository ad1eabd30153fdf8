"""Messages of the blobs protocol: round trips; any bytes give a value or our error."""

from hypothesis import assume, given
from hypothesis import strategies as st

from blobstore.codec.hash import BlobFormat, Hash
from blobstore.codec.ranges import ChunkRanges
from blobsync.address import EndpointAddr, EndpointId, RelayUrl, SocketAddr
from blobsync.errors import RemoteProtocolError, TicketError
from blobsync.wire.missing import missing
from blobsync.wire.observe import Observation, ObservationReader, encode_observation
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import (
    SPLIT_SIZE_MIN,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    Request,
    decode_request,
    encode_request,
    push_header_size,
    split_request,
)
from blobsync.wire.ticket import BlobTicket

HASH = Hash(b"\xda" * 32)

hashes = st.binary(min_size=32, max_size=32).map(Hash)
u64s = st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1), st.just(2**64 - 1))
chunk_ranges = st.lists(u64s, unique=True, max_size=5).map(lambda b: ChunkRanges(sorted(b)))
small_ranges = st.lists(st.integers(0, 30), unique=True, max_size=5).map(
    lambda b: ChunkRanges(sorted(b))
)


@st.composite
def seqs(draw: st.DrawFn, ranges: st.SearchStrategy[ChunkRanges] = chunk_ranges) -> ChunkRangesSeq:
    starts = sorted(draw(st.lists(st.integers(0, 20) | u64s, unique=True, max_size=6)))
    return ChunkRangesSeq.from_runs((start, draw(ranges)) for start in starts)


small_seqs = st.lists(small_ranges, max_size=8).flatmap(
    lambda elements: small_ranges.map(
        lambda tail: ChunkRangesSeq.from_runs(enumerate([*elements, tail]))
    )
)
requests: st.SearchStrategy[Request] = st.one_of(
    st.builds(GetRequest, hashes, seqs()),
    st.builds(ObserveRequest, hashes, chunk_ranges),
    st.builds(PushRequest, hashes, seqs()),
    st.builds(GetManyRequest, st.lists(hashes, max_size=4).map(tuple), seqs()),
)
ip_addrs = st.tuples(st.ip_addresses(), st.integers(0, 65535)).map(lambda a: SocketAddr(*a))
relay_urls = st.sampled_from(
    ["https://a.example/", "https://b.example.:7/x", "http://[::1]/", "https://10.0.0.1/?q#f"]
).map(RelayUrl)
endpoint_ids = st.sampled_from(
    [
        EndpointId(b"\xff" * 32),
        EndpointId(bytes(32)),
        EndpointId.from_text("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"),
    ]
)
endpoint_addrs = st.builds(
    EndpointAddr,
    endpoint_ids,
    st.lists(relay_urls, max_size=1).map(tuple),
    st.lists(ip_addrs, max_size=5).map(tuple),
)
tickets = st.builds(BlobTicket, endpoint_addrs, hashes, st.sampled_from(BlobFormat))


@given(requests)
def test_request_round_trip(request: Request):
    data = encode_request(request)
    assert decode_request(data) == request
    if isinstance(request, PushRequest):
        assert push_header_size(data + b"data") == len(data)


@given(st.binary(max_size=80) | st.tuples(requests, st.integers(0, 99), st.integers(0, 255)))
def test_any_bytes_are_a_request_or_refused(given_bytes):
    """Also the bytes of a request with one of them changed."""
    if isinstance(given_bytes, tuple):
        request, position, byte = given_bytes
        data = bytearray(encode_request(request))
        data[position % len(data)] = byte
        given_bytes = bytes(data)
    try:
        decoded = decode_request(given_bytes)
    except RemoteProtocolError:
        return
    encoded = encode_request(decoded)
    assert decode_request(encoded) == decoded
    # A value has one form, but for numbers that are longer than they need be.
    assert len(encoded) <= len(given_bytes)
    if len(encoded) == len(given_bytes):
        assert encoded == given_bytes


@given(small_seqs, st.integers(0, 12))
def test_seq_is_what_its_elements_say(seq: ChunkRangesSeq, end: int):
    elements = [seq.ranges_at(i) for i in range(12)]
    assert list(seq.up_to(12).elements()) == [(i, r) for i, r in enumerate(elements) if r]
    assert ChunkRangesSeq.from_elements(enumerate(elements)) == seq.up_to(12)
    cut = seq.up_to(end)
    assert not cut.is_infinite
    assert [cut.ranges_at(i) for i in range(12)] == [
        r if i < end else ChunkRanges.empty() for i, r in enumerate(elements)
    ]
    assert ChunkRangesSeq.from_runs(seq.runs) == ChunkRangesSeq(seq.runs) == seq


@given(
    seqs(st.lists(u64s, unique=True, max_size=40).map(lambda b: ChunkRanges(sorted(b)))),
    st.integers(SPLIT_SIZE_MIN, 300),
)
def test_a_split_get_covers_the_original(seq: ChunkRangesSeq, size_max: int):
    request = GetRequest(HASH, seq)
    parts = list(split_request(request, size_max=size_max))
    points = sorted({p for start, _ in seq.runs for p in (start - 1, start, start + 1) if p >= 0})
    covered = {point: ChunkRanges.empty() for point in points}
    for part in parts:
        assert isinstance(part, GetRequest)
        assert part.hash == HASH
        assert len(encode_request(part)) <= 1 + size_max
        assert part.ranges or not seq
        for point in points:
            ranges = part.ranges.ranges_at(point)
            assert not covered[point] & ranges
            covered[point] |= ranges
        # Nothing starts or ends where the original does not.
        assert {start for start, _ in part.ranges.runs} <= {start for start, _ in seq.runs}
    assert covered == {point: seq.ranges_at(point) for point in points}


@given(
    st.lists(st.tuples(hashes, small_ranges), max_size=12),
    st.integers(SPLIT_SIZE_MIN, 300),
)
def test_a_split_get_many_covers_the_original(blobs: list[tuple[Hash, ChunkRanges]], size_max: int):
    request = GetManyRequest.from_blobs(blobs)
    seen: list[tuple[Hash, ChunkRanges]] = []
    for part in split_request(request, size_max=size_max):
        assert isinstance(part, GetManyRequest)
        assert len(encode_request(part)) <= 1 + size_max
        seen += [(part.hashes[i], ranges) for i, ranges in part.ranges.elements()]
    assert seen == [(hash, ranges) for hash, ranges in blobs if ranges]


@given(small_seqs, small_ranges, st.lists(small_ranges, max_size=6), st.none() | st.integers(0, 8))
def test_missing_is_element_by_element(
    request: ChunkRangesSeq,
    root: ChunkRanges,
    children: list[ChunkRanges],
    child_count: int | None,
):
    result = missing(request, root, children, child_count)
    for index in range(12):
        here = [root, *children][index] if index <= len(children) else ChunkRanges.empty()
        due = request.ranges_at(index) - here
        if child_count is not None and index > child_count:
            due = ChunkRanges.empty()
        assert result.ranges_at(index) == due
    assert result.is_infinite == (child_count is None and request.is_infinite)


@given(tickets)
def test_ticket_round_trip(ticket: BlobTicket):
    text = ticket.to_text()
    assert BlobTicket.from_text(text) == ticket
    assert BlobTicket.from_text("blob" + text[4:].upper()) == ticket


@given(
    st.text(max_size=40),
    st.text("abcdefghijklmnopqrstuvwxyz234567", max_size=200).map(lambda t: "blob" + t),
    tickets,
    st.integers(0, 1000),
    st.sampled_from("a2z"),
)
def test_any_text_is_a_ticket_or_refused(
    text: str, body: str, ticket: BlobTicket, position: int, letter: str
):
    changed = ticket.to_text()
    at = 4 + position % (len(changed) - 4)
    for each in (text, body, changed[:at] + letter + changed[at + 1 :]):
        try:
            decoded = BlobTicket.from_text(each)
        except TicketError:
            continue
        assert BlobTicket.from_text(decoded.to_text()) == decoded


@given(st.integers(0, 2**63 - 1), chunk_ranges, st.lists(st.integers(1, 5)))
def test_observation_round_trip(size: int, ranges: ChunkRanges, cuts: list[int]):
    data = encode_observation(Observation(size, ranges)) * 2
    reader = ObservationReader()
    seen = []
    for cut in [*cuts, len(data)]:
        reader.receive(data[:cut])
        data = data[cut:]
        while (observation := reader.next_observation()) is not None:
            seen.append(observation)
    assert seen == [Observation(size, ranges)] * 2


@given(st.binary(max_size=40))
def test_any_bytes_are_observations_or_refused(data: bytes):
    reader = ObservationReader()
    reader.receive(data)
    reader.receive_eof()
    try:
        while (observation := reader.next_observation()) is not None:
            again = ObservationReader()
            again.receive(encode_observation(observation))
            assert again.next_observation() == observation
    except RemoteProtocolError:
        return


@given(small_ranges, small_ranges)
def test_an_observer_follows_a_growing_blob(before: ChunkRanges, added: ChunkRanges):
    earlier = Observation(31 * 1024, before)
    later = Observation(31 * 1024, before | added)
    assume(before)
    assert earlier.updated(earlier.change_to(later)) == later
