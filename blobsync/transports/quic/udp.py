"""A UDP socket that takes and sends many datagrams in one call to the kernel, where it can.

On Linux a run of datagrams of one size is sent by one call (UDP_SEGMENT), and what the kernel has
merged on the way in comes in one call (UDP_GRO). Each is tried and given up for good when it fails;
elsewhere every datagram is a call of its own.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from collections import deque
from ipaddress import IPv4Address, IPv6Address
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from blobsync.address import SocketAddr
from blobsync.transports.api import BindError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

logger = logging.getLogger(__name__)

IS_LINUX = sys.platform == "linux"

UDP_SEGMENT = 103
UDP_GRO = 104
# Names that the socket module does not have everywhere.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_IP_PKTINFO = 8

SEGMENTS_MAX = 64
SEGMENTED_SIZE_MAX = 65_000
"""Limits of the kernel for one call, with room for headers."""

CALLS_MAX = 32
"""Calls to receive before what came is worked on."""

SOCKET_BUFFER = 4 << 20
"""Asked for; the system may give less."""

DATAGRAM_SIZE_MAX = 65_535

# A whole buffer, then what cannot be merged with it.
_NO_SEGMENTATION = frozenset((errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EMSGSIZE))

Ancillary = tuple[int, int, bytes]


class Datagram(NamedTuple):
    """One that was received."""

    data: bytes
    addr: Any
    """Where it came from, as the socket module writes it."""
    source: Ancillary | None
    """What makes an answer leave from the address that it came to; None if there is only one."""


class UdpSocket:
    """Bound to one address, never blocking; calls back from the loop.

    Args:
        on_datagrams: is given what came, in order.
        on_writable: is called when `is_blocked` ends.
        offload: False takes the plain path, as on systems without the fast one.

    Raises:
        BindError: the address cannot be bound.
    """

    def __init__(
        self,
        addr: SocketAddr,
        loop: asyncio.AbstractEventLoop,
        on_datagrams: Callable[[list[Datagram]], None],
        on_writable: Callable[[], None],
        *,
        offload: bool = True,
    ) -> None:
        self._loop = loop
        self._on_datagrams = on_datagrams
        self._on_writable = on_writable
        self.family = socket.AF_INET if addr.ip.version == 4 else socket.AF_INET6
        self._socket = _bound(self.family, addr)
        self._segments = offload and IS_LINUX
        self._answers_from = addr.ip.is_unspecified and IS_LINUX
        self._backlog: deque[tuple[list[bytes], Any, Ancillary | None]] = deque()
        self._buffer = bytearray(DATAGRAM_SIZE_MAX)
        self._ancillary_size = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20)
        if offload and IS_LINUX:
            self._try_option(socket.IPPROTO_UDP, UDP_GRO, 1)
        if self._answers_from:
            if self.family == socket.AF_INET:
                self._try_option(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            else:
                self._try_option(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if IS_LINUX:
            # No fragments: a datagram that is too long for the path is lost, as QUIC wants it.
            if self.family == socket.AF_INET:
                self._try_option(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
            else:
                self._try_option(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._try_option(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        loop.add_reader(self._socket, self._receive)

    def _try_option(self, level: int, option: int, value: int) -> None:
        try:
            self._socket.setsockopt(level, option, value)
        except OSError as error:
            logger.debug("socket option %d of %d: %s", option, level, error)

    @property
    def local_addr(self) -> SocketAddr:
        """The bound address; its IP may be unspecified."""
        host, port = self._socket.getsockname()[:2]
        return SocketAddr(
            IPv4Address(host) if self.family == socket.AF_INET else IPv6Address(host), port
        )

    @property
    def uses_segments(self) -> bool:
        """Whether runs of datagrams are sent in one call."""
        return self._segments

    @property
    def is_blocked(self) -> bool:
        """The system takes nothing now: better to wait for `on_writable`."""
        return bool(self._backlog)

    def close(self) -> None:
        """Let go of the address. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
        self._backlog.clear()

    # Receiving

    def _receive(self) -> None:
        datagrams: list[Datagram] = []
        view = memoryview(self._buffer)
        for _ in range(CALLS_MAX):
            try:
                size, ancillary, _, addr = self._socket.recvmsg_into(
                    [self._buffer], self._ancillary_size
                )
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # An ICMP message about something sent earlier: QUIC finds out by itself.
                logger.debug("receiving: %s", error)
                continue
            segment_size, source = self._read_ancillary(ancillary)
            step = segment_size or size or 1
            for start in range(0, size, step):
                piece = bytes(view[start : min(start + step, size)])
                datagrams.append(Datagram(piece, addr, source))
        if datagrams:
            self._on_datagrams(datagrams)

    def _read_ancillary(self, messages: Sequence[Ancillary]) -> tuple[int, Ancillary | None]:
        segment_size = 0
        source: Ancillary | None = None
        for level, type, data in messages:
            if level == socket.IPPROTO_UDP and type == UDP_GRO:
                segment_size = int.from_bytes(data[:4], sys.byteorder)
            elif level == socket.IPPROTO_IP and type == _IP_PKTINFO and len(data) >= 12:
                # in_pktinfo: interface, the address to answer from, the address of the header.
                source = (level, type, struct.pack("=I4s4x", 0, data[4:8]))
            elif IS_LINUX and level == socket.IPPROTO_IPV6 and type == socket.IPV6_PKTINFO:
                source = (level, type, data)
        return segment_size, source

    # Sending

    def send(
        self, datagrams: Sequence[bytes], addr: Any, source: Ancillary | None
    ) -> OSError | None:
        """Send datagrams to one address; what finds no room waits, in order.

        Returns the error of the last that could not be sent at all; it is as good as lost.
        """
        error: OSError | None = None
        for run in self._runs(datagrams):
            if self._backlog:
                self._backlog.append((run, addr, source))
            else:
                error = self._send_run(run, addr, source) or error
        return error

    def _runs(self, datagrams: Sequence[bytes]) -> Iterator[list[bytes]]:
        """Datagrams of one size, of which the last may be shorter, as one call takes them."""
        if not self._segments:
            for datagram in datagrams:
                yield [datagram]
            return
        run: list[bytes] = []
        total = 0
        for datagram in datagrams:
            fits = (
                len(run) < SEGMENTS_MAX
                and total + len(datagram) <= SEGMENTED_SIZE_MAX
                and (not run or len(datagram) <= len(run[0]))
                and (len(run) < 2 or len(run[-1]) == len(run[0]))
            )
            if run and not fits:
                yield run
                run, total = [], 0
            run.append(datagram)
            total += len(datagram)
        if run:
            yield run

    def _send_run(self, run: list[bytes], addr: Any, source: Ancillary | None) -> OSError | None:
        ancillary: list[Ancillary] = [] if source is None else [source]
        if len(run) > 1:
            if not self._segments:
                return self._send_singly(run, addr, source)
            segment = struct.pack("=H", len(run[0]))
            ancillary.append((socket.IPPROTO_UDP, UDP_SEGMENT, segment))
        try:
            self._socket.sendmsg(run, ancillary, 0, addr)
        except (BlockingIOError, InterruptedError):
            self._backlog.append((run, addr, source))
            self._loop.add_writer(self._socket, self._flush)
        except OSError as error:
            if len(run) > 1:
                if error.errno in _NO_SEGMENTATION and error.errno != errno.EMSGSIZE:
                    logger.info("sending in segments does not work here: %s", error)
                    self._segments = False
                return self._send_singly(run, addr, source)
            logger.debug("sending to %s: %s", addr, error)
            return error
        return None

    def _send_singly(self, run: list[bytes], addr: Any, source: Ancillary | None) -> OSError | None:
        error: OSError | None = None
        for datagram in run:
            if self._backlog:
                self._backlog.append(([datagram], addr, source))
            else:
                error = self._send_run([datagram], addr, source) or error
        return error

    def _flush(self) -> None:
        waiting, self._backlog = self._backlog, deque()
        while waiting:
            self._send_run(*waiting.popleft())
            if self._backlog:
                self._backlog.extend(waiting)
                return
        self._loop.remove_writer(self._socket)
        self._on_writable()


def _bound(family: socket.AddressFamily, addr: SocketAddr) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise BindError(f"cannot bind {addr}: {error.strerror or error}") from error
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((str(addr.ip), addr.port))
    except OSError as error:
        sock.close()
        raise BindError(f"cannot bind {addr}: {error.strerror or error}") from error
    return sock


def socket_address(addr: SocketAddr) -> tuple[str, int] | tuple[str, int, int, int]:
    """An address as the socket module gives it for a datagram that came from there."""
    ip = addr.ip
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None:
            return socket.inet_ntop(socket.AF_INET6, ip.packed), addr.port, 0, 0
        ip = ip.ipv4_mapped
    return str(ip), addr.port


def by_address(datagrams: Sequence[tuple[bytes, Any]]) -> Iterator[tuple[Any, list[bytes]]]:
    """Runs of datagrams to one address, in order."""
    for addr, run in groupby(datagrams, key=lambda datagram: datagram[1]):
        yield addr, [data for data, _ in run]
