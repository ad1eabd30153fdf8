"""The aioquic transport: an endpoint of iroh as far as plain QUIC goes, without Rust.

It dials and accepts by IP address, over one socket for each address family. What it does not have
are relays, hole punching and finding an address by a key. Peers are iroh endpoints of any kind.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from blobsync.address import EndpointAddr, SocketAddr
from blobsync.errors import UnreachableError
from blobsync.transports.api import (
    BindError,
    Connection,
    Incoming,
    NetworkEndpoint,
    NoAddressError,
)
from blobsync.transports.quic.connection import AioquicConnection, address_text
from blobsync.transports.quic.fast_connection import FastConnection
from blobsync.transports.quic.first_packet import (
    FirstPacket,
    destination_cid,
    encode_refusal,
    encode_version_negotiation,
    first_packet,
)
from blobsync.transports.quic.local_addresses import local_ipv4, local_ipv6
from blobsync.transports.quic.raw_connection import Identity, decode_alpn
from blobsync.transports.quic.udp import Datagram, UdpSocket, by_address, socket_address
from blobsync.transports.quic.waiting import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobsync.address import EndpointId
    from blobsync.transports.quic.raw_connection import RawKeyConnection

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
"""Time that dialling may take; aioquic itself would wait for the idle timeout."""

HANDSHAKE_TIMEOUT_S = 10.0
"""Time that a handshake may take which a peer has begun."""

NEXT_ADDRESS_S = 0.25
"""How long an address may be silent before the next one is tried beside it."""

ADDRESSES_MAX = 16
"""Addresses of one peer that are tried."""

ATTEMPTS_MAX = 256
"""Connection attempts that are remembered; more are refused or forgotten."""

ATTEMPT_S = 10.0
"""How long an attempt is remembered."""

FIRST_DATAGRAMS_MAX = 8
"""Datagrams of one attempt that are kept until it is accepted."""

LINGER_S = 1.0
"""How long `close` answers peers that have not seen that we left."""


class ConnectionMaker(Protocol):
    """Makes the state of a connection: `RawKeyConnection`, or one derived from it."""

    def __call__(
        self,
        identity: Identity,
        alpns: Sequence[bytes],
        *,
        expected_id: EndpointId | None = None,
        original_cid: bytes | None = None,
    ) -> RawKeyConnection: ...


class AioquicIncoming(Incoming):
    """A first packet that was not answered yet."""

    def __init__(self, endpoint: AioquicEndpoint, packet: FirstPacket, arrived_s: float) -> None:
        self._endpoint = endpoint
        self.packet = packet
        self.arrived_s = arrived_s
        self.datagrams: list[Datagram] = []
        self.is_decided = False

    @property
    def remote(self) -> str:
        return address_text(self.datagrams[0].addr)

    async def accept(self) -> Connection:
        return await self._endpoint.accept_attempt(self)

    def refuse(self) -> None:
        if not self.is_decided:
            self.is_decided = True
            self._endpoint.send_refusal(self)


class AioquicEndpoint(NetworkEndpoint):
    """Over aioquic. Made by `bind`."""

    def __init__(
        self,
        identity: Identity,
        alpns: Sequence[bytes],
        *,
        make_connection: ConnectionMaker = FastConnection,
    ) -> None:
        for alpn in alpns:
            decode_alpn(alpn)
        self._identity = identity
        self._alpns = tuple(alpns)
        self._make_connection = make_connection
        self._loop = asyncio.get_running_loop()
        self._sockets: list[UdpSocket] = []
        self._routes: dict[bytes, AioquicConnection] = {}
        self._connections: set[AioquicConnection] = set()
        self._blocked: set[AioquicConnection] = set()
        self._attempts: dict[bytes, AioquicIncoming] = {}
        self._waiting: deque[AioquicIncoming] = deque()
        self._changed = Change()
        self._is_closed = False

    @classmethod
    async def bind(
        cls,
        *,
        secret_key: bytes | None = None,
        alpns: Sequence[bytes] = (),
        bind: Sequence[SocketAddr] = (),
        offload: bool = True,
        make_connection: ConnectionMaker = FastConnection,
    ) -> AioquicEndpoint:
        """Open an endpoint.

        Args:
            secret_key: 32 bytes; None makes a new identity.
            alpns: the protocols that may be accepted, in ASCII.
            bind: at most one IPv4 and one IPv6 address; with any given, the other family is off.
                None given: all interfaces, IPv6 where the system has it.
            offload: False takes the plain path to the kernel everywhere.
            make_connection: makes the state of a connection.

        Raises:
            BindError: an address cannot be bound.
        """
        if len({addr.ip.version for addr in bind}) != len(bind):
            raise BindError("at most one IPv4 and one IPv6 address can be bound")
        secret_key = secrets.token_bytes(32) if secret_key is None else secret_key
        identity = Identity.from_bytes(secret_key)
        endpoint = cls(identity, alpns, make_connection=make_connection)
        try:
            for addr in bind:
                endpoint._open_socket(addr, offload=offload)
            if not bind:
                endpoint._open_socket(SocketAddr.from_text("0.0.0.0:0"), offload=offload)
                port = endpoint._sockets[0].local_addr.port
                try:
                    endpoint._open_socket(SocketAddr.from_text(f"[::]:{port}"), offload=offload)
                except BindError as error:
                    logger.info("without IPv6: %s", error)
        except BindError:
            endpoint._close_sockets()
            raise
        return endpoint

    def _open_socket(self, addr: SocketAddr, *, offload: bool) -> None:
        self._sockets.append(
            UdpSocket(addr, self._loop, self._take, self._on_writable, offload=offload)
        )

    # The contract

    @property
    def id(self) -> EndpointId:
        return self._identity.id

    def addr(self) -> EndpointAddr:
        found: list[SocketAddr] = []
        for sock in self._sockets:
            local = sock.local_addr
            if not local.ip.is_unspecified:
                found.append(local)
            else:
                ips = local_ipv4() if local.ip.version == 4 else local_ipv6()
                found += [SocketAddr(ip, local.port) for ip in ips]
        outside = [addr for addr in found if not addr.ip.is_loopback]
        return EndpointAddr(self.id, ip_addrs=tuple(outside or found))

    def bound_ports(self) -> list[int]:
        return [sock.local_addr.port for sock in self._sockets]

    async def online(self, timeout_s: float) -> bool:
        return False

    async def wait_for_addr(self, timeout_s: float) -> EndpointAddr:
        return self.addr()

    async def connect(self, addr: EndpointAddr, alpn: bytes) -> Connection:
        decode_alpn(alpn)
        peer = addr.id.short()
        if addr.id.is_weak:
            raise ValueError(f"{addr.id} is a weak key: nobody can prove to have it")
        targets = self._targets(addr)
        if self._is_closed:
            raise UnreachableError(f"cannot reach {peer}: the endpoint was closed")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._dial_any(targets, addr.id, alpn)
        except TimeoutError as error:
            raise UnreachableError(f"cannot reach {peer}: no answer in time") from error
        except UnreachableError as error:
            error.args = (f"cannot reach {peer}: {error}",)
            raise

    async def accept(self) -> Incoming | None:
        while not self._is_closed:
            while self._waiting:
                attempt = self._waiting.popleft()
                if self._loop.time() - attempt.arrived_s < ATTEMPT_S:
                    return attempt
            await self._changed.wait()
        return None

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._changed.tell()
        for attempt in self._waiting:
            attempt.refuse()
        self._waiting.clear()
        for connection in tuple(self._connections):
            connection.close_now(0, b"")
        try:
            async with asyncio.timeout(LINGER_S):
                # Until no closing period runs: a peer whose packets still come is told again.
                while any(connection.quic.is_closing for connection in self._connections):
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            for connection in tuple(self._connections):
                connection.abandon()
            self._close_sockets()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    # Dialling

    def _targets(self, addr: EndpointAddr) -> list[Any]:
        """Socket addresses of a peer that we have a socket for."""
        if not addr.ip_addrs:
            where = "only the URL of a relay" if addr.relay_urls else "no address at all"
            raise NoAddressError(
                f"cannot reach {addr.id.short()}: its ticket names {where}, and the aioquic"
                " transport needs an IP address and port: use --transport iroh, which has relays,"
                " or ask for a ticket with a direct address"
            )
        families = {sock.family for sock in self._sockets}
        targets = [socket_address(each) for each in addr.ip_addrs]
        usable = [target for target in dict.fromkeys(targets) if family_of(target) in families]
        if not usable:
            raise NoAddressError(
                f"cannot reach {addr.id.short()}: all of its addresses are of the other"
                " address family than the one that is bound here"
            )
        return usable[:ADDRESSES_MAX]

    async def _dial_any(
        self, targets: Sequence[Any], id: EndpointId, alpn: bytes
    ) -> AioquicConnection:
        """Try addresses one beside the other; the first that answers as `id` is taken."""
        left = deque(targets)
        attempts: set[asyncio.Future[AioquicConnection]] = set()
        errors: list[UnreachableError] = []
        try:
            while left or attempts:
                if left:
                    attempts.add(asyncio.ensure_future(self._dial(left.popleft(), id, alpn)))
                done, attempts = await asyncio.wait(
                    attempts,
                    timeout=NEXT_ADDRESS_S if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                made = [attempt for attempt in done if attempt.exception() is None]
                if made:
                    for spare in made[1:]:
                        await spare.result().close()
                    return made[0].result()
                for attempt in done:
                    error = attempt.exception()
                    if not isinstance(error, UnreachableError):
                        attempt.result()
                    else:
                        errors.append(error)
        finally:
            for attempt in attempts:
                attempt.cancel()
            if attempts:
                await asyncio.wait(attempts)
                for attempt in attempts:
                    if not attempt.cancelled() and attempt.exception() is None:
                        attempt.result().close_now(0, b"")
        raise errors[0]

    async def _dial(self, target: Any, id: EndpointId, alpn: bytes) -> AioquicConnection:
        quic = self._make_connection(self._identity, [alpn], expected_id=id)
        connection = self._add_connection(quic)
        try:
            connection.dial(target)
            await connection.wait_confirmed()
        except BaseException:
            connection.close_now(0, b"")
            raise
        return connection

    def _add_connection(self, quic: RawKeyConnection) -> AioquicConnection:
        connection = AioquicConnection(quic, self, self._loop)
        self._connections.add(connection)
        self.route(connection)
        return connection

    # Accepting

    async def accept_attempt(self, attempt: AioquicIncoming) -> Connection:
        """For `AioquicIncoming`: finish the handshake."""
        if attempt.is_decided or self._is_closed:
            raise UnreachableError("handshake failed: the attempt was decided before")
        attempt.is_decided = True
        cid = attempt.packet.destination_cid
        self._attempts.pop(cid, None)
        connection = self._add_connection(
            self._make_connection(self._identity, self._alpns, original_cid=cid)
        )
        connection.original_cid = cid
        self._routes[cid] = connection
        connection.routed.add(cid)
        now = self._loop.time()
        for datagram in attempt.datagrams:
            connection.take(datagram, now)
        connection.after_taking()
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await connection.wait_confirmed()
        except TimeoutError as error:
            connection.close_now(0, b"")
            raise UnreachableError("handshake failed: no answer in time") from error
        except UnreachableError as error:
            error.args = (f"handshake failed: {error}",)
            raise
        except BaseException:
            connection.close_now(0, b"")
            raise
        return connection

    def send_refusal(self, attempt: AioquicIncoming) -> None:
        """For `AioquicIncoming`: say no."""
        datagram = attempt.datagrams[-1]
        self._send_to(datagram.addr, [encode_refusal(attempt.packet)], datagram.source)

    def _take_first(self, datagram: Datagram, now: float) -> None:
        """A datagram that belongs to no connection: perhaps the first of one."""
        packet = first_packet(datagram.data)
        if packet is None or self._is_closed:
            return
        if not packet.is_version_1:
            answer = encode_version_negotiation(packet)
            self._send_to(datagram.addr, [answer], datagram.source)
            return
        attempt = self._attempts.get(packet.destination_cid)
        if attempt is None:
            self._forget_attempts(now)
            attempt = AioquicIncoming(self, packet, now)
            attempt.datagrams.append(datagram)
            if not self._alpns or len(self._attempts) >= ATTEMPTS_MAX:
                attempt.refuse()
                return
            self._attempts[packet.destination_cid] = attempt
            self._waiting.append(attempt)
            self._changed.tell()
        elif len(attempt.datagrams) < FIRST_DATAGRAMS_MAX:
            attempt.datagrams.append(datagram)
            if attempt.is_decided:
                self.send_refusal(attempt)

    def _forget_attempts(self, now: float) -> None:
        # In the order in which they came.
        for cid, attempt in tuple(self._attempts.items()):
            if now - attempt.arrived_s < ATTEMPT_S:
                break
            del self._attempts[cid]

    # From the sockets

    def _take(self, datagrams: list[Datagram]) -> None:
        now = self._loop.time()
        touched: dict[AioquicConnection, None] = {}
        routes = self._routes
        for datagram in datagrams:
            cid = destination_cid(datagram.data)
            connection = routes.get(cid) if cid else None
            if connection is None:
                self._take_first(datagram, now)
            else:
                connection.take(datagram, now)
                touched[connection] = None
        # Everything that came together is answered together.
        for connection in touched:
            connection.after_taking()

    def _on_writable(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for connection in blocked:
            connection.on_writable()

    def _socket_to(self, addr: Any) -> UdpSocket | None:
        family = family_of(addr)
        return next((sock for sock in self._sockets if sock.family == family), None)

    def _send_to(self, addr: Any, datagrams: Sequence[bytes], source: Any) -> OSError | None:
        sock = self._socket_to(addr)
        return None if sock is None else sock.send(datagrams, addr, source)

    # For the connections

    def send(
        self, connection: AioquicConnection, datagrams: list[tuple[bytes, Any]]
    ) -> OSError | None:
        """Send datagrams, or keep them until the socket takes more."""
        error: OSError | None = None
        for addr, run in by_address(datagrams):
            error = self._send_to(addr, run, connection.source) or error
        return error

    def is_blocked(self, connection: AioquicConnection) -> bool:
        """Whether the socket takes nothing now; if so, the connection is called when it does."""
        addr = connection.quic.remote_addr
        sock = None if addr is None else self._socket_to(addr)
        if sock is None or not sock.is_blocked:
            return False
        self._blocked.add(connection)
        return True

    def route(self, connection: AioquicConnection) -> None:
        """Bring packets under all connection ids of the connection to it.

        After each transmission, and not when aioquic tells of an id: that would be with the next
        packet, but iroh uses a new id at once.
        """
        sequence = connection.quic.cid_sequence
        if sequence == connection.routed_sequence:
            return
        connection.routed_sequence = sequence
        cids = set(connection.quic.host_cids)
        for cid in cids - connection.routed:
            self._routes[cid] = connection
        kept = cids | ({connection.original_cid} & connection.routed)
        # A peer may retire ids without end.
        for cid in connection.routed - kept:
            self._routes.pop(cid, None)
        connection.routed = kept

    def forget(self, connection: AioquicConnection) -> None:
        """The connection is over."""
        for cid in connection.routed:
            self._routes.pop(cid, None)
        connection.routed.clear()
        self._connections.discard(connection)
        self._blocked.discard(connection)
        self._changed.tell()


def family_of(addr: Any) -> socket.AddressFamily:
    """The family of a socket address."""
    return socket.AF_INET if len(addr) == 2 else socket.AF_INET6
