"""`make demo`, on a small scale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def run_demo(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "docs" / "demo.py"), *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_demo(tmp_path: Path, write: Any) -> None:
    for number in range(200):
        write(f"tree/{number % 7}/{number}.txt", number * 300)
    (tmp_path / "tree" / "link").symlink_to("0")
    result = run_demo(tmp_path, "--tree", "tree", "--file-size", "3000000")
    assert result.returncode == 0, result.stdout + result.stderr
    size = sum(300 * number for number in range(200)) + 3_000_000
    assert f"  201 files, {size:,} bytes: all equal\n" in result.stdout
    assert "nothing had to be fetched" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Try it against sendme: ")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_the_demo_on_a_full_disk(tmp_path: Path, write: Any) -> None:
    write("tree/a.txt", "hello")
    result = run_demo(tmp_path, "--tree", "tree", "--file-size", str(2**60))
    assert result.returncode == 1
    assert result.stderr.startswith("demo: ")
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
