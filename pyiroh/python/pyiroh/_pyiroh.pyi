"""Endpoints, connections and streams of iroh for asyncio, and pumps for verified bulk data.

An *operation* (everything that returns `_Op`) is a coroutine: `await` it, or give it to
`create_task`, `gather`, `wait_for`. It starts when it is first awaited, runs as a whole beside
Python, and wakes the event loop once. Cancelling the task that awaits it cancels it. What a
cancelled operation had already taken from a peer is put back and comes with the next call:
`Endpoint.accept`, `Connection.accept_bi`, `accept_uni`, `read_datagram`, `RecvStream.read`,
`read_exact`, `read_to_end` and `BatchPump.next` lose nothing. After a cancelled write or pump to
a stream only `reset` makes sense.

Objects may be used from several event loops and threads at a time; calls on one half of a stream
wait for each other, in no promised order. Codes are whole numbers from 0 to 2**62 - 1. Times
ending in `_s` are seconds.

A process that was forked from one that used this module gets `ForkedProcess` from every operation.
"""

from collections.abc import AsyncIterator, Coroutine, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, final

from pyiroh.errors import ConnectionLost

__all__ = [
    "STREAM_RECEIVE_WINDOW_MAX",
    "AddrWatcher",
    "BatchPump",
    "BlobPump",
    "Connection",
    "ConnectionStats",
    "Endpoint",
    "EndpointAddr",
    "EndpointId",
    "EndpointTicket",
    "Incoming",
    "Operation",
    "Path",
    "PathWatcher",
    "PumpProgress",
    "RecvStream",
    "RelayConfig",
    "RelayStatus",
    "SecretKey",
    "SendStream",
    "TransportConfig",
    "WholeBlobs",
]

_T = TypeVar("_T")
_Op: TypeAlias = Coroutine[Any, Any, _T]

STREAM_RECEIVE_WINDOW_MAX: int
"""Bytes, 2 MiB: a larger window lets a fast peer end the whole connection by accident."""

@final
class Operation:
    """One operation: a coroutine that runs beside Python. Made by the other classes."""

    def send(self, value: object, /) -> Any: ...
    def throw(self, typ: object, val: object = None, tb: object = None, /) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...

@final
class SecretKey:
    """The secret half of an endpoint's identity: a 32-byte Ed25519 seed. `repr` hides it."""

    @staticmethod
    def generate() -> SecretKey: ...
    @staticmethod
    def from_bytes(seed: bytes, /) -> SecretKey:
        """Raises ValueError: not 32 bytes."""
    def to_bytes(self) -> bytes: ...
    def public(self) -> EndpointId: ...
    def sign(self, message: bytes, /) -> bytes:
        """The Ed25519 signature, 64 bytes."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class EndpointId:
    """The public half of an endpoint's identity: an Ed25519 public key. `str` gives its hex.

    Ordered by its bytes.
    """

    @staticmethod
    def from_bytes(key: bytes, /) -> EndpointId:
        """Raises ValueError: not 32 bytes, no curve point, or a weak point nobody can own."""
    @staticmethod
    def from_text(text: str, /) -> EndpointId:
        """From 64 digits of lower-case hex or 52 of base32 without padding, of any case.

        Raises:
            ValueError: neither, or not a good key (see `from_bytes`).
        """
    def to_bytes(self) -> bytes: ...
    def short(self) -> str:
        """The first 10 hex digits, for logs."""
    def z32(self) -> str:
        """z-base-32, as used in DNS names."""
    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this endpoint's; strict Ed25519. False for any other bytes."""
    def __bytes__(self) -> bytes: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __lt__(self, other: EndpointId, /) -> bool: ...
    def __le__(self, other: EndpointId, /) -> bool: ...
    def __gt__(self, other: EndpointId, /) -> bool: ...
    def __ge__(self, other: EndpointId, /) -> bool: ...

