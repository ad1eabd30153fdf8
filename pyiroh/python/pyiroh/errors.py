"""Errors of pyiroh. They carry codes and reasons as attributes; their texts name no build paths.

Every error of this package is an `IrohError`, except the plain `ValueError` and `TypeError` for
arguments that can never be right and `OSError` for files a pump reads or writes.
"""

# ruff: noqa: N818 - names of what happened, in the words of iroh and QUIC
from __future__ import annotations


class IrohError(Exception):
    """Base of all errors of this package."""


class BindError(IrohError):
    """The endpoint could not be made, for instance because an address is in use."""


class EndpointClosed(IrohError):
    """The endpoint was closed before or during the operation."""


class NotOnline(IrohError, TimeoutError):
    """No home relay was reached within the time limit.

    Attributes:
        denied: what a relay said when it refused our authentication; None if none did.
    """

    def __init__(self, text: str, denied: str | None = None) -> None:
        super().__init__(text)
        self.denied = denied


class OperationFailed(IrohError):
    """The operation ended in a way that points to a bug here or below, such as a panic."""


class ForkedProcess(IrohError, RuntimeError):
    """This process was forked from one that used pyiroh: its threads do not exist here.

    Start workers with the `spawn` or `forkserver` method instead.
    """


class ConnectError(IrohError):
    """No connection came to be, on the dialling or on the accepting side."""


class ConnectTimedOut(ConnectError, TimeoutError):
    """The peer did not answer in time."""


class ConnectRefused(ConnectError):
    """The peer refused to talk to us before the handshake."""


class NoAddresses(ConnectError):
    """Nothing says where the peer is: its address is empty and discovery found nothing."""


class NoCommonAlpn(ConnectError):
    """The peer does not speak the protocol we asked for, or none of ours."""


class SelfConnect(ConnectError):
    """The address is that of the endpoint itself."""


class HandshakeFailed(ConnectError):
    """The handshake failed, for instance because the peer has another key than we dialled.

    Attributes:
        code: the QUIC transport error code; None when the failure has none.
        reason: what the side that gave up said about it.
    """

    def __init__(self, text: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class ConnectClosedByPeer(ConnectError):
    """The peer's application closed the connection while it was being made.

    Attributes:
        code: the number it gave.
        reason: the bytes it gave.
    """

    def __init__(self, code: int, reason: bytes) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return _close_text("connection closed by peer", self.code, self.reason)


class ConnectionLost(IrohError):
    """An established connection is over. Its subclasses say why."""


class ConnectionClosedByPeer(ConnectionLost):
    """The peer's application closed the connection.

    Attributes:
        code: the number it gave.
        reason: the bytes it gave.
    """

    def __init__(self, code: int, reason: bytes) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return _close_text("connection closed by peer", self.code, self.reason)


class ConnectionAborted(ConnectionLost):
    """The peer's or our own QUIC layer ended the connection because of an error.

    Attributes:
        code: the QUIC transport error code; None when the failure has none.
        by_peer: whether the peer ended it.
        reason: what the side that ended it said about it.
    """

    def __init__(
        self, text: str, code: int | None = None, by_peer: bool = False, reason: str = ""
    ) -> None:
        super().__init__(text)
        self.code = code
        self.by_peer = by_peer
        self.reason = reason


class LocallyClosed(ConnectionLost):
    """We closed the connection, or its endpoint, ourselves."""


class ConnectionTimedOut(ConnectionLost, TimeoutError):
    """Nothing was heard of the peer for the idle time."""


class ConnectionReset(ConnectionLost):
    """The peer no longer knows the connection, usually because it restarted."""


class StreamError(IrohError):
    """A stream cannot do what was asked; its connection may be fine."""


class StreamReset(StreamError):
    """The peer gave up sending on the stream.

    Attributes:
        code: the number it gave.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"stream reset by peer (code {self.code})"


class StreamStopped(StreamError):
    """The peer does not want to read more of the stream.

    Attributes:
        code: the number it gave.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"stream stopped by peer (code {self.code})"


class StreamClosed(StreamError):
    """We ended our side of the stream before: `finish`, `reset` or `stop` was called."""


class StreamBusy(StreamError):
    """Another operation holds the stream, and this one cannot wait for it."""


class IncompleteRead(StreamError):
    """The stream ended before as many bytes came as were asked for.

    Attributes:
        partial: the bytes that came.
    """

    def __init__(self, partial: bytes) -> None:
        super().__init__(partial)
        self.partial = partial

    def __str__(self) -> str:
        return f"stream ended after {len(self.partial)} bytes, more were expected"


class StreamTooLong(StreamError):
    """The stream is longer than the limit given to `read_to_end`."""


class DatagramError(IrohError):
    """A datagram cannot be sent."""


class DatagramTooLarge(DatagramError):
    """The datagram is longer than `max_datagram_size` or the buffer for sending."""


class DatagramsUnsupported(DatagramError):
    """Datagrams are off on this or the other side."""


class PumpError(IrohError):
    """A pump cannot go on with the blob."""


class VerifyError(PumpError):
    """An item of the encoding is wrong or missing; what came before it is verified.

    Attributes:
        kind: `parent_hash_mismatch` or `leaf_hash_mismatch` (bad data, from the peer or in our own
            files), `size_invalid` (the claimed size is impossible), `size_not_found`,
            `parent_not_found` or `leaf_not_found` (the stream ended where an item was due),
            `truncated` (it ended within an item), `size_mismatch` (our own data or outboard end
            too early).
        node: in-order number of the tree node, for an item that is a pair of hashes.
        chunk: first chunk of the leaf, for an item that is data.
        index: which blob it is of, where several were given to be sent.
    """

    def __init__(
        self,
        kind: str,
        node: int | None = None,
        chunk: int | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(kind, node, chunk, index)
        self.kind = kind
        self.node = node
        self.chunk = chunk
        self.index = index

    def __str__(self) -> str:
        where = ""
        if self.node is not None:
            where = f" at node {self.node}"
        elif self.chunk is not None:
            where = f" at chunk {self.chunk}"
        return self.kind.replace("_", " ") + where


def _close_text(what: str, code: int, reason: bytes) -> str:
    words = reason.decode("utf-8", "backslashreplace")
    return f"{what}: {words} (code {code})" if words else f"{what} (code {code})"
