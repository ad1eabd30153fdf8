"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import tomllib
from pathlib import Path

import psutil

from benchmarks.harness import BenchmarkError

ROOT = Path(__file__).resolve().parent.parent

OURS = {"blobsync": "pyproject.toml", "blobstore": "store/pyproject.toml"}
"""Pure Python, so what runs is what the clone holds."""
PACKAGES = ("pybao", "pyiroh", "aioquic", "lmdb", "blake3", "click")
CRATES = ("iroh", "noq", "bao-tree", "blake3", "tokio", "pyo3")


def describe_machine() -> dict[str, str | int]:
    """Processor, cores, memory and system."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "load_1min": f"{os.getloadavg()[0]:.2f}",
    }


def cpu_model() -> str:
    """The processor by its own name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_versions() -> dict[str, str]:
    """Versions of ours and of what we stand on."""
    versions = {"python": platform.python_version(), "commit": commit()}
    versions |= {name: own_version(name) for name in OURS}
    versions |= {package: package_version(package) for package in PACKAGES}
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    for crate in locked:
        if crate["name"] in CRATES:
            versions[f"crate {crate['name']}"] = crate["version"]
    return versions


def own_version(name: str) -> str:
    """The version of one of our packages in this clone."""
    return tomllib.loads((ROOT / OURS[name]).read_text())["project"]["version"]


def package_version(name: str) -> str:
    """The version of a package that is installed."""
    return importlib.metadata.version(name)


def commit() -> str:
    """The commit of this clone, with `+` if there are changes; `unknown` without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def version_line(*command: str) -> str:
    """The first line that a program prints about its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{command[0]} does not run: {done.stderr.strip()}")
    return done.stdout.partition("\n")[0].strip()