@final
class EndpointAddr:
    """Who and where: an endpoint id, relay URLs and `ip:port` or `[v6]:port` texts.

    URLs are normalised, addresses are a set. Both come out sorted.

    Raises:
        ValueError: a URL or an address does not parse.
    """

    def __new__(
        cls, id: EndpointId, relay_urls: Sequence[str] = (), ip_addrs: Sequence[str] = ()
    ) -> Self: ...
    @property
    def id(self) -> EndpointId: ...
    @property
    def relay_urls(self) -> tuple[str, ...]: ...
    @property
    def ip_addrs(self) -> tuple[str, ...]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class EndpointTicket:
    """An `EndpointAddr` as one word to copy: `str(ticket)` starts with `endpoint`."""

    def __new__(cls, addr: EndpointAddr) -> Self: ...
    @staticmethod
    def from_text(text: str, /) -> EndpointTicket:
        """Raises ValueError: not such a ticket."""
    @property
    def addr(self) -> EndpointAddr: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class RelayConfig:
    """One relay server: URL, the token it wants, and the UDP port that tells us our address.

    Without `quic_port` it is 7842 for `https` and none for `http`; 0 means none.

    Raises:
        ValueError: the URL does not parse.
    """

    def __new__(
        cls, url: str, *, token: str | None = None, quic_port: int | None = None
    ) -> Self: ...
    @property
    def url(self) -> str: ...

@final
class RelayStatus:
    """How it stands with a home relay."""

    @property
    def url(self) -> str: ...
    @property
    def is_connected(self) -> bool: ...
    @property
    def denied(self) -> str | None:
        """The relay's words when it refused our authentication."""

@final
class TransportConfig:
    """Settings of the QUIC layer; what is not given keeps iroh's default.

    Sizes are bytes, `keep_alive_s` and `idle_timeout_s` apply to the whole connection. A
    `datagram_receive_buffer` of 0 turns datagrams off.

    Raises:
        ValueError: a value is out of range; above all `stream_receive_window` beyond
            `STREAM_RECEIVE_WINDOW_MAX`.
    """

    def __new__(
        cls,
        *,
        idle_timeout_s: float | None = None,
        keep_alive_s: float | None = None,
        stream_receive_window: int | None = None,
        receive_window: int | None = None,
        send_window: int | None = None,
        max_bi_streams: int | None = None,
        max_uni_streams: int | None = None,
        congestion: Literal["cubic", "newreno", "bbr3"] | None = None,
        initial_mtu: int | None = None,
        segmentation_offload: bool | None = None,
        datagram_receive_buffer: int | None = None,
        datagram_send_buffer: int | None = None,
    ) -> Self: ...

