"""A share fetched over links that are far, lossy or slow, by the real program."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.link import LinkShape, linked

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from tests.netns.link import Host

MIB = 1 << 20


def blobsync(
    host: Host, home: Path, command: str, *arguments: str, transport: str = "auto"
) -> list[str]:
    """The command line that runs our program on a host, with a home of its own."""
    program = [sys.executable, "-m", "blobsync", command, "--json"]
    network = ["--transport", transport, "--relay", "disabled", "--bind", f"{host.ip}:0"]
    return host.command(["env", f"BLOBSYNC_HOME={home}", *program, *network, *arguments])


@contextmanager
def sharing(host: Host, home: Path, source: Path, *, transport: str = "auto") -> Generator[str]:
    """Share a folder until left; gives the ticket."""
    command = blobsync(host, home, "share", str(source), transport=transport)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event: dict[str, Any] = json.loads(line)
                if "ticket" in event:
                    yield event["ticket"]
                    break
        finally:
            process.terminate()
            process.stdout.read()


def get(
    host: Host, home: Path, ticket: str, destination: Path, *, transport: str = "auto"
) -> dict[str, Any]:
    """Fetch; returns the last event."""
    command = blobsync(host, home, "get", ticket, str(destination), transport=transport)
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    return json.loads(ran.stdout.splitlines()[-1])


def make_files(folder: Path, sizes: Sequence[int]) -> dict[str, bytes]:
    """Files of random bytes."""
    folder.mkdir()
    contents = {f"f{i}": random.Random(i).randbytes(size) for i, size in enumerate(sizes)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return contents


SHAPES = {
    "far": (LinkShape(delay_s=0.05, rate=1_000_000_000), 40 * MIB),
    "lossy": (LinkShape(delay_s=0.005, loss=0.01, rate=100_000_000), 8 * MIB),
    "slow": (LinkShape(delay_s=0.01, rate=20_000_000), 4 * MIB),
}


TRANSPORTS = [("auto", "auto"), ("aioquic", "aioquic"), ("auto", "aioquic"), ("aioquic", "auto")]


@pytest.mark.parametrize(("provider", "getter"), TRANSPORTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_everything_arrives_once(
    peer: str, tmp_path: Path, shape: str, provider: str, getter: str
) -> None:
    """One large file, cut into segments, and small ones beside it."""
    link, large = SHAPES[shape]
    contents = make_files(tmp_path / "source", [large, *(i * 37 % 20_000 for i in range(200))])
    with (
        linked(peer, link) as (ours, theirs),
        sharing(theirs, tmp_path / "provider", tmp_path / "source", transport=provider) as ticket,
    ):
        done = get(ours, tmp_path / "getter", ticket, tmp_path / "arrived", transport=getter)
    assert done["event"] == "done", done
    distinct = set(contents.values())
    assert done["bytes_fetched"] == sum(map(len, distinct))
    for name, data in contents.items():
        assert (tmp_path / "arrived" / "source" / name).read_bytes() == data


def test_a_killed_get_over_a_far_link_loses_little(peer: str, tmp_path: Path) -> None:
    """Many streams have bytes that are not recorded; together they have as few as one."""
    size = 60 * MIB
    contents = make_files(tmp_path / "source", [size])
    with (
        linked(peer, LinkShape(delay_s=0.05, rate=1_000_000_000)) as (ours, theirs),
        sharing(theirs, tmp_path / "provider", tmp_path / "source") as ticket,
    ):
        command = blobsync(ours, tmp_path / "getter", "get", ticket, str(tmp_path / "arrived"))
        fetched = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event: dict[str, Any] = json.loads(line)
                fetched = event.get("bytes_fetched", 0)
                if fetched >= size // 2:
                    break
            process.kill()
        done = get(ours, tmp_path / "getter", ticket, tmp_path / "arrived")
    assert done["event"] == "done", done
    assert fetched + done["bytes_fetched"] <= size + 16 * MIB
    assert (tmp_path / "arrived" / "source" / "f0").read_bytes() == contents["f0"]
