"""syncthing with two homes: everything it would ask of the world is switched off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from benchmarks.data import check_equal, regular_files
from benchmarks.harness import Process, run_to_end
from benchmarks.machine import version_line
from benchmarks.rivals import find_packaged, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.harness import Measures

FOLDER = "bench"
API_KEY = "bench"

CONFIG = """\
<configuration version="36">
  <folder id="bench" path={path} type="{kind}" rescanIntervalS="0" fsWatcherEnabled="false">
    <device id="{own_id}"/>
    <device id="{other_id}"/>
    <minDiskFree unit="%">0</minDiskFree>
    <markerName>{marker}</markerName>
  </folder>
  <device id="{own_id}" name="own"><address>dynamic</address></device>
  <device id="{other_id}" name="other"><address>{other_address}</address></device>
  <gui enabled="true"><address>127.0.0.1:{api_port}</address><apikey>{api_key}</apikey></gui>
  <options>
    <listenAddress>tcp://127.0.0.1:{port}</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled>
    <natEnabled>false</natEnabled>
    <startBrowser>false</startBrowser>
    <urAccepted>-1</urAccepted>
    <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <crashReportingEnabled>false</crashReportingEnabled>
    <setLowPriority>false</setLowPriority>
    <minHomeDiskFree unit="%">0</minHomeDiskFree>
  </options>
</configuration>
"""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: its home, its folder and its ports."""

    home: Path
    folder: Path
    device_id: str
    port: int
    api_port: int

    def status(self) -> FolderStatus:
        """What it says of the folder; nothing while it starts."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api_port}/rest/db/status?folder={FOLDER}",
            headers={"X-API-Key": API_KEY},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return parse_status(json.load(answer))
        except (urllib.error.URLError, ConnectionError):
            return FolderStatus()


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """How far a folder is."""

    state: str = ""
    files: int = 0
    needed_bytes: int = 0

    def is_complete(self, files: int) -> bool:
        """Whether it rests, holds so many files and lacks nothing."""
        return (self.state, self.files, self.needed_bytes) == ("idle", files, 0)


def parse_status(answer: Mapping[str, object]) -> FolderStatus:
    """The fields that we look at, of the answer about a folder."""
    state, files, needed = (answer.get(key) for key in ("state", "localFiles", "needBytes"))
    if isinstance(state, str) and isinstance(files, int) and isinstance(needed, int):
        return FolderStatus(state, files, needed)
    return FolderStatus()


class SyncthingTransfer:
    """`add` is until the provider has scanned, `receive` until the getter says it has all.

    It makes files durable one by one, and keeps an index of what it holds.
    """

    name = "syncthing"
    is_optional = True

    def __init__(self, sent: Path) -> None:
        self._program = find_packaged("syncthing")
        self.version = " ".join(version_line(self._program, "--version").split()[:2])
        self.commands: Sequence[Sequence[str]] = ()
        self._sent = sent

    def run(self, folder: Path) -> Measures:
        """One sync of an empty folder."""
        shared, marker = self._shared_folder(folder)
        count = len(list(regular_files(shared)))
        received = folder / "received"
        (received / ".stfolder").mkdir(parents=True)
        provider_side = self._make_side(folder / "provider", shared)
        getter_side = self._make_side(folder / "getter", received)
        self._configure(provider_side, getter_side, "sendonly", marker, "dynamic")
        address = f"tcp://127.0.0.1:{provider_side.port}"
        self._configure(getter_side, provider_side, "receiveonly", ".stfolder", address)
        commands = [self._command(side) for side in (provider_side, getter_side)]
        env = {**os.environ, "HOME": str(folder)}
        with Process(commands[0], cwd=folder, env=env) as provider:
            provider.wait_until(lambda: provider_side.status().is_complete(count))
            add_wall_s = provider.seconds_so_far()
            add_cpu_s = provider.cpu_so_far_s()
            with Process(commands[1], cwd=folder, env=env) as getter:
                getter.wait_until(lambda: getter_side.status().is_complete(count))
                receive_wall_s = getter.seconds_so_far()
                got = getter.end(signal.SIGTERM)
            provided = provider.end(signal.SIGTERM)
        check_equal(shared, received)
        self.commands = commands
        return {
            "add_wall_s": add_wall_s,
            "add_cpu_s": add_cpu_s,
            "receive_wall_s": receive_wall_s,
            "receive_cpu_s": got.cpu_s + provided.cpu_s - add_cpu_s,
            "cpu_s": got.cpu_s + provided.cpu_s,
            **provided.memory_measures("provider"),
            **got.memory_measures("getter"),
        }

    def _shared_folder(self, folder: Path) -> tuple[Path, str]:
        """What is shared, and an entry of it that tells that it is mounted.

        Its own marker would be written into the tree that the others send too.
        """
        if self._sent.is_dir():
            return self._sent, min(path.name for path in self._sent.iterdir())
        shared = folder / "shared"
        shared.mkdir()
        (shared / self._sent.name).hardlink_to(self._sent)
        return shared, self._sent.name

    def _make_side(self, home: Path, folder: Path) -> Side:
        generate = [self._program, "generate", f"--config={home}", "--no-default-folder"]
        run_to_end(generate, cwd=home.parent, env={**os.environ, "HOME": str(home.parent)})
        asked = subprocess.run(
            [self._program, "serve", f"--home={home}", "--device-id"],
            capture_output=True,
            text=True,
            check=True,
        )
        return Side(home, folder, asked.stdout.strip(), free_port(), free_port())

    def _configure(self, own: Side, other: Side, kind: str, marker: str, address: str) -> None:
        config = CONFIG.format(
            path=quoteattr(str(own.folder)),
            kind=kind,
            marker=escape(marker),
            own_id=own.device_id,
            other_id=other.device_id,
            other_address=address,
            port=own.port,
            api_port=own.api_port,
            api_key=API_KEY,
        )
        (own.home / "config.xml").write_text(config)

    def _command(self, side: Side) -> list[str]:
        options = ["--no-browser", "--no-restart", "--no-upgrade"]
        return [self._program, "serve", f"--home={side.home}", *options]