@final
class Endpoint:
    """Our end of all connections: an identity, UDP sockets, perhaps relays.

    `async with await Endpoint.bind(...) as endpoint:` closes it on the way out.
    """

    @staticmethod
    def bind(
        *,
        secret_key: SecretKey | None = None,
        alpns: Sequence[bytes] = (),
        bind_ipv4: str | None = "0.0.0.0:0",
        bind_ipv6: str | None = "[::]:0",
        relays: Literal["disabled", "default", "staging"] | Sequence[RelayConfig] = "disabled",
        discovery: Literal["none", "n0"] = "none",
        port_mapping: bool = False,
        external_addrs: Sequence[str] = (),
        transport: TransportConfig | None = None,
    ) -> _Op[Endpoint]:
        """Make an endpoint.

        Without `secret_key` it has a new identity. Each address family has one socket, or none
        with None; `bind_ipv4="127.0.0.1:0", bind_ipv6=None` is on loopback and nowhere else. The
        default IPv6 socket may fail where the system has no IPv6, any other must succeed. With no
        IP socket at all only relays are left. `relays`: an empty sequence is no relay yet, to be
        added with `insert_relay`. `discovery="n0"` publishes our addresses to, and asks,
        the public servers of n0. `port_mapping` asks the router for a port (UPnP, PCP, NAT-PMP).
        Without `alpns` nothing can be accepted.

        Raises:
            BindError: a socket could not be bound, or a part of iroh not be set up.
            ValueError: an address does not parse or is of the wrong family.
        """
    @property
    def id(self) -> EndpointId: ...
    @property
    def is_closed(self) -> bool: ...
    def addr(self) -> EndpointAddr:
        """Where this endpoint can be reached, as far as is known now."""
    def watch_addr(self) -> AddrWatcher:
        """The present `addr()`, then each change of it."""
    def bound_sockets(self) -> tuple[str, ...]: ...
    def online(self, timeout_s: float) -> _Op[None]:
        """Wait until a home relay is connected.

        Raises:
            NotOnline: none was within the time limit; always so with relays disabled.
            EndpointClosed: closed before.
        """
    def home_relays(self) -> list[RelayStatus]: ...
    def insert_relay(self, relay: RelayConfig) -> _Op[None]: ...
    def remove_relay(self, url: str) -> _Op[bool]: ...
    def add_external_addr(self, addr: str) -> _Op[None]: ...
    def remove_external_addr(self, addr: str) -> _Op[bool]: ...
    def set_alpns(self, alpns: Sequence[bytes]) -> None: ...
    def network_change(self) -> _Op[None]:
        """Tell iroh to look at the network interfaces again."""
    def connect(
        self,
        addr: EndpointAddr | EndpointId,
        alpn: bytes,
        *,
        timeout_s: float | None = None,
        transport: TransportConfig | None = None,
    ) -> _Op[Connection]:
        """Dial an endpoint.

        Raises:
            ConnectError: see its subclasses. `ConnectTimedOut` also comes from iroh's own limits.
            EndpointClosed: closed before.
        """
    def accept(self) -> _Op[Incoming | None]:
        """The next peer that dials us; None once the endpoint is closed."""
    def close(self, timeout_s: float = 5.0) -> _Op[None]:
        """Close all connections with code 0 and wait until the peers know, or the time is up.

        It goes on by itself when the time is up or the call is cancelled. When it is done the
        sockets are free, whatever of the endpoint is still held: its connections and streams are
        lost (`LocallyClosed`) but keep what was known of them, and bytes that had arrived can
        still be read. A closed endpoint still has its `id`.

        A connection whose handshake failed, or a peer that no longer answers, takes up to three
        round-trip limits of QUIC: about 3 s from its failure where no round trip was measured.
        """
    def closed(self) -> _Op[None]:
        """Wait until the endpoint is closed."""
    def metrics(self) -> dict[str, int]:
        """iroh's own counters, named `group:counter`."""
    def __aenter__(self) -> _Op[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
        /,
    ) -> _Op[None]: ...

@final
class AddrWatcher(AsyncIterator[EndpointAddr]):
    """Endless until the endpoint closes; a change between two steps is not missed, only merged."""

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> _Op[EndpointAddr]: ...

@final
class Incoming:
    """A peer that dials us, before anything is known but where it claims to be.

    Dropped without a decision it is refused. Each decision can be made once.

    Raises:
        IrohError: the decision was already made.
    """

    @property
    def remote_kind(self) -> Literal["ip", "relay"]: ...
    @property
    def remote_addr(self) -> str:
        """`ip:port`, or the URL of the relay."""
    @property
    def remote_id(self) -> EndpointId | None:
        """The endpoint id that the relay vouches for; None without a relay."""
    @property
    def is_validated(self) -> bool:
        """Whether the address is proven to be the peer's (by `retry`)."""
    @property
    def alpns(self) -> tuple[bytes, ...]:
        """The protocols the peer offers, in its order. Not authenticated yet."""
    def accept(self) -> _Op[Connection]:
        """Complete the handshake.

        Raises:
            ConnectError: it failed.
        """
    def refuse(self) -> None:
        """Turn the peer away; it sees `ConnectRefused`."""
    def ignore(self) -> None:
        """Say nothing; the peer will time out."""
    def retry(self) -> None:
        """Make the peer prove its address by dialling again with a token."""

