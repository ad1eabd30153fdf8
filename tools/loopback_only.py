"""Runs a command where nothing but loopback can be reached, if this machine can do that.

`sendme` announces every file it sends to a public discovery service; a test must not. On Linux
the command gets a network namespace of its own that holds only a loopback interface. Where that
is not possible (macOS, a container without the right to make one) a line says so and the command
runs as it is: every endpoint of ours binds 127.0.0.1 anyway.

Usage: loopback_only.py COMMAND [ARGUMENT...]
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

# From <linux/sockios.h> and <linux/if.h>.
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
IFREQ = struct.Struct("16sh14x")


def raise_loopback() -> None:
    """Switches the loopback interface on; a new namespace has it switched off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, SIOCGIFFLAGS, IFREQ.pack(b"lo", 0))
        flags: int = IFREQ.unpack(answer)[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, IFREQ.pack(b"lo", flags | IFF_UP))


def namespace_command() -> list[str] | None:
    """The `unshare` command that works here, or None."""
    unshare = shutil.which("unshare") if sys.platform == "linux" else None
    if unshare is None:
        return None
    command = [unshare, "--net"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    probe = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if probe.returncode == 0 else None


def main(arguments: list[str]) -> None:
    """Replaces this process by the command, in the namespace if there can be one."""
    if arguments[:1] == ["--inside"]:
        raise_loopback()
        os.execvp(arguments[1], arguments[1:])
    namespace = namespace_command()
    if namespace is None:
        sys.stderr.write("no network namespace here: the command runs on the machine's network\n")
        sys.stderr.flush()
        os.execvp(arguments[0], arguments)
    os.execvp(namespace[0], [*namespace, sys.executable, __file__, "--inside", *arguments])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
