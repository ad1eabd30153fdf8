"""A store that cannot be used is told in one line, and left exactly as it was."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import lmdb
import pytest

from blobstore import BlobFormat, Hash, schema
from blobsync.address import EndpointAddr, SocketAddr
from blobsync.errors import ExitCode
from blobsync.identity import public_id
from blobsync.wire.ticket import BlobTicket
from tests.faults.app.conftest import Program, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.app.conftest import Sharing


# Nobody is there.
TICKET = BlobTicket(
    EndpointAddr(public_id(bytes([7]) * 32), ip_addrs=(SocketAddr.from_text("127.0.0.1:9"),)),
    Hash(bytes(32)),
    BlobFormat.RAW,
).to_text()


def database_of(home: Path) -> Path:
    return home / "store" / "blobs.lmdb"


def garbage(home: Path) -> None:
    path = database_of(home)
    path.write_bytes(os.urandom(path.stat().st_size))


def text(home: Path) -> None:
    database_of(home).write_bytes(b"not a database\n")


def empty(home: Path) -> None:
    database_of(home).write_bytes(b"")


def truncated(home: Path) -> None:
    os.truncate(database_of(home), 3 * 4096)


def truncated_in_a_page(home: Path) -> None:
    os.truncate(database_of(home), 5000)


def damaged_meta_pages(home: Path) -> None:
    path = database_of(home)
    with path.open("r+b") as file:
        for page in (0, 1):
            file.seek(page * 4096 + 16)
            file.write(os.urandom(100))


def a_file_for_the_folder(home: Path) -> None:
    (home / "store").rename(home / "away")
    (home / "store").write_bytes(b"not a folder")


def another_folder(home: Path) -> None:
    (home / "store").rename(home / "away")
    (home / "store").mkdir()
    (home / "store" / "thesis.txt").write_bytes(b"years of work")


DAMAGES = [
    garbage,
    text,
    empty,
    truncated,
    truncated_in_a_page,
    damaged_meta_pages,
    a_file_for_the_folder,
    another_folder,
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "small").write_bytes(b"small")
    (path / "large").write_bytes(os.urandom(1_000_000))
    return path


@pytest.fixture
def sharing(provider: Program, source: Path) -> Iterator[Sharing]:
    with provider.share(source) as sharing:
        yield sharing


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with something in its store."""
    folder = tmp_path_factory.mktemp("used")
    source = folder / "source"
    source.mkdir()
    (source / "small").write_bytes(b"small")
    (source / "large").write_bytes(os.urandom(1_000_000))
    program = Program(folder / "home")
    assert program.run("add", "--copy", source).code == 0
    return program.home


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store(
    getter: Program, used_home: Path, tmp_path: Path, damage: Callable[[Path], None]
):
    """It is told before anyone is dialled."""
    destination = tmp_path / "destination"
    destination.mkdir()
    shutil.copytree(used_home, getter.home)
    damage(getter.home)
    before = snapshot(getter.home, destination)
    line = getter.get(TICKET, destination).failed_with(ExitCode.STORE)
    assert "store" in line
    assert _without_locks(snapshot(getter.home, destination)) == _without_locks(before)


def _without_locks(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Lock files hold nothing."""
    return {name: what for name, what in found.items() if "lock" not in name.rpartition("/")[2]}


def test_a_store_of_a_newer_version(getter: Program, used_home: Path, tmp_path: Path):
    shutil.copytree(used_home, getter.home)
    raise_version(getter.home)
    before = snapshot(getter.home)
    line = getter.get(TICKET, tmp_path / "destination").failed_with(ExitCode.STORE)
    assert "use a newer one" in line
    assert _without_locks(snapshot(getter.home)) == _without_locks(before)


def raise_version(home: Path) -> None:
    """Write a format version of the far future."""
    with lmdb.open(str(database_of(home)), subdir=False, max_dbs=32) as environment:
        meta = environment.open_db(schema.Table.META.value, create=False)
        with environment.begin(write=True, db=meta) as txn:
            assert txn.replace(schema.VERSION_KEY, schema.encode_number(1 << 40)) is not None


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may read everything"
)
def test_a_store_that_may_not_be_read(getter: Program, sharing: Sharing, tmp_path: Path):
    destination = tmp_path / "destination"
    destination.mkdir()
    assert getter.run("ls").code == 0
    if os.geteuid() == 0:
        # Root without its rights over the files of others, and over its own closed ones.
        getter.prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    database_of(getter.home).chmod(0)
    before = snapshot(getter.home, destination)
    got = getter.get(sharing.ticket, destination)
    line = got.failed_with(got.code)
    assert got.code in (ExitCode.FAILURE, ExitCode.STORE)
    assert "permission" in line
    assert snapshot(getter.home, destination) == before
    database_of(getter.home).chmod(0o600)
    assert getter.get(sharing.ticket, destination).code == 0


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff\xfe", b"ab" * 31])
def test_a_damaged_key(provider: Program, source: Path, content: bytes):
    provider.home.mkdir()
    (provider.home / "key").write_bytes(content)
    args = ("--relay", "disabled", "--bind", "127.0.0.1:0")
    for done in (provider.run("share", source, *args), provider.run("id")):
        line = done.failed_with(ExitCode.STORE)
        assert str(provider.home / "key") in line
    assert (provider.home / "key").read_bytes() == content


def test_a_home_that_is_a_file(provider: Program):
    provider.home.write_bytes(b"mine")
    done = provider.run("ls")
    assert done.code in (ExitCode.CONFLICT, ExitCode.BAD_INPUT), done
    done.failed_with(done.code)
    assert provider.home.read_bytes() == b"mine"


def test_a_database_that_is_damaged_under_a_running_share_harms_nobody(
    provider: Program, getter: Program, sharing: Sharing, source: Path, tmp_path: Path
):
    """What a peer receives is right or an error."""
    path = database_of(provider.home)
    size = path.stat().st_size
    with path.open("r+b") as file:
        # All pages but the two that LMDB begins with.
        file.seek(2 * 4096)
        file.write(os.urandom(size - 2 * 4096))
    destination = tmp_path / "destination"
    got = getter.get(sharing.ticket, destination)
    if got.code == 0:
        assert (destination / "source/large").read_bytes() == (source / "large").read_bytes()
    else:
        got.failed_with(got.code)