@final
class Connection:
    """A connection to one peer whose identity is proven. Dropped, with all of its streams, it
    closes with code 0."""

    @property
    def remote_id(self) -> EndpointId: ...
    @property
    def alpn(self) -> bytes: ...
    @property
    def side(self) -> Literal["client", "server"]: ...
    @property
    def stable_id(self) -> int: ...
    def open_bi(self) -> _Op[tuple[SendStream, RecvStream]]:
        """A new stream in both directions. The peer learns of it with the first byte or end."""
    def open_uni(self) -> _Op[SendStream]: ...
    def accept_bi(self) -> _Op[tuple[SendStream, RecvStream]]: ...
    def accept_uni(self) -> _Op[RecvStream]: ...
    @property
    def max_datagram_size(self) -> int | None:
        """Bytes, now; None while datagrams cannot be sent."""
    def send_datagram(self, data: bytes) -> None:
        """Send without waiting; older datagrams that still wait may be dropped for it.

        Raises:
            DatagramError, ConnectionLost
        """
    def send_datagram_wait(self, data: bytes) -> _Op[None]:
        """Send when there is room."""
    def read_datagram(self) -> _Op[bytes]: ...
    def close(self, code: int = 0, reason: bytes = b"") -> None:
        """End the connection now; what was not acknowledged is lost (see `SendStream.acked`)."""
    def closed(self) -> _Op[ConnectionLost]:
        """Wait for the end of the connection and return, not raise, the reason."""
    @property
    def close_reason(self) -> ConnectionLost | None: ...
    def paths(self) -> list[Path]: ...
    def watch_paths(self) -> PathWatcher:
        """The present `paths()`, then the list after each change of it or of what is selected."""
    def stats(self) -> ConnectionStats: ...
    def rtt(self) -> float | None:
        """Seconds of round trip on the selected path; None if there is none."""
    def set_max_streams(self, *, bi: int | None = None, uni: int | None = None) -> None:
        """How many streams the peer may have open at a time."""
    def set_receive_window(self, size: int) -> None: ...

@final
class Path:
    """One way to the peer at one moment."""

    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> Literal["ip", "relay", "custom"]: ...
    @property
    def remote_addr(self) -> str:
        """`ip:port` or the URL of the relay."""
    @property
    def is_selected(self) -> bool: ...
    @property
    def rtt_s(self) -> float: ...
    @property
    def bytes_sent(self) -> int:
        """UDP payload bytes."""
    @property
    def bytes_received(self) -> int: ...
    @property
    def packets_lost(self) -> int: ...
    @property
    def congestion_window(self) -> int: ...
    @property
    def mtu(self) -> int: ...

@final
class PathWatcher(AsyncIterator[list[Path]]):
    """Ends with the connection. Changes between two steps are merged."""

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> _Op[list[Path]]: ...

@final
class ConnectionStats:
    """Counters of a connection over all of its paths so far."""

    @property
    def bytes_sent(self) -> int:
        """UDP payload bytes."""
    @property
    def bytes_received(self) -> int: ...
    @property
    def datagrams_sent(self) -> int:
        """UDP datagrams."""
    @property
    def datagrams_received(self) -> int: ...
    @property
    def packets_lost(self) -> int: ...
    @property
    def bytes_lost(self) -> int: ...

