"""One end of a bare stream over one of our transports, or over aioquic as it comes.

`serve` prints a line with what `get` needs, sends so many bytes to whoever asks, and ends with its
peer. Both print what the transfer took of this process: start-up is not counted.
"""

# The types of aioquic are not all written down.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aioquic.asyncio.client import connect as plain_connect
from aioquic.asyncio.server import serve as plain_serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from blobsync.address import EndpointAddr, EndpointId, SocketAddr
from blobsync.network import TransportName
from blobsync.transport import choose_transport

ALPN = b"blobsync-bench/1"
LOOPBACK = SocketAddr.from_text("127.0.0.1:0")
WRITE_SIZE = READ_SIZE = 1 << 20
PLAIN_WRITE_SIZE = 64 << 10
PLAIN = "aioquic-as-it-comes"
KINDS = ("iroh", "aioquic", PLAIN)


def say(**fields: Any) -> None:
    """A line for whoever measures."""
    print(json.dumps(fields), flush=True)


class Meter:
    """Processor time of all threads, and time, since it was made."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def say(self) -> None:
        """Tell it."""
        say(
            cpu_s=time.process_time() - self._cpu_s,
            wall_s=time.perf_counter() - self._wall_s,
        )


async def serve(kind: str, size: int) -> None:
    """Send `size` bytes once."""
    endpoint = await choose_transport(TransportName(kind)).bind(alpns=[ALPN], bind=[LOOPBACK])
    async with endpoint:
        await endpoint.wait_for_addr(10)
        say(id=str(endpoint.id), port=endpoint.bound_ports()[0])
        incoming = await endpoint.accept()
        assert incoming is not None
        async with await incoming.accept() as connection:
            stream = await connection.accept_bi()
            assert stream is not None
            await stream.recv.read_to_end(1)
            meter = Meter()
            piece = os.urandom(WRITE_SIZE)
            for _ in range(size // WRITE_SIZE):
                await stream.send.write(piece)
            await stream.send.finish()
            await stream.send.wait_stopped()
            meter.say()
            await connection.wait_closed()


async def get(kind: str, id: str, port: int) -> None:
    """Receive all."""
    endpoint = await choose_transport(TransportName(kind)).bind(bind=[LOOPBACK])
    there = SocketAddr.from_text(f"127.0.0.1:{port}")
    addr = EndpointAddr(EndpointId.from_text(id), ip_addrs=(there,))
    async with endpoint, await endpoint.connect(addr, ALPN) as connection:
        stream = await connection.open_bi()
        await stream.send.write(b"?")
        await stream.send.finish()
        meter = Meter()
        while await stream.recv.read(READ_SIZE):
            pass
        meter.say()
        # The sender waits for our last acknowledgement.
        await asyncio.sleep(0.1)


async def serve_plain(size: int) -> None:
    """The same with aioquic's own server."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[ALPN.decode()])
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = _write_certificate(Path(folder))
        configuration.load_cert_chain(str(certificate), str(key))
    done = asyncio.Event()
    answers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        meter = Meter()
        piece = os.urandom(PLAIN_WRITE_SIZE)
        for _ in range(size // PLAIN_WRITE_SIZE):
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        # There is nothing to wait for an acknowledgement with: the peer ends us.
        await asyncio.to_thread(sys.stdin.read)
        meter.say()
        done.set()

    def answer_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.add(asyncio.create_task(answer(reader, writer)))

    server = await plain_serve(
        "127.0.0.1", 0, configuration=configuration, stream_handler=answer_stream
    )
    transport = server._transport  # pyright: ignore[reportPrivateUsage] - there is no public way
    assert transport is not None
    say(id="", port=transport.get_extra_info("sockname")[1])
    await done.wait()
    server.close()


async def get_plain(port: int) -> None:
    """The same with aioquic's own client."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=[ALPN.decode()], verify_mode=ssl.CERT_NONE
    )
    async with plain_connect("127.0.0.1", port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write_eof()
        meter = Meter()
        while await reader.read(READ_SIZE):
            pass
        meter.say()


def _write_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("serve", "get"))
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--id", default="")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    match options.role, options.kind:
        case "serve", kind if kind == PLAIN:
            asyncio.run(serve_plain(options.size))
        case "serve", kind:
            asyncio.run(serve(kind, options.size))
        case _, kind if kind == PLAIN:
            asyncio.run(get_plain(options.port))
        case _, kind:
            asyncio.run(get(kind, options.id, options.port))


if __name__ == "__main__":
    main()
