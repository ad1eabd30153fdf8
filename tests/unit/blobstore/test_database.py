"""The database: jobs are atomic each, batched together, and survive growth from either side."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import pytest

from blobstore import database as database_module
from blobstore import mapped, schema
from blobstore.database import Database, ReadTxn, WriteTxn
from blobstore.errors import StoreBusyError, StoreClosedError, StoreDamagedError, StoreFormatError
from blobstore.schema import Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future


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
    found = database.read(lambda txn: txn.get(Table.DATA, b"large"))
    assert found is not None
    assert len(found) == 20_000_000


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


MANY_ROWS = 20_000
"""Of 2000 bytes: more than fits into what may stay mapped."""
SMALL = 4 * 1024 * 1024


def row(number: int) -> tuple[bytes, bytes]:
    """Keys in random order, as hashes are."""
    key = hashlib.sha256(b"%d" % number).digest()
    return key, key * 62


def fill(database: Database) -> None:
    for start in range(0, MANY_ROWS, 1000):
        rows = sorted(row(number) for number in range(start, start + 1000))
        database.write(lambda txn, rows=rows: txn.put_new(Table.DATA, rows))


@pytest.fixture
def large(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database of some tens of MB of which little may stay in memory."""
    if sys.platform != "linux":
        pytest.skip("the system does not tell what is mapped")
    fill(database)
    monkeypatch.setattr(database_module, "RESIDENT_MAX", 0)
    # Beside what is mapped for other reasons.
    database.read(lambda txn: txn.count(Table.DATA))
    monkeypatch.setattr(database_module, "SHARED_MIN", 0)
    database.bound_memory()
    assert database.read(lambda txn: txn.count(Table.DATA)) == MANY_ROWS
    monkeypatch.setattr(database_module, "SHARED_MIN", mapped.resident().shared + SMALL)
    monkeypatch.setattr(database_module, "ROWS_BETWEEN_LOOKS", ROWS)
    return database


def peak_of(work: Iterator[None]) -> int:
    """The most that was mapped beyond what may stay."""
    return max(mapped.resident().shared for _ in work) - database_module.SHARED_MIN


ROWS = 64
ONE_LOOK = ROWS * 2 * 64 * 1024
"""What a transaction maps between two looks: of each row a page or two, and their neighbours."""


def test_a_long_reader_does_not_map_all_of_it(large: Database) -> None:
    def read(txn: ReadTxn) -> Iterator[None]:
        for number in range(MANY_ROWS):
            key, value = row(number)
            assert txn.get(Table.DATA, key) == value
            yield

    assert large.read(lambda txn: peak_of(read(txn))) < ONE_LOOK


def test_scans_do_not_map_all_of_it(large: Database) -> None:
    def scan(txn: ReadTxn) -> Iterator[None]:
        for key, value in txn.scan(Table.DATA):
            assert value == key * 62
            yield

    def keys(txn: ReadTxn) -> Iterator[None]:
        for _ in txn.keys(Table.DATA):
            yield

    for work in (scan, keys):
        assert large.read(lambda txn, work=work: peak_of(work(txn))) < ONE_LOOK


def test_a_long_writer_does_not_map_all_of_it(large: Database) -> None:
    expected = dict(row(number) for number in range(MANY_ROWS))

    def write(txn: WriteTxn) -> Iterator[None]:
        for number in range(0, MANY_ROWS, 7):
            key, value = row(number)
            txn.put(Table.DATA, key, value[::-1])
            expected[key] = value[::-1]
            yield
        for number in range(1, MANY_ROWS, 7):
            key, _ = row(number)
            txn.delete(Table.DATA, key)
            del expected[key]
            yield

    assert large.write(lambda txn: peak_of(write(txn))) < ONE_LOOK
    assert large.read(lambda txn: dict(txn.scan(Table.DATA))) == expected


def test_pages_stay_while_the_process_has_little_in_memory(
    large: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "RESIDENT_MAX", 1 << 40)
    rows = large.read(lambda txn: dict(txn.scan(Table.DATA)))
    assert mapped.resident().shared - database_module.SHARED_MIN > sum(map(len, rows.values()))