@final
class SendStream:
    """The sending half of a stream. Dropped without `finish` it is reset with code 0.

    Raises:
        StreamStopped: the peer does not want more.
        StreamClosed: `finish` or `reset` was called before.
        ConnectionLost
    """

    @property
    def id(self) -> int: ...
    def write(self, data: bytes) -> _Op[int]:
        """Hand over as much as there is room for; at least one byte of a non-empty `data`."""
    def write_all(self, data: bytes) -> _Op[None]:
        """Hand over all of `data`, without a copy; it lives until the peer has it."""
    def finish(self) -> None:
        """No more data: the reader gets the end after what was written.

        Raises:
            StreamBusy: a write is under way.
        """
    def acked(self) -> _Op[None]:
        """After `finish`: wait until the peer's side has received everything.

        Raises:
            StreamStopped: the peer does not want it.
        """
    def stopped(self) -> _Op[int | None]:
        """Wait until the peer stops the stream, and give its code; None when the stream ended."""
    def reset(self, code: int = 0) -> None:
        """Give up: the reader gets `StreamReset`. Ends a write that waits, with `StreamClosed`.

        Has no effect on a stream that has ended.
        """
    @property
    def priority(self) -> int:
        """Streams of higher priority send first; 0 at the start, 32 bits with sign."""
    @priority.setter
    def priority(self, value: int) -> None: ...
    def pump_blob(
        self,
        root: bytes,
        size: int,
        ranges: Sequence[int],
        data: bytes | int,
        outboard: bytes | int,
        *,
        header: bool = True,
        progress: PumpProgress | None = None,
    ) -> _Op[None]:
        """Send the encoding of ranges of one blob, each item checked against the root before.

        `ranges` are boundaries in chunks of 1024 bytes, as in pybao. `data` and `outboard`
        are bytes or descriptors; a descriptor is duplicated before this returns. With
        `header` the size (8 bytes, little endian) goes first. Does not finish the stream. A
        cancel leaves part of the encoding sent: `reset` the stream then.

        Raises:
            ValueError: ranges, size and the length of bytes given do not fit together.
            VerifyError: data or outboard do not match the root; nothing of the bad item left.
            OSError: reading failed.
        """
    def pump_many(
        self,
        blobs: Sequence[tuple[bytes, bytes | tuple[str, int], bytes]],
        *,
        progress: PumpProgress | None = None,
    ) -> _Op[int]:
        """Send many whole small blobs, each as size header and encoding, in few large writes.

        Each blob is (root, data, outboard), where data is bytes, or the path of a file and the
        size that it is to have. Gives how many were sent: if a file is not what it should be, the
        blobs before it and nothing of it. Errors are those of `pump_blob`; blobs before one whose
        bytes are bad may have been sent.
        """

@final
class RecvStream:
    """The receiving half of a stream. Dropped before its end it is stopped with code 0.

    Raises:
        StreamReset: the peer gave up. Comes again with every call.
        StreamClosed: `stop` was called before.
        ConnectionLost
    """

    @property
    def id(self) -> int: ...
    def read(self, n: int) -> _Op[bytes]:
        """What has arrived, at most `n` and at least one byte; `b""` at the end."""
    def read_exact(self, n: int) -> _Op[bytes]:
        """Exactly `n` bytes.

        Raises:
            IncompleteRead: the stream ended before; it has the bytes that came.
        """
    def read_to_end(self, limit: int) -> _Op[bytes]:
        """All bytes up to the end.

        Raises:
            StreamTooLong: more than `limit` bytes came. None of them is lost.
        """
    def stop(self, code: int = 0) -> None:
        """Tell the peer to stop sending. Ends a read that waits, with `StreamClosed`.

        Has no effect on a stream that has ended.
        """
    def blob_pump(
        self,
        root: bytes,
        size: int,
        ranges: Sequence[int],
        data_fd: int,
        outboard_fd: int | None = None,
    ) -> BlobPump:
        """Receive the encoding of ranges of one blob into files; see `BlobPump`.

        The size header was read before: `size` is what it claims. Descriptors are duplicated by
        this call.

        Raises:
            ValueError: `ranges` are not strictly increasing, or `root` is not 32 bytes.
            VerifyError: no blob can be that large (`size_invalid`).
        """
    def batch_pump(
        self, hashes: Sequence[bytes], whole_max: int, batch_bytes: int = 1 << 20
    ) -> BatchPump:
        """Receive many whole small blobs in order; see `BatchPump`."""

@final
class PumpProgress:
    """How far a sending pump is; to be read at any time from any thread."""

    def __new__(cls) -> Self: ...
    @property
    def bytes(self) -> int:
        """Blob bytes handed to the stream so far, without hashes and headers."""

