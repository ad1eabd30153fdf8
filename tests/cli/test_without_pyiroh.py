"""The program on a machine that has no pyiroh."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from blobsync.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

# As if it were not installed: an import of it fails.
PROGRAM = (
    "import sys; sys.modules['pyiroh'] = None; from blobsync.cli import main; sys.exit(main())"
)
LOOPBACK = ("--relay", "disabled", "--bind", "127.0.0.1:0")


def command(home: Path, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-c", PROGRAM, "--home", home, *arguments]


def test_share_and_get(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "small").write_bytes(b"small")
    (source / "large").write_bytes(bytes(3_000_000))
    sharing = subprocess.Popen(
        command(tmp_path / "provider", "share", source, "--quiet", *LOOPBACK),
        stdout=subprocess.PIPE,
        text=True,
    )
    with sharing:
        try:
            assert sharing.stdout is not None
            ticket = sharing.stdout.readline().strip()
            got = subprocess.run(
                command(tmp_path / "getter", "get", ticket, tmp_path / "got", *LOOPBACK),
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            sharing.terminate()
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "got/source/small").read_bytes() == b"small"
    assert (tmp_path / "got/source/large").read_bytes() == bytes(3_000_000)


def test_the_iroh_transport_is_missed_by_name(tmp_path: Path):
    ran = subprocess.run(
        command(tmp_path / "home", "share", tmp_path, "--transport", "iroh", *LOOPBACK),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == ExitCode.FAILURE
    (line,) = ran.stderr.splitlines()
    assert "needs pyiroh" in line
    assert "--transport aioquic" in line


def test_what_needs_no_network_needs_no_transport(tmp_path: Path):
    for name in ("ls", "tags list", "gc", "id", "version"):
        ran = subprocess.run(
            command(tmp_path / "home", *name.split()), capture_output=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
