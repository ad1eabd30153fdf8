"""Says what this machine lacks before anything is built on it, and what to do about each thing.

Run by `make install`. It keeps to what Python 3.7 knows, because the Python that runs it may be the
very thing that is too old.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON_MIN = (3, 11)
RUST_MIN = (1, 91)
SYSTEMS = ("Linux", "Darwin")


def dotted(version: tuple[int, ...]) -> str:
    """A version as text: (1, 91) is "1.91"."""
    return ".".join(str(number) for number in version)


def first_version(text: str) -> tuple[int, int] | None:
    """The first `a.b` of a text as two numbers, or None."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def version_of(program: str) -> tuple[int, int] | None:
    """The version that `program --version` prints, or None if it does not run."""
    try:
        done = subprocess.run(
            [program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return first_version(done.stdout.decode("utf-8", "replace"))


def missing_python() -> Iterator[str]:
    """What is wrong with the Python that runs this."""
    if sys.version_info[:2] < PYTHON_MIN:
        this = dotted(sys.version_info[:2])
        yield f"Python {dotted(PYTHON_MIN)} or later (this is {this}): install it, then set PYTHON"
        return
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        yield "Python's venv module: install the package python3-venv"


def missing_rust() -> Iterator[str]:
    """What is wrong with the Rust toolchain."""
    for program in ("cargo", "rustc"):
        version = version_of(program)
        if version is None:
            yield f"{program}: install Rust {dotted(RUST_MIN)} or later with rustup"
        elif version < RUST_MIN:
            wanted, this = dotted(RUST_MIN), dotted(version)
            yield f"{program} {wanted} or later (this is {this}): run `rustup update stable`"


def missing_compiler() -> Iterator[str]:
    """Whether there is no C compiler: some crates hold C, and the linker is called through it."""
    candidates = [os.environ["CC"].split()[0]] if os.environ.get("CC", "").split() else []
    if not any(shutil.which(name) for name in [*candidates, "cc", "gcc", "clang"]):
        if platform.system() == "Darwin":
            yield "a C compiler: run `xcode-select --install`"
        else:
            yield "a C compiler: install the package gcc (with libc6-dev) or clang"


def main() -> int:
    """Prints what is missing; the exit status is 1 if anything is."""
    if platform.system() not in SYSTEMS:
        this = platform.system() or "an unknown system"
        sys.stderr.write(f"blobsync builds and runs on Linux and macOS only; this is {this}.\n")
        return 1
    missing = [*missing_python(), *missing_rust(), *missing_compiler()]
    for line in missing:
        sys.stderr.write(f"missing: {line}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
