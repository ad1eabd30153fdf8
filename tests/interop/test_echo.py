"""The echo programs of docs/echo and those of Rust, on the same ALPN, by ticket."""

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.interop.drivers import Peer, Program

ECHO = Path(__file__).parents[2] / "docs" / "echo"


@pytest.mark.parametrize("words", ["Hello, wörld!", "grüß dich " * 60, "x"])
async def test_rust_listens(peer: Peer, words: str) -> None:
    async with peer.serve("echo-serve") as listener:
        command = [sys.executable, ECHO / "connect.py", listener.ticket, words]
        async with Program.running(command) as connector:
            assert await connector.ended() == 0, connector.stderr()
        echoed = await listener.event("echoed")
    assert connector.lines == [words]
    assert echoed["bytes"] == len(words.encode())


async def test_rust_connects(peer: Peer) -> None:
    command = [sys.executable, ECHO / "listen.py"]
    async with Program.running(command, end_signal=signal.SIGTERM) as listener:
        ticket = await listener.line_where(re.compile("^endpoint"))
        for words in ("Hello, wörld!", "grüß dich " * 60, ""):
            done = await peer.run("echo-connect", ticket, words)
            assert done["text"] == words
            await listener.line_where(re.compile("^accepted connection from"))
        assert listener.stderr() == ""
