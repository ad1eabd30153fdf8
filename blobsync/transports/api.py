"""The contract of a transport: endpoints, connections and streams, as in QUIC and iroh.

A transport has never heard of a blob. Its streams are reliable, ordered and flow-controlled; a
stream ends with FIN (`finish`), by a reset from its sender or by a stop from its receiver, each
of the last two with a code. Waiting calls have no time limit of their own: the caller sets one
with `asyncio.timeout`, and a cancelled read has taken nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from blobsync.errors import BlobsyncError, UnreachableError

if TYPE_CHECKING:
    from types import TracebackType

    from blobsync.address import EndpointAddr, EndpointId


class StreamResetError(BlobsyncError):
    """The sender reset the stream: nothing more of it will arrive."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer reset the stream with code {code}")
        self.code = code


class StreamStoppedError(BlobsyncError):
    """The receiver does not want the rest of the stream."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer stopped the stream with code {code}")
        self.code = code


class ConnectionClosedError(UnreachableError):
    """The connection is gone: closed by either side, timed out or broken.

    Attributes:
        code: application code of a close by the peer, None if it was lost in another way.
        reason: text of that close, as the peer sent it.
    """

    is_permanent = False

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class BindError(BlobsyncError):
    """A local address cannot be bound."""


class NoAddressError(UnreachableError):
    """Nothing says where a peer is, in a way that this transport can use."""

    is_permanent = True


@dataclass(frozen=True, slots=True)
class PathInfo:
    """One way that packets of a connection may take."""

    is_relay: bool
    remote: str
    """`ip:port`, or the URL of the relay."""
    is_selected: bool
    rtt_s: float | None


class RecvStream(ABC):
    """The receiving half of a stream."""

    @abstractmethod
    async def read(self, max_bytes: int) -> bytes:
        """What has arrived, at most `max_bytes`; waits for at least one byte; `b""` is the end.

        Raises:
            StreamResetError: the sender gave up.
            ConnectionClosedError: the connection is gone.
        """

    @abstractmethod
    def stop(self, code: int) -> None:
        """Tell the sender that the rest is not wanted. Idempotent."""

    async def read_to_end(self, limit: int) -> bytes | None:
        """All that is left, or None if it is more than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read(limit + 1 - size):
            parts.append(data)
            size += len(data)
            if size > limit:
                return None
        return b"".join(parts)


class SendStream(ABC):
    """The sending half of a stream."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send all of `data`; waits for room. After a cancel, only `reset` is of use.

        Raises:
            StreamStoppedError: the receiver does not want it.
            ConnectionClosedError: the connection is gone.
        """

    @abstractmethod
    async def finish(self) -> None:
        """No more data: the receiver reads the end. Idempotent."""

    @abstractmethod
    def reset(self, code: int) -> None:
        """Give up: what is still under way may be lost. After `finish` it does nothing."""

    @abstractmethod
    async def wait_stopped(self) -> int | None:
        """Wait until the receiver stops the stream (its code) or has got all of it (None).

        Raises:
            ConnectionClosedError: the connection is gone.
        """


class BiStream(NamedTuple):
    """A stream in both directions."""

    send: SendStream
    recv: RecvStream


class Connection(ABC):
    """A connection to one peer, whose key the handshake has proven."""

    @property
    @abstractmethod
    def remote_id(self) -> EndpointId: ...

    @property
    @abstractmethod
    def alpn(self) -> bytes: ...

    @abstractmethod
    async def open_bi(self) -> BiStream:
        """Open a stream. The peer sees it with its first byte.

        Raises:
            ConnectionClosedError: the connection is gone.
        """

    @abstractmethod
    async def accept_bi(self) -> BiStream | None:
        """The next stream that the peer opened; None once the connection is gone."""

    @abstractmethod
    async def close(self, code: int = 0, reason: bytes = b"") -> None:
        """Close at once: streams not finished and received are lost. Idempotent."""

    @abstractmethod
    async def wait_closed(self) -> ConnectionClosedError:
        """Wait until the connection is gone; returns why."""

    @abstractmethod
    def paths(self) -> list[PathInfo]:
        """The ways packets can take now; empty if unknown."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Incoming(ABC):
    """A connection attempt that was not answered yet."""

    @property
    @abstractmethod
    def remote(self) -> str:
        """Where it comes from, for logs: `ip:port` or a relay URL. Not proven."""

    @abstractmethod
    async def accept(self) -> Connection:
        """Finish the handshake.

        Raises:
            UnreachableError: it failed.
        """

    @abstractmethod
    def refuse(self) -> None: ...


class Endpoint(ABC):
    """A socket with a key: dials and accepts connections. An async context manager."""

    @property
    @abstractmethod
    def id(self) -> EndpointId: ...

    @abstractmethod
    def addr(self) -> EndpointAddr:
        """Where peers can reach us now."""

    @abstractmethod
    async def connect(self, addr: EndpointAddr, alpn: bytes) -> Connection:
        """Dial a peer.

        Raises:
            UnreachableError: no way to it, no answer, wrong key, or it refused.
            ValueError: nobody can have the key that it names.
        """

    @abstractmethod
    async def accept(self) -> Incoming | None:
        """The next connection attempt; None once the endpoint is closed."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections and let go of the socket; bounded in time. Idempotent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class NetworkEndpoint(Endpoint):
    """An endpoint with sockets, whose addresses others can be told."""

    @abstractmethod
    def bound_ports(self) -> list[int]:
        """The UDP ports of our sockets."""

    @abstractmethod
    async def online(self, timeout_s: float) -> bool:
        """Wait until a relay is connected; whether one was in time."""

    @abstractmethod
    async def wait_for_addr(self, timeout_s: float) -> EndpointAddr:
        """`addr`, once it holds an address to dial, or as it is when the time is up."""
