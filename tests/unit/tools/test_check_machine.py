"""`make install` names each thing that this machine lacks, and what to do about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "check_machine.py"


def check(programs: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the check where only these programs exist, each printing its text."""
    for name, text in programs.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{text}'\n")
        program.chmod(0o755)
    return subprocess.run(
        [sys.executable, SCRIPT],
        env={"PATH": str(folder), "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )


GOOD = {
    "cargo": "cargo 1.91.0 (abcdef 2025-10-10)",
    "rustc": "rustc 1.95.0 (abcdef 2026-04-14)",
    "cc": "",
}


def test_a_machine_that_has_all(tmp_path: Path) -> None:
    done = check(GOOD, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", GOOD)
def test_each_missing_thing_is_named(name: str, tmp_path: Path) -> None:
    done = check({key: value for key, value in GOOD.items() if key != name}, tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("missing: ") == 1
    assert {"cargo": "cargo", "rustc": "rustc", "cc": "C compiler"}[name] in done.stderr


def test_all_missing_things_are_named_at_once(tmp_path: Path) -> None:
    done = check({}, tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("missing: ") == 3


def test_an_old_rust_is_named_with_both_versions(tmp_path: Path) -> None:
    done = check(GOOD | {"rustc": "rustc 1.90.0 (abcdef 2025-09-14)"}, tmp_path)
    assert done.returncode == 1
    assert "rustc 1.91 or later (this is 1.90): run `rustup update stable`" in done.stderr
