"""Parts that a test needs and a machine may lack."""

import importlib
import os
from typing import Any

import pytest

WITHOUT_PYIROH = "BLOBSYNC_WITHOUT_PYIROH"
"""Set to 1 where pyiroh is left out on purpose."""


def has_pyiroh() -> bool:
    """Whether the binding is installed. In CI it has to be, unless it was left out on purpose."""
    try:
        # By name: the folder of its sources can be imported as well.
        from pyiroh import Endpoint  # noqa: F401
    except ImportError:
        if os.environ.get("CI") == "true" and os.environ.get(WITHOUT_PYIROH) != "1":
            raise
        return False
    return True


def iroh_transport() -> Any:
    """The module of the iroh transport; skips the test without it."""
    if not has_pyiroh():
        pytest.skip("pyiroh is not built")
    return importlib.import_module("blobsync.transports.iroh")


def give_up_dialling_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Shorten the time limit of dialling, for every transport."""
    monkeypatch.setattr("blobsync.transports.quic.endpoint.CONNECT_TIMEOUT_S", seconds)
    if has_pyiroh():
        monkeypatch.setattr("blobsync.transports.iroh.CONNECT_TIMEOUT_S", seconds)
