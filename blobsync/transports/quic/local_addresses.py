"""The addresses of this machine that a peer may dial, for an endpoint bound to all interfaces."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

# ioctl: the IPv4 address of an interface.
_SIOCGIFADDR = 0x8915 if sys.platform == "linux" else 0xC0206921

_PROC_IPV6 = Path("/proc/net/if_inet6")

# Addresses for documentation. To "connect" a UDP socket sends nothing: it looks up the route.
_FAR_IPV4 = ("192.0.2.1", 9)
_FAR_IPV6 = ("2001:db8::1", 9)


def local_ipv4() -> list[IPv4Address]:
    """IPv4 addresses; those of loopback only if there are no others."""
    found = {*_routed_from(socket.AF_INET, _FAR_IPV4)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, request)
            except OSError:
                # No IPv4 address.
                continue
            found.add(socket.inet_ntoa(answer[20:24]))
    addresses = {IPv4Address(text) for text in found}
    outside = {ip for ip in addresses if not ip.is_loopback and not ip.is_unspecified}
    return sorted(outside or addresses)


def local_ipv6() -> list[IPv6Address]:
    """IPv6 addresses but those of one link; those of loopback only if there are no others."""
    found = {*_routed_from(socket.AF_INET6, _FAR_IPV6)}
    addresses = {IPv6Address(text) for text in found}
    if _PROC_IPV6.exists():
        lines = _PROC_IPV6.read_text().split("\n")
        addresses.update(IPv6Address(bytes.fromhex(line[:32])) for line in lines if line)
    usable = {ip for ip in addresses if not ip.is_link_local and not ip.is_unspecified}
    return sorted({ip for ip in usable if not ip.is_loopback} or usable)


def _routed_from(family: socket.AddressFamily, far: tuple[str, int]) -> list[str]:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(far)
            return [sock.getsockname()[0]]
    except OSError:
        return []