def test_memory_is_given_back_while_others_read(large: Database) -> None:
    """Without waiting for them, and they read on what they read."""
    rows = sorted(row(number) for number in range(MANY_ROWS))

    def read(txn: ReadTxn) -> None:
        # A cursor points into the map all the time.
        left = iter(rows)
        for number, found in enumerate(txn.scan(Table.DATA)):
            if number % 1000 == 0:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(database_module, "SHARED_MIN", 0)
                    other = threading.Thread(target=large.bound_memory)
                    other.start()
                    other.join()
                large.write(lambda txn, number=number: txn.put(Table.TAGS, b"%d" % number, b""))
            assert found == next(left)

    large.read(read)


def test_only_the_map_itself_is_given_back(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it moves: at its old place there may be memory of somebody else."""
    given: list[mapped.Mapping] = []
    real = mapped.give_back

    def give_back(mapping: mapped.Mapping) -> None:
        maps = Path("/proc/self/maps").read_text()
        span = f"{mapping.address:08x}-{mapping.address + mapping.size:08x} r--s "
        (line,) = [line for line in maps.splitlines() if line.startswith(span)]
        assert line.endswith(str(path))
        given.append(mapping)
        real(mapping)

    monkeypatch.setattr(mapped, "give_back", give_back)
    monkeypatch.setattr(database_module, "SHARED_MIN", 0)
    monkeypatch.setattr(database_module, "RESIDENT_MAX", 0)
    monkeypatch.setattr(mapped, "resident", lambda: mapped.Resident(1, 1))
    stop = threading.Event()
    failures: list[BaseException] = []

    def bound() -> None:
        try:
            # Not all of the time, or the map never gets its turn.
            while not stop.wait(0.0005):
                database.bound_memory()
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            failures.append(error)

    threads = [threading.Thread(target=bound) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        # Ours grows by itself, and then to what another process made of it.
        for number in range(6):
            value = bytes([number]) * (1_000_000 << number)
            database.write(lambda txn, n=number, value=value: txn.put(Table.DATA, b"%d" % n, value))
            assert database.read(lambda txn, n=number: txn.get(Table.DATA, b"%d" % n)) == value
        subprocess.run([sys.executable, "-c", GROW, str(path), "a"], check=True, timeout=60)
        assert database.read(lambda txn: txn.get(Table.DATA, b"a")) == bytes(8_000_000)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    database.bound_memory()
    if sys.platform == "linux":
        assert len({mapping.size for mapping in given}) > 2
    given.clear()
    database.close()
    database.bound_memory()
    assert not given, "a closed one has no map"


def test_what_the_system_refuses_is_told_and_harms_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(mapping: mapped.Mapping) -> None:
        raise OSError(errno.EINVAL, "locked")

    monkeypatch.setattr(mapped, "mapping_of", lambda view, size: mapped.Mapping(0, size))
    monkeypatch.setattr(mapped, "resident", lambda: mapped.Resident(1, 1))
    monkeypatch.setattr(database_module, "SHARED_MIN", 0)
    monkeypatch.setattr(database_module, "RESIDENT_MAX", 0)
    monkeypatch.setattr(mapped, "give_back", refuse)
    for number in range(3):
        database.write(lambda txn, n=number: txn.put(Table.TAGS, b"%d" % n, b"v"))
    assert database.read(lambda txn: txn.count(Table.TAGS)) == 3
    assert [record.message for record in caplog.records] == [
        "mapped pages of the database stay in memory: [Errno 22] locked"
    ]


def test_new_rows_do_not_replace_others(database: Database) -> None:
    database.write(lambda txn: txn.put(Table.TAGS, b"b", b"old"))
    rows = [(b"a", b"new"), (b"b", b"new"), (b"c", b"new")]
    database.write(lambda txn: txn.put_new(Table.TAGS, rows))
    expected = [(b"a", b"new"), (b"b", b"old"), (b"c", b"new")]
    assert database.read(lambda txn: list(txn.scan(Table.TAGS))) == expected
    assert database.read(lambda txn: txn.keys_with(Table.TAGS, b"b")) == [b"b"]
