"""What the end of a connection is called."""

from __future__ import annotations

import pytest
from aioquic.quic.events import ConnectionTerminated

from blobsync.transports.quic.closing import closed_by_us, handshake_error, lost_of
from blobsync.transports.quic.local_addresses import local_ipv4, local_ipv6


def event(code: int, reason: str = "", frame_type: int | None = 0) -> ConnectionTerminated:
    return ConnectionTerminated(error_code=code, frame_type=frame_type, reason_phrase=reason)


@pytest.mark.parametrize(
    ("ended", "by_peer", "said", "code"),
    [
        (event(7, "enough", None), True, "closed the connection with code 7 (enough)", 7),
        (event(0, "", None), True, "closed the connection with code 0", 0),
        (event(1, "Idle timeout"), False, "nothing came from the peer", None),
        # Only our own idle timeout is one.
        (event(1, "Idle timeout"), True, "the peer ended it (internal error", None),
        (event(3, "Over stream data limit"), False, "we ended it (flow control error", None),
        (event(0x12A, ""), True, "TLS alert bad certificate", None),
        (event(0x1FF, ""), True, "TLS alert 255", None),
        (event(0x9999, ""), True, "code 0x9999", None),
    ],
)
def test_ends(ended: ConnectionTerminated, by_peer: bool, said: str, code: int | None):
    lost = lost_of(ended, by_peer=by_peer)
    error = lost.error()
    assert said in str(error)
    assert error.code == code
    assert lost.error() is not error


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (event(2), "refused the connection"),
        (event(0x178), "does not speak this protocol"),
        (event(0x130), "another endpoint is there"),
        (
            event(0x133, "no"),
            "the handshake failed: the peer ended it (TLS alert decrypt error: no)",
        ),
    ],
)
def test_ends_of_a_handshake(ended: ConnectionTerminated, said: str):
    handshake = handshake_error(lost_of(ended, by_peer=True)).handshake
    assert handshake is not None
    assert said in str(handshake)


def test_a_silent_handshake_and_a_close_within_it():
    silent = handshake_error(lost_of(event(1, "Idle timeout"), by_peer=False))
    assert str(silent.handshake) == "no answer in time"
    closed = handshake_error(lost_of(event(4, "full", None), by_peer=True))
    assert closed.handshake is None
    assert closed.error().code == 4
    assert closed_by_us().error().code is None


def test_addresses_of_this_machine():
    found = local_ipv4()
    assert found
    assert not any(ip.is_unspecified for ip in found)
    assert len({ip.is_loopback for ip in found}) == 1
    assert not any(ip.is_link_local or ip.is_unspecified for ip in local_ipv6())