@final
class BlobPump:
    """Receives the encoding of ranges of one blob: stream, verify, write at its place.

    Takes exactly the bytes of the encoding from the stream. Data goes to `data_fd` at its offset
    in the blob, pairs of hashes of whole groups to `outboard_fd` at their place in the
    pre-order outboard. Everything can be read at any time from any thread, also after a cancel or
    an error: `proven` holds only what is written.
    """

    def run(self, max_bytes: int | None = None, *, ahead: bool = False) -> _Op[bool]:
        """Go on until the encoding is complete, or about `max_bytes` of it more are written.

        With `ahead`, so many more are received, and the last of them may be `pending`: the next run
        need not wait for them. Gives whether all is complete and written. A cancel keeps what is
        proven, but the pump cannot go on: see `settled`, and ask for what is missing on another
        stream.

        Raises:
            VerifyError: an item is wrong or missing. What came before it is written and proven.
            StreamReset, ConnectionLost: the same holds.
            OSError: writing failed.
            PumpError: called again after a cancel, an error or `settled`.
        """
    def settled(self) -> _Op[None]:
        """End the pump, and wait until no thread touches the descriptors: a MiB of writing."""
    @property
    def bytes(self) -> int:
        """Blob bytes written so far."""
    @property
    def pending(self) -> int:
        """Bytes of the encoding that were received and are not written yet."""
    @property
    def proven(self) -> list[int]:
        """Boundaries of the chunks verified and written so far, as in `ranges`."""
    @property
    def size_proven(self) -> bool:
        """Whether the last chunk was verified, which binds the size to the root."""
    @property
    def is_done(self) -> bool: ...

@final
class WholeBlobs:
    """A batch of verified blobs. Positions count from 0 and say which blob of the batch."""

    def __len__(self) -> int: ...
    @property
    def indices(self) -> list[int]:
        """Where each blob stands in the `hashes` of the pump."""
    @property
    def sizes(self) -> list[int]:
        """Bytes of each blob."""
    def data(self, position: int) -> bytes:
        """A copy of all of a blob."""
    def outboard(self, position: int) -> bytes:
        """A copy of its pre-order outboard (empty up to 16 KiB)."""
    def write_files(
        self,
        folder_fds: Sequence[int],
        files: Sequence[tuple[int, int, bytes, bytes]],
        keep_open_over: int,
    ) -> list[int | None]:
        """Write blobs to new files: position of the blob, then as for `pybao.write_files`: place
        in `folder_fds`, name until it is whole, name. No byte of them passes through Python.

        Raises:
            IndexError: no such blob.
            ValueError, OSError: as for `pybao.write_files`.
        """

@final
class BatchPump:
    """Receives whole blobs, each a size header and the encoding of all of it, in order.

    From the first `next` on it works ahead: one batch waits, one is verified and one is read while
    Python has another, each of about `batch_bytes` plus one blob of `whole_max` bytes. Bytes that
    were read beyond the last blob are put back in front of the stream before the last batch comes.
    """

    def next(self) -> _Op[WholeBlobs]:
        """The next blobs, about `batch_bytes` of them.

        Empty when all are done or `large` is set.

        A blob that claims more than `whole_max` bytes ends the batch before it, or makes it empty.
        Cancelled, it loses nothing: call it again.

        Raises:
            VerifyError: a blob is wrong or the stream ended; `index` tells which. The blobs before
                it have come in batches before. Comes again with every call.
            StreamReset, StreamClosed, ConnectionLost: reading failed. Here too, whole blobs that
                were read come first.
        """
    @property
    def index(self) -> int:
        """Index of the first blob that was not handed over yet."""
    @property
    def large(self) -> tuple[int, int] | None:
        """(index, claimed size) of a blob above `whole_max`, whose header has been read.

        Receive it with `RecvStream.blob_pump`, then the rest with a new batch pump.
        """
