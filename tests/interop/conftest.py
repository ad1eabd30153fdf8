"""The real Rust peers as fixtures. One that is missing skips its tests; in CI it fails them."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NoReturn

import pytest

from blobsync.app import App, NetworkOptions
from blobsync.protocols.blobs.python_pumps import PythonPumps
from tests.interop.blobsync_cli import Blobsync
from tests.interop.drivers import Peer, Sendme

SENDME_VERSION_MIN = (0, 37, 1)

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this folder, before `-m` selects."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)


def lacking(what: str) -> NoReturn:
    """Skips on a laptop, fails in CI, naming what is missing."""
    message = f"{what}: run `make peers`"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def cached(variable: str, *default: str) -> Path:
    """The path in an environment variable, or where `make peers` puts the thing."""
    cache = Path(os.environ.get("BLOBSYNC_CACHE", Path.home() / ".cache" / "blobsync"))
    return Path(os.environ.get(variable, cache.joinpath(*default)))


@pytest.fixture(scope="session")
def sendme() -> Sendme:
    """The installed `sendme`."""
    path = cached("BLOBSYNC_SENDME", "tools", "bin", "sendme")
    if not path.is_file():
        lacking(f"no sendme at {path}")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(number) for number in re.findall(r"\d+", said))
    if version < SENDME_VERSION_MIN:
        lacking(f"{said.strip()} is too old")
    return Sendme(path)


@pytest.fixture(scope="session")
def peer() -> Peer:
    """The built `blobsync-peer`."""
    path = cached("BLOBSYNC_PEER", "target-peer", "release", "blobsync-peer")
    if not path.is_file():
        lacking(f"no blobsync-peer at {path}")
    return Peer(path)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that is gone after the test: what is moved here would fill a disk if kept."""
    with tempfile.TemporaryDirectory(prefix="blobsync-interop-") as folder:
        yield Path(folder)


@pytest.fixture
def blobsync(scratch: Path) -> Blobsync:
    """Our program with a home of its own."""
    return Blobsync(scratch / "home")


@pytest.fixture(params=["iroh", "python"])
def pumps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test with either implementation of the pumps in `App`."""
    if request.param == "python":
        monkeypatch.setattr("blobsync.protocols.blobs.iroh_pumps.IrohPumps", PythonPumps)


@pytest.fixture
def open_app() -> "OpenApp":
    """Opens our application, in this process, on loopback."""
    return OpenApp()


class OpenApp:
    """Opens applications by their home folders."""

    def __call__(self, home: Path) -> AbstractAsyncContextManager[App]:
        return App.open(home, network=NetworkOptions(relay="disabled", bind=("127.0.0.1:0",)))
