"""The wrapper of the interop tests keeps a command to loopback where it can."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "loopback_only.py"

LOOK = """
import json, socket
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    socket.create_connection(listener.getsockname()).close()
print(json.dumps([name for _, name in socket.if_nameindex()]))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *command], capture_output=True, text=True, check=False
    )


def test_the_command_sees_nothing_but_loopback() -> None:
    done = run(sys.executable, "-c", LOOK)
    assert done.returncode == 0, done.stderr
    if "no network namespace here" in done.stderr:
        pytest.skip("this machine gives us no network namespace")
    assert json.loads(done.stdout) == ["lo"]


def test_the_status_of_the_command_comes_back() -> None:
    assert run(sys.executable, "-c", "raise SystemExit(7)").returncode == 7


def test_without_a_command_it_says_how_it_is_used() -> None:
    done = run()
    assert done.returncode == 1
    assert "Usage: loopback_only.py COMMAND" in done.stderr
