"""The iroh transport: dialled by public key, hole-punched, relayed when it must be.

A thin layer over `pyiroh`, which it alone imports; errors of the binding are translated here.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pyiroh
from blobsync.address import EndpointAddr, EndpointId, RelayUrl, SocketAddr
from blobsync.errors import BlobsyncError, LocalProtocolError, UnreachableError
from blobsync.transports.api import (
    BindError,
    BiStream,
    Connection,
    ConnectionClosedError,
    Incoming,
    NetworkEndpoint,
    NoAddressError,
    PathInfo,
    RecvStream,
    SendStream,
    StreamResetError,
    StreamStoppedError,
)

# By name, so that a bare folder called `pyiroh`, as in a clone without the binding, is not taken
# for it.
from pyiroh import IrohError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

CONNECT_TIMEOUT_S = 15.0
"""Time that dialling may take, relays and hole punching included."""


def translate_error(error: IrohError) -> BlobsyncError:
    """The error of ours for one of the binding, except those of its pumps."""
    match error:
        case pyiroh.StreamReset():
            return StreamResetError(error.code)
        case pyiroh.StreamStopped():
            return StreamStoppedError(error.code)
        case pyiroh.ConnectionClosedByPeer() | pyiroh.ConnectClosedByPeer():
            reason = error.reason.decode(errors="replace")
            told = f" ({reason})" if reason else ""
            return ConnectionClosedError(
                f"the peer closed the connection with code {error.code}{told}",
                code=error.code,
                reason=reason,
            )
        case pyiroh.LocallyClosed() | pyiroh.EndpointClosed():
            return ConnectionClosedError("the connection was closed by us")
        case pyiroh.ConnectionTimedOut():
            return ConnectionClosedError("the connection was lost: nothing came from the peer")
        case pyiroh.ConnectionLost():
            return ConnectionClosedError(f"the connection was lost: {error}")
        case pyiroh.ConnectTimedOut():
            return UnreachableError("no answer in time")
        case pyiroh.ConnectRefused():
            return UnreachableError("it refused the connection")
        case pyiroh.NoAddresses():
            return NoAddressError("nothing says where it is: no address and no relay")
        case pyiroh.NoCommonAlpn():
            return UnreachableError("it does not speak this protocol")
        case pyiroh.ConnectError():
            return UnreachableError(str(error))
        case pyiroh.BindError():
            return BindError(str(error))
        case pyiroh.StreamClosed() | pyiroh.StreamBusy():
            return LocalProtocolError(f"misuse of a stream: {error}")
        case _:
            return BlobsyncError(str(error))


@contextmanager
def translated_errors(doing: str = "") -> Generator[None]:
    """Translate errors of the binding; `doing` names the attempt in front of the reason."""
    try:
        yield
    except IrohError as error:
        translated = translate_error(error)
        if doing:
            translated.args = (f"{doing}: {translated}",)
        raise translated from error


class IrohRecvStream(RecvStream):
    """Over `pyiroh.RecvStream`."""

    def __init__(self, stream: pyiroh.RecvStream) -> None:
        self._stream = stream

    @property
    def native(self) -> pyiroh.RecvStream:
        """The stream of the binding, for its pumps."""
        return self._stream

    async def read(self, max_bytes: int) -> bytes:
        try:
            return await self._stream.read(max_bytes)
        except IrohError as error:
            raise translate_error(error) from error

    def stop(self, code: int) -> None:
        self._stream.stop(code)


class IrohSendStream(SendStream):
    """Over `pyiroh.SendStream`."""

    def __init__(self, stream: pyiroh.SendStream) -> None:
        self._stream = stream
        self._is_ended = False

    @property
    def native(self) -> pyiroh.SendStream:
        """The stream of the binding, for its pumps."""
        return self._stream

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write_all(data)
        except IrohError as error:
            raise translate_error(error) from error

    async def finish(self) -> None:
        if self._is_ended:
            return
        with translated_errors():
            self._stream.finish()
        self._is_ended = True

    def reset(self, code: int) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._stream.reset(code)

    async def wait_stopped(self) -> int | None:
        with translated_errors():
            return await self._stream.stopped()


class IrohConnection(Connection):
    """Over `pyiroh.Connection`."""

    def __init__(self, connection: pyiroh.Connection) -> None:
        self._connection = connection
        self._remote_id = EndpointId(connection.remote_id.to_bytes())

    @property
    def remote_id(self) -> EndpointId:
        return self._remote_id

    @property
    def alpn(self) -> bytes:
        return self._connection.alpn

    async def open_bi(self) -> BiStream:
        with translated_errors():
            send, recv = await self._connection.open_bi()
        return BiStream(IrohSendStream(send), IrohRecvStream(recv))

    async def accept_bi(self) -> BiStream | None:
        try:
            send, recv = await self._connection.accept_bi()
        except pyiroh.ConnectionLost:
            return None
        return BiStream(IrohSendStream(send), IrohRecvStream(recv))

    async def close(self, code: int = 0, reason: bytes = b"") -> None:
        self._connection.close(code, reason)

    async def wait_closed(self) -> ConnectionClosedError:
        lost = translate_error(await self._connection.closed())
        assert isinstance(lost, ConnectionClosedError)
        return lost

    def paths(self) -> list[PathInfo]:
        return [
            PathInfo(
                is_relay=path.kind == "relay",
                remote=path.remote_addr,
                is_selected=path.is_selected,
                rtt_s=path.rtt_s,
            )
            for path in self._connection.paths()
        ]


class IrohIncoming(Incoming):
    """Over `pyiroh.Incoming`."""

    def __init__(self, incoming: pyiroh.Incoming) -> None:
        self._incoming = incoming

    @property
    def remote(self) -> str:
        return self._incoming.remote_addr

    async def accept(self) -> Connection:
        with translated_errors("handshake failed"):
            return IrohConnection(await self._incoming.accept())

    def refuse(self) -> None:
        self._incoming.refuse()


class IrohEndpoint(NetworkEndpoint):
    """Over `pyiroh.Endpoint`."""

    def __init__(self, endpoint: pyiroh.Endpoint) -> None:
        self._endpoint = endpoint
        self._id = EndpointId(endpoint.id.to_bytes())

    @classmethod
    async def bind(
        cls,
        *,
        secret_key: bytes | None = None,
        alpns: Sequence[bytes] = (),
        bind: Sequence[SocketAddr] = (),
        relays: Sequence[str] | None = (),
        relay_token: str | None = None,
        port_mapping: bool = False,
    ) -> IrohEndpoint:
        """Open an endpoint.

        Args:
            secret_key: 32 bytes; None makes a new identity.
            alpns: the protocols that may be accepted.
            bind: at most one IPv4 and one IPv6 address; with any given, the other family is off.
                None given: all interfaces.
            relays: URLs; empty for no relay, None for the public ones of iroh.
            relay_token: what the given relays want to see.
            port_mapping: ask the router for a port (UPnP, PCP, NAT-PMP).

        Raises:
            BindError: an address cannot be bound.
        """
        ipv4 = [str(addr) for addr in bind if addr.ip.version == 4]
        ipv6 = [str(addr) for addr in bind if addr.ip.version == 6]
        if len(ipv4) > 1 or len(ipv6) > 1:
            raise BindError("at most one IPv4 and one IPv6 address can be bound")
        with translated_errors("cannot open the network endpoint"):
            endpoint = await pyiroh.Endpoint.bind(
                secret_key=None if secret_key is None else pyiroh.SecretKey.from_bytes(secret_key),
                alpns=alpns,
                bind_ipv4=(ipv4[0] if ipv4 else None) if bind else "0.0.0.0:0",
                bind_ipv6=(ipv6[0] if ipv6 else None) if bind else "[::]:0",
                relays=_relay_setting(relays, relay_token),
                port_mapping=port_mapping,
            )
        return cls(endpoint)

    @property
    def id(self) -> EndpointId:
        return self._id

    def addr(self) -> EndpointAddr:
        addr = self._endpoint.addr()
        return EndpointAddr(
            self._id,
            relay_urls=tuple(RelayUrl(url) for url in addr.relay_urls),
            ip_addrs=tuple(SocketAddr.from_text(text) for text in addr.ip_addrs),
        )

    def bound_ports(self) -> list[int]:
        return [SocketAddr.from_text(text).port for text in self._endpoint.bound_sockets()]

    async def online(self, timeout_s: float) -> bool:
        try:
            await self._endpoint.online(timeout_s)
        except pyiroh.NotOnline:
            return False
        return True

    async def wait_for_addr(self, timeout_s: float) -> EndpointAddr:
        try:
            async with asyncio.timeout(timeout_s):
                async for addr in self._endpoint.watch_addr():
                    if addr.ip_addrs:
                        break
        except TimeoutError:
            pass
        return self.addr()

    async def connect(self, addr: EndpointAddr, alpn: bytes) -> Connection:
        with translated_errors(f"cannot reach {addr.id.short()}"):
            return IrohConnection(
                await self._endpoint.connect(
                    pyiroh.EndpointAddr(
                        pyiroh.EndpointId.from_bytes(addr.id),
                        addr.relay_urls,
                        [str(ip_addr) for ip_addr in addr.ip_addrs],
                    ),
                    alpn,
                    timeout_s=CONNECT_TIMEOUT_S,
                )
            )

    async def accept(self) -> Incoming | None:
        incoming = await self._endpoint.accept()
        return None if incoming is None else IrohIncoming(incoming)

    async def close(self) -> None:
        await self._endpoint.close()


def _relay_setting(
    relays: Sequence[str] | None, token: str | None
) -> list[pyiroh.RelayConfig] | Literal["default", "disabled"]:
    if relays is None:
        return "default"
    if not relays:
        return "disabled"
    return [pyiroh.RelayConfig(url, token=token) for url in relays]
