"""The database: jobs are atomic each, batched together, and survive growth from either side."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import lmdb
import pytest

from blobstore import schema
from blobstore.database import Database, ReadTxn, WriteTxn
from blobstore.errors import StoreBusyError, StoreClosedError, StoreDamagedError, StoreFormatError
from blobstore.schema import Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path


def check(txn: ReadTxn) -> None:
    schema.check_version(txn)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    Database.create(path, schema.create)
    return path


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database.open(path, check, map_size=1 << 20)
    yield database
    database.close()


class Gate:
    """Holds the writer thread in a job, so that others queue up behind it."""

    def __init__(self, database: Database) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.future = database.submit(self._job)
        assert self.entered.wait(30)

    def _job(self, txn: WriteTxn) -> None:
        self.entered.set()
        assert self.release.wait(30)


def test_jobs_that_came_together_commit_together(database: Database) -> None:
    gate = Gate(database)
    futures = [
        database.submit(lambda txn, n=n: txn.put(Table.TAGS, b"%d" % n, b"v")) for n in range(100)
    ]
    before = database.transactions_committed
    gate.release.set()
    for future in futures:
        future.result()
    assert database.transactions_committed == before + 2
    assert database.read(lambda txn: txn.count(Table.TAGS)) == 100


def test_a_job_that_raises_leaves_no_trace_and_harms_no_other(database: Database) -> None:
    def bad(txn: WriteTxn) -> None:
        txn.put(Table.TAGS, b"bad", b"v")
        txn.delete(Table.TAGS, b"first")
        raise KeyError("on purpose")

    gate = Gate(database)
    first = database.submit(lambda txn: txn.put(Table.TAGS, b"first", b"v"))
    failing = database.submit(bad)
    last = database.submit(lambda txn: txn.put(Table.TAGS, b"last", b"v"))
    gate.release.set()
    first.result()
    last.result()
    with pytest.raises(KeyError):
        failing.result()
    with pytest.raises(KeyError):
        database.write(bad)
    keys = database.read(lambda txn: list(txn.keys(Table.TAGS)))
    assert keys == [b"first", b"last"]


def test_a_job_taken_back_before_it_begins_does_not_run(database: Database) -> None:
    gate = Gate(database)
    future: Future[None] = database.submit(lambda txn: txn.put(Table.TAGS, b"x", b"v"))
    assert future.cancel()
    gate.release.set()
    gate.future.result()
    assert database.write(lambda txn: txn.get(Table.TAGS, b"x")) is None


def test_the_map_grows(database: Database) -> None:
    value = bytes(100_000)
    gate = Gate(database)
    futures = [
        database.submit(lambda txn, n=n: txn.put(Table.DATA, b"%d" % n, value)) for n in range(40)
    ]
    gate.release.set()
    for future in futures:
        future.result()
    assert database.read(lambda txn: txn.count(Table.DATA)) == 40
    # One job that alone is larger than the map.
    database.write(lambda txn: txn.put(Table.DATA, b"large", bytes(20_000_000)))
    large = database.read(lambda txn: txn.get(Table.DATA, b"large"))
    assert large is not None
    assert len(large) == 20_000_000


GROW = """
import sys
from pathlib import Path
from blobstore.database import Database
from blobstore.schema import Table
database = Database.open(Path(sys.argv[1]), lambda txn: None, map_size=1 << 20)
database.write(lambda txn: txn.put(Table.DATA, sys.argv[2].encode(), bytes(8_000_000)))
database.close()
"""


def test_another_process_grows_the_map(database: Database, path: Path) -> None:
    for name, then in (
        ("a", lambda: database.read(lambda txn: txn.get(Table.DATA, b"a"))),
        ("b", lambda: database.write(lambda txn: txn.get(Table.DATA, b"b"))),
    ):
        subprocess.run([sys.executable, "-c", GROW, str(path), name], check=True, timeout=60)
        assert then() == bytes(8_000_000)


def test_scans(database: Database) -> None:
    def fill(txn: WriteTxn) -> None:
        for key in (b"a", b"b1", b"b2", b"c", b"\xff\xff"):
            txn.put(Table.TAGS, key, key * 2)

    database.write(fill)

    def keys(start: bytes = b"", prefix: bytes = b"") -> list[bytes]:
        return database.read(
            lambda txn: [key for key, _ in txn.scan(Table.TAGS, start, prefix=prefix)]
        )

    assert keys() == [b"a", b"b1", b"b2", b"c", b"\xff\xff"]
    assert keys(prefix=b"b") == [b"b1", b"b2"]
    assert keys(b"b2") == [b"b2", b"c", b"\xff\xff"]
    assert keys(b"b2", prefix=b"b") == [b"b2"]
    assert keys(prefix=b"\xff") == [b"\xff\xff"]
    assert keys(b"zz", prefix=b"b") == []
    assert database.read(lambda txn: list(txn.scan(Table.LEASES))) == []
    assert database.read(lambda txn: list(txn.keys(Table.TAGS, b"c"))) == [b"c", b"\xff\xff"]


def test_closing_runs_what_is_queued(path: Path) -> None:
    database = Database.open(path, check)
    gate = Gate(database)
    future = database.submit(lambda txn: txn.put(Table.TAGS, b"x", b"v"))
    closing = threading.Thread(target=database.close)
    closing.start()
    gate.release.set()
    closing.join()
    future.result()
    database.close()
    with pytest.raises(StoreClosedError):
        database.submit(lambda txn: None)
    with pytest.raises(StoreClosedError):
        database.read(lambda txn: None)


def test_one_process_opens_it_once(database: Database, path: Path) -> None:
    with pytest.raises(StoreBusyError):
        Database.open(path, check)


def test_a_database_of_something_else(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path / "db"), subdir=False)
    environment.close()
    with pytest.raises(StoreFormatError):
        Database.open(tmp_path / "db", check)


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 8191, 8192, 12_288, 20_000])
def test_a_database_that_was_cut_off(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)
    before = path.read_bytes()
    with pytest.raises(StoreDamagedError):
        Database.open(path, check)
    assert path.read_bytes() == before


def test_garbage_is_no_database(path: Path) -> None:
    for offset in (0, 4096 + 16):
        good = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\x5a" * 64)
        with pytest.raises(StoreDamagedError):
            Database.open(path, check)
        path.write_bytes(good)
    Database.open(path, check).close()


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell what is mapped")
def test_mapped_memory_is_given_back(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between transactions the file is mapped anew, which nobody notices."""
    monkeypatch.setattr("blobstore.database.SHARED_MAX", 0)
    value = bytes(1000)
    for number in range(20):
        rows = [(b"%d %d" % (number, n), value) for n in range(100)]
        database.write(lambda txn, rows=rows: txn.put_new(Table.TAGS, rows))
        count = database.read(lambda txn: txn.count(Table.TAGS))
        assert count == (number + 1) * 100

    def read_through_a_trim(txn: ReadTxn) -> bytes | None:
        # Somebody reads: it is left alone, and nobody waits.
        database.bound_memory()
        database.write(lambda txn: txn.put(Table.TAGS, b"other", b"x"))
        return txn.get(Table.TAGS, b"7 7")

    assert database.read(read_through_a_trim) == value


def test_new_rows_do_not_replace_others(database: Database) -> None:
    database.write(lambda txn: txn.put(Table.TAGS, b"b", b"old"))
    rows = [(b"a", b"new"), (b"b", b"new"), (b"c", b"new")]
    database.write(lambda txn: txn.put_new(Table.TAGS, rows))
    expected = [(b"a", b"new"), (b"b", b"old"), (b"c", b"new")]
    assert database.read(lambda txn: list(txn.scan(Table.TAGS))) == expected
    assert database.read(lambda txn: txn.keys_with(Table.TAGS, b"b")) == [b"b"]
