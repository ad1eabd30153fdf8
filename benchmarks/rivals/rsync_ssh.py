"""`rsync -a` from a local ssh server: over the network and encrypted, nothing verified by hash."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

from benchmarks.data import check_equal
from benchmarks.harness import Process, run_to_end
from benchmarks.rivals import find_packaged, free_port, is_listening, received
from benchmarks.rivals.rsync import find_rsync, rsync_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.harness import Measures

SERVER_CONFIG = """\
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""

OWN_RUN = 'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"'
"""A server of root wants /run/sshd, which a machine without a running one does not have."""


class RsyncSshCopy:
    """Has only the measures of receiving. The server's keys are made for each run."""

    name = "rsync-ssh"
    is_optional = True

    def __init__(self, sent: Path) -> None:
        self._rsync = find_rsync()
        self._server, self._keygen = find_packaged("sshd"), find_packaged("ssh-keygen")
        self._client = find_packaged("ssh")
        asked = subprocess.run([self._client, "-V"], capture_output=True, text=True, check=True)
        self.version = f"{rsync_version(self._rsync)}, {asked.stderr.strip()}"
        self.commands: Sequence[Sequence[str]] = ()
        self._sent = sent

    def run(self, folder: Path) -> Measures:
        """One copy, pulled by the receiving side."""
        for key in ("host_key", "user_key"):
            keygen = [self._keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            run_to_end(keygen, cwd=folder, env=os.environ)
        port = free_port()
        config = folder / "sshd_config"
        config.write_text(SERVER_CONFIG.format(folder=folder))
        server_command = [self._server, "-D", "-e", "-f", str(config), "-p", str(port)]
        started = server_command
        if os.geteuid() == 0:
            started = [find_packaged("unshare"), "--mount", "sh", "-c", OWN_RUN, "sh", *started]
        target = folder / "target"
        target.mkdir()
        login = [
            *(self._client, "-F", "none", "-i", str(folder / "user_key"), "-p", str(port)),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"),
        ]
        source = f"{getpass.getuser()}@127.0.0.1:{self._sent}"
        command = [self._rsync, "-a", "-e", shlex.join(login), source, f"{target}/"]
        with Process(started, cwd=folder, env=os.environ) as server:
            server.wait_until(lambda: is_listening(port))
            before_s = server.cpu_so_far_s()
            getter = run_to_end(command, cwd=folder, env=os.environ)
            server.wait_for_children()
            # It says so when a signal ends it.
            served = server.end(signal.SIGTERM, accepted=(0, 255))
        check_equal(self._sent, target / self._sent.name)
        self.commands = [server_command, command]
        return received(getter, served, before_s)
