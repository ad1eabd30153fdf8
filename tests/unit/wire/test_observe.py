"""Frames of an observed blob against the Rust peer."""

import json
from pathlib import Path

import pytest

from blobstore.codec.ranges import ChunkRanges
from blobsync.errors import RemoteProtocolError
from blobsync.wire.observe import Observation, ObservationReader, encode_observation
from blobsync.wire.requests import ObserveRequest, decode_request

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/observe.json").read_text())
ITEMS = VECTORS["items"]
TRANSCRIPTS = json.loads((Path(__file__).parents[2] / "vectors/transcripts.json").read_text())


def observation_of(state) -> Observation:
    return Observation(state["size"], ChunkRanges.union_of((s, e) for s, e in state["ranges"]))


@pytest.mark.parametrize("case", ITEMS, ids=lambda case: case["name"])
def test_frame_of_the_rust_peer(case):
    frame = bytes.fromhex(case["frame"])
    observation = observation_of(case)
    assert encode_observation(observation) == frame
    reader = ObservationReader()
    reader.receive(frame + frame[:1])
    assert reader.next_observation() == observation
    assert reader.next_observation() is None
    assert observation.is_complete == case["complete"]
    assert observation.is_size_proven == (case["validated_size"] is not None)
    assert observation.ranges.bytes_within(observation.size) == case["total_bytes"]
    assert observation.ranges.open_at_end(observation.size) == observation.ranges


def test_frames_byte_by_byte():
    reader = ObservationReader()
    seen = []
    for byte in bytes.fromhex("".join(case["frame"] for case in ITEMS)):
        reader.receive(bytes([byte]))
        if (observation := reader.next_observation()) is not None:
            seen.append(observation)
    assert seen == [observation_of(case) for case in ITEMS]
    reader.receive_eof()
    assert reader.next_observation() is None


@pytest.mark.parametrize("case", ITEMS, ids=lambda case: case["name"])
def test_an_end_within_a_frame(case):
    frame = bytes.fromhex(case["frame"])
    for size in range(1, len(frame)):
        reader = ObservationReader()
        reader.receive(frame[:size])
        assert reader.next_observation() is None
        reader.receive_eof()
        with pytest.raises(RemoteProtocolError, match="within a frame"):
            reader.next_observation()


def test_a_growing_blob():
    sent = Observation()
    received = Observation()
    for step in VECTORS["growing_blob"]:
        state = observation_of(step["new_state"])
        change = sent.change_to(state)
        assert change == observation_of(step["sent_item"])
        assert encode_observation(change).hex() == step["frame"]
        received = received.updated(change)
        assert received == observation_of(step["receiver_state_after_update"])
        sent = state


def test_the_size_that_comes_with_chunks_further_out_wins():
    near, far = ChunkRanges.of(0, 16), ChunkRanges.of(16, 32)
    end = ChunkRanges.of(64)
    assert Observation(7, near).updated(Observation(8, far)).size == 8
    assert Observation(8, far).updated(Observation(7, near)).size == 8
    assert Observation(8, far).updated(Observation(9, end)).size == 9
    assert Observation(9, end).updated(Observation(8, far)).size == 9
    assert Observation().updated(Observation(5)).size == 0


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("818040", "too long"),
        ("ffffffffffffffffff02", "64 bits"),
        ("00", "ends within"),
        ("0100", "ends within"),
        ("03000000", "too many"),
        ("020001", "no room"),
        ("0400020505", "do not increase"),
        ("0400020504", "do not increase"),
        ("0b" + "ff" * 9 + "01" + "00", "cannot have"),
        ("0300ff7f", "no room"),
    ],
)
def test_refused(wire: str, reason: str):
    reader = ObservationReader()
    reader.receive(bytes.fromhex(wire))
    with pytest.raises(RemoteProtocolError, match=reason):
        reader.next_observation()


@pytest.mark.parametrize(
    ("name", "due"),
    [
        ("observe: complete blob", Observation(16385, ChunkRanges.all())),
        ("observe: partial blob", Observation(65537, ChunkRanges.of(0, 16))),
        ("observe: unknown hash", Observation()),
        ("observe: partial, chunk 3 only", Observation(65537, ChunkRanges.of(3, 4))),
    ],
)
def test_answers_of_the_rust_peer(name: str, due: Observation):
    (case,) = (case for case in TRANSCRIPTS["cases"] if case["name"] == name)
    assert isinstance(decode_request(bytes.fromhex(case["request"])), ObserveRequest)
    reader = ObservationReader()
    reader.receive(bytes.fromhex(case["response"]))
    reader.receive_eof()
    assert reader.next_observation() == due
    assert reader.next_observation() is None
    assert encode_observation(due).hex() == case["response"]
