"""Which transport is used, and what belongs to it: how to open an endpoint, and its pumps.

A transport is imported when it is chosen, not before: what one of them needs may not be installed.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypedDict, Unpack

from blobsync.errors import BlobsyncError
from blobsync.network import TransportName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobsync.address import SocketAddr
    from blobsync.network import NetworkOptions
    from blobsync.protocols.blobs import Pumps
    from blobsync.transports import NetworkEndpoint

logger = logging.getLogger(__name__)


class MissingTransportError(BlobsyncError):
    """What the transport that was asked for needs is not installed."""


class BindOptions(TypedDict, total=False):
    """How an endpoint is opened; see `IrohEndpoint.bind`. The last three mean nothing to a
    transport without relays."""

    secret_key: bytes | None
    alpns: Sequence[bytes]
    bind: Sequence[SocketAddr]
    relays: Sequence[str] | None
    relay_token: str | None
    port_mapping: bool


class Transport(ABC):
    """One of the ways to other endpoints."""

    name: TransportName
    has_relays: bool

    @abstractmethod
    def make_pumps(self) -> Pumps:
        """Pumps for its streams."""

    @abstractmethod
    async def bind(self, **options: Unpack[BindOptions]) -> NetworkEndpoint:
        """Open an endpoint.

        Raises:
            BindError: an address cannot be bound.
        """

    def relays(
        self, options: NetworkOptions, *, if_unset: Sequence[str] | None
    ) -> Sequence[str] | None:
        """The relays to use, as `NetworkOptions.relays`.

        Raises:
            OptionError: this transport has none, or the option is not a URL.
        """
        if self.has_relays:
            return options.relays(if_unset=if_unset)
        options.check_no_relay()
        return ()


class IrohTransport(Transport):
    """Over `pyiroh`."""

    name = TransportName.IROH
    has_relays = True

    def __init__(self) -> None:
        try:
            from blobsync.protocols.blobs import iroh_pumps
            from blobsync.transports import iroh
        except ImportError as error:
            raise MissingTransportError(
                f"the iroh transport needs pyiroh, which cannot be used here ({error}):"
                f" install it, or use --transport {TransportName.AIOQUIC}"
            ) from error
        self._pumps = iroh_pumps
        self._transport = iroh

    def make_pumps(self) -> Pumps:
        return self._pumps.IrohPumps()

    async def bind(self, **options: Unpack[BindOptions]) -> NetworkEndpoint:
        return await self._transport.IrohEndpoint.bind(**options)


class AioquicTransport(Transport):
    """Over aioquic: direct addresses only, slower, nothing to build."""

    name = TransportName.AIOQUIC
    has_relays = False

    def __init__(self) -> None:
        from blobsync.transports.quic.guard import check_aioquic

        check_aioquic()

    def make_pumps(self) -> Pumps:
        from blobsync.protocols.blobs.python_pumps import PythonPumps

        return PythonPumps()

    async def bind(self, **options: Unpack[BindOptions]) -> NetworkEndpoint:
        from blobsync.transports.quic.endpoint import AioquicEndpoint

        return await AioquicEndpoint.bind(
            secret_key=options.get("secret_key"),
            alpns=options.get("alpns", ()),
            bind=options.get("bind", ()),
        )


def choose_transport(name: TransportName) -> Transport:
    """The transport of this name; `auto` is iroh where pyiroh is installed, else aioquic.

    Raises:
        MissingTransportError, UnsupportedAioquicError: it cannot be used here.
    """
    match name:
        case TransportName.IROH:
            return IrohTransport()
        case TransportName.AIOQUIC:
            return AioquicTransport()
        case TransportName.AUTO:
            try:
                return IrohTransport()
            except MissingTransportError as error:
                logger.info("using aioquic: %s", error)
                return AioquicTransport()
