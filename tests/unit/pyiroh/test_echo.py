"""The echo programs of the documentation, talking to each other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ECHO = Path(__file__).parents[3] / "docs" / "echo"
TIME_LIMIT_S = 60


def test_listen_and_connect():
    with subprocess.Popen(
        [sys.executable, str(ECHO / "listen.py")], stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        ticket = listener.stdout.readline().strip()
        for words in ([], ["other", "words"]):
            done = subprocess.run(
                [sys.executable, str(ECHO / "connect.py"), ticket, *words],
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT_S,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == (" ".join(words) or "Hello, world!") + "\n"
            assert listener.stdout.readline().startswith("accepted connection from ")
        listener.send_signal(signal.SIGTERM)
