"""Why a connection is gone, in our words: from what aioquic tells, and from its codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import AlertDescription

from blobsync.errors import UnreachableError
from blobsync.transports.api import ConnectionClosedError

if TYPE_CHECKING:
    from aioquic.quic.events import ConnectionTerminated

_IDLE = "Idle timeout"
"""aioquic's reason for a connection on which nothing came; it has no code of its own."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The end of a connection; each raise of it is an exception of its own."""

    message: str
    code: int | None = None
    """Of a close by the peer's application."""
    reason: str = ""
    transport_code: int | None = None
    """Of a close by either QUIC layer."""
    handshake: UnreachableError | None = None
    """What it means to someone who waits for the handshake."""

    def error(self) -> ConnectionClosedError:
        """The exception that the connection's users get."""
        return ConnectionClosedError(self.message, code=self.code, reason=self.reason)


def closed_by_us() -> Lost:
    """The end by our own will."""
    return Lost("the connection was closed by us")


def lost_of(event: ConnectionTerminated, *, by_peer: bool) -> Lost:
    """What an end that aioquic tells of means."""
    reason = event.reason_phrase
    if by_peer and event.frame_type is None:
        told = f" ({reason})" if reason else ""
        return Lost(
            f"the peer closed the connection with code {event.error_code}{told}",
            code=event.error_code,
            reason=reason,
        )
    if not by_peer and reason == _IDLE:
        return Lost("the connection was lost: nothing came from the peer")
    who = "the peer" if by_peer else "we"
    why = _code_text(event.error_code) + (f": {reason}" if reason else "")
    return Lost(f"the connection was lost: {who} ended it ({why})", transport_code=event.error_code)


def handshake_error(lost: Lost) -> Lost:
    """The same end, with what it means before both sides have accepted each other."""
    if lost.code is not None:
        return lost
    match lost.transport_code:
        case None:
            text = "no answer in time"
        case QuicErrorCode.CONNECTION_REFUSED:
            text = "it refused the connection"
        case code if code == QuicErrorCode.CRYPTO_ERROR + AlertDescription.no_application_protocol:
            text = "it does not speak this protocol"
        case code if code == QuicErrorCode.CRYPTO_ERROR + AlertDescription.unknown_ca:
            text = "another endpoint is there than the one that was dialled"
        case _:
            text = f"the handshake failed: {lost.message.removeprefix('the connection was lost: ')}"
    return Lost(lost.message, transport_code=lost.transport_code, handshake=UnreachableError(text))


def _code_text(code: int) -> str:
    if QuicErrorCode.CRYPTO_ERROR <= code < QuicErrorCode.CRYPTO_ERROR + 0x100:
        try:
            name = AlertDescription(code - QuicErrorCode.CRYPTO_ERROR).name
        except ValueError:
            name = str(code - QuicErrorCode.CRYPTO_ERROR)
        return f"TLS alert {name.replace('_', ' ')}"
    try:
        name = QuicErrorCode(code).name
    except ValueError:
        return f"code {code:#x}"
    return name.replace("_", " ").lower()
