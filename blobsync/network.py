"""How the endpoint meets the network: the options that people give, and what they mean."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from blobsync.address import RelayUrl, SocketAddr
from blobsync.errors import BlobsyncError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence


class OptionError(BlobsyncError, ValueError):
    """A network option is not one."""

    exit_code = ExitCode.USAGE


class TransportName(StrEnum):
    """The ways to other endpoints; see `blobsync.transport`."""

    AUTO = "auto"
    """iroh where pyiroh is installed, else aioquic."""
    IROH = "iroh"
    AIOQUIC = "aioquic"


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """How the endpoint meets the network."""

    transport: str = TransportName.AUTO
    """A `TransportName`."""

    relay: str | None = None
    """`default` (the public relays of iroh), `disabled`, or the URL of one. None: `default` to
    share, and to fetch the relay that the ticket names, if it names one."""
    relay_token: str | None = None
    """What that relay wants to see."""
    bind: tuple[str, ...] = ()
    """Local addresses `ip:port` (or `ip`) to bind, at most one IPv4 and one IPv6; none: all."""
    online_timeout_s: float = 10.0
    """How long to wait for the relay before a ticket is made without it."""

    def transport_name(self) -> TransportName:
        """`transport`.

        Raises:
            OptionError: there is no such transport.
        """
        try:
            return TransportName(self.transport)
        except ValueError as error:
            raise OptionError(f"no transport is called {self.transport!r}") from error

    def check_no_relay(self) -> None:
        """For a transport without relays.

        Raises:
            OptionError: one is asked for.
        """
        if self.relays(if_unset=()) != ():
            raise OptionError(
                f"the {TransportName.AIOQUIC} transport has no relays:"
                f" leave --relay out, or use --transport {TransportName.IROH}"
            )

    def bind_addrs(self) -> list[SocketAddr]:
        """`bind` as addresses; a missing port is 0.

        Raises:
            OptionError: one is not an address.
        """
        addrs: list[SocketAddr] = []
        for text in self.bind:
            try:
                addrs.append(_bind_addr(text))
            except ValueError as error:
                raise OptionError(f"cannot bind {text!r}: {error}") from error
        return addrs

    def relays(self, *, if_unset: Sequence[str] | None) -> Sequence[str] | None:
        """URLs of the relays to use: none at all if empty, the public ones if None.

        Raises:
            OptionError: `relay` is not a URL.
        """
        match self.relay:
            case None:
                return if_unset
            case "default":
                return None
            case "disabled":
                return ()
            case url:
                try:
                    return (RelayUrl(url),)
                except ValueError as error:
                    raise OptionError(f"not a relay: {url!r}: {error}") from error


def _bind_addr(text: str) -> SocketAddr:
    try:
        return SocketAddr.from_text(text)
    except ValueError:
        if text.startswith("[") and text.endswith("]"):
            return SocketAddr(IPv6Address(text[1:-1]), 0)
        return SocketAddr(ip_address(text), 0)


def unspecified_addresses() -> list[IPv4Address | IPv6Address]:
    """All interfaces: of IPv4, and of IPv6 where the system has it."""
    addresses: list[IPv4Address | IPv6Address] = [IPv4Address(0)]
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return addresses
    return [*addresses, IPv6Address(0)]
