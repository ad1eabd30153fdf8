"""The one place that knows LMDB: typed transactions, one writer thread, growth, translated errors.

Jobs are functions of a transaction. Write jobs queue up for the writer thread, which runs those
that came together in one transaction, each in a child transaction of its own: a job that raises
leaves no trace, the others commit. **A job may run more than once** (the map grows and the batch
is run again), so what it does outside its transaction it must be able to do twice.

Another process may use the same database at the same time. Nothing read in one transaction is
taken for true in the next.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import queue
import resource
import struct
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import lmdb
import lmdb.verify

from blobstore import mapped
from blobstore.errors import (
    BlobError,
    StoreBusyError,
    StoreClosedError,
    StoreDamagedError,
    StoreFormatError,
    StoreFullError,
)
from blobstore.schema import LATER_TABLES, VERSION_KEY, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAP_SIZE = 1 << 30
"""Bytes of address space to begin with; it doubles when it is full."""

BATCH_MAX = 256
"""Jobs in one transaction."""

RESIDENT_MAX = 320 * 1024 * 1024
SHARED_MIN = 64 * 1024 * 1024
"""Pages of the database are given back when the process has more than this in memory, of which at
least so much are mapped files: to take them again costs time."""

ROWS_BETWEEN_LOOKS = 256
"""Rows that a transaction touches before it looks again at how much is in memory. Each brings one
page or two and their neighbours, 64 KiB or so."""

READERS_MAX = 1024
FULL_CODES = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""What the system says when there is no room for more."""

ROOM_MIN = 64 * 1024 * 1024
"""With less room than this a write that was cut short is taken for a full disk."""

_MAGIC = 0xBEEFC0DE
_META_OFFSET = 16
_META = struct.Struct("=IIQQI92xQQ")
"""magic, version, address, map size, page size (of the first of two 48-byte databases), last
page, transaction. Source: LMDB 0.9, `MDB_meta` in mdb.c, on 64-bit machines."""

_DAMAGED = (
    lmdb.BadTxnError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


def translate(error: lmdb.Error) -> BlobError:
    """The error of ours for one of LMDB's."""
    if isinstance(error, _DAMAGED):
        return StoreDamagedError(f"the store's database is damaged: {error}")
    if error.code in FULL_CODES:
        return StoreFullError("no room left for the store's database")
    return BlobError(f"the store's database failed: {error}")


def check_file(path: Path) -> None:
    """Look at a database file before LMDB maps it: touching what is not there kills the process.

    Raises:
        StoreDamagedError: it is not a database, or its end is missing.
    """
    with path.open("rb") as file:
        head = file.read(_META_OFFSET + _META.size)
        last_page, page_size = _check_meta(head, 0)
        file.seek(page_size)
        other, _ = _check_meta(file.read(_META_OFFSET + _META.size), page_size)
        # The size is read after the meta pages: another process may be growing the file.
        size = file.seek(0, 2)
    if size >= (max(last_page, other) + 1) * page_size:
        return
    # Pages at the end that were allocated and never used need not be there. This is rare, so
    # that walking the whole tree to find out is fine.
    walk = cast("Callable[..., list[str]]", lmdb.verify.verify)  # pyright: ignore[reportUnknownMemberType] - untyped
    try:
        problems = walk(str(path), subdir=False)
    except lmdb.verify.VerifyError as error:
        problems = [str(error)]
    if problems:
        raise StoreDamagedError(f"the store's database is cut off: {problems[0]}")


def _check_meta(page: bytes, page_size: int) -> tuple[int, int]:
    """Last page and page size of a meta page; `page_size` 0 if that is not known yet."""
    if len(page) < _META_OFFSET + _META.size:
        raise StoreDamagedError("the store's database is cut off: its head is missing")
    magic, version, _, _, size, last_page, _ = _META.unpack_from(page, _META_OFFSET)
    fits = magic == _MAGIC and version & 0xFFFF == 1 and size in (1 << n for n in range(9, 17))
    if not fits or (page_size and size != page_size):
        raise StoreDamagedError("the store's database is damaged: its head is not one of LMDB")
    return last_page, size


class ReadTxn:
    """A transaction to read in: one state of the whole database, whatever others commit."""

    def __init__(
        self,
        txn: lmdb.Transaction[bytes],
        tables: dict[Table, Any],
        bound_memory: Callable[[], None] | None = None,
    ) -> None:
        """`bound_memory` is called every so many rows."""
        self._txn = txn
        self._tables = tables
        self._bound_memory = bound_memory
        self._rows_to_look = ROWS_BETWEEN_LOOKS

    def _touch(self, rows: int = 1) -> None:
        """So many rows were read or written."""
        self._rows_to_look -= rows
        if self._rows_to_look <= 0:
            self._rows_to_look = ROWS_BETWEEN_LOOKS
            if self._bound_memory is not None:
                self._bound_memory()

    def get(self, table: Table, key: bytes) -> bytes | None:
        self._touch()
        return self._txn.get(key, db=self._tables[table])

    def count(self, table: Table) -> int:
        """How many rows a table has."""
        return self._txn.stat(self._tables[table])["entries"]

    def scan(
        self, table: Table, start: bytes = b"", *, prefix: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows in the order of their keys from `start` on, those that begin with `prefix`."""
        with self._txn.cursor(db=self._tables[table]) as cursor:
            start = max(start, prefix)
            found = cursor.set_range(start) if start else cursor.first()
            while found:
                key = cursor.key()
                if not key.startswith(prefix):
                    return
                yield key, cursor.value()
                self._touch()
                found = cursor.next()

    def keys(self, table: Table, start: bytes = b"") -> Iterator[bytes]:
        """Keys alone; values are not copied."""
        with self._txn.cursor(db=self._tables[table]) as cursor:
            if cursor.set_range(start) if start else cursor.first():
                for key in cursor.iternext(keys=True, values=False):
                    yield key
                    self._touch()

    def keys_with(self, table: Table, prefix: bytes) -> list[bytes]:
        """Keys that begin with `prefix`."""
        found: list[bytes] = []
        for key in self.keys(table, prefix):
            if not key.startswith(prefix):
                break
            found.append(key)
        return found


class WriteTxn(ReadTxn):
    """A transaction to write in; nothing of it is seen by others before it commits."""

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._touch()
        self._txn.put(key, value, db=self._tables[table])

    def put_new(self, table: Table, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Put many rows, best in the order of their keys; those that are there stay."""
        with self._txn.cursor(db=self._tables[table]) as cursor:
            for start in range(0, len(rows), ROWS_BETWEEN_LOOKS):
                some = rows[start : start + ROWS_BETWEEN_LOOKS]
                cursor.putmulti(some, overwrite=False)
                self._touch(len(some))

    def delete(self, table: Table, key: bytes) -> bool:
        """Whether the row was there."""
        self._touch()
        return self._txn.delete(key, db=self._tables[table])


class _MapGate:
    """Transactions pass together, a change of the map alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        with self._condition:
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def change(self) -> Generator[None]:
        with self._condition:
            self._condition.wait_for(lambda: self._inside == 0)
            yield


class _Job:
    """A write job and the future of its result."""

    __slots__ = ("error", "future", "result", "run")

    def __init__(self, run: Callable[[WriteTxn], Any]) -> None:
        self.run = run
        self.future: Future[Any] = Future()
        self.result: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Database:
    """An open database. `read` runs in the calling thread, `write` on the writer thread.

    Attributes:
        transactions_committed: write transactions of this handle so far.
    """

    def __init__(self, environment: lmdb.Environment, tables: dict[Table, Any]) -> None:
        self._environment = environment
        self._tables = tables
        self._gate = _MapGate()
        self._map_size = environment.info()["map_size"]
        self._mapping: mapped.Mapping | None = None
        self._mapping_is_known = False
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._accepts_jobs = True
        self._submit_lock = threading.Lock()
        self.transactions_committed = 0
        self._writer = threading.Thread(target=self._write_loop, name="blobstore-writer")
        self._writer.start()

    @classmethod
    def create(cls, path: Path, initialize: Callable[[WriteTxn], None]) -> None:
        """Make a database file, complete or not at all if the caller renames it into place."""
        environment = _open_environment(path, MAP_SIZE, create=True)
        try:
            tables = {table: environment.open_db(table.value) for table in Table}
            with environment.begin(write=True) as txn:
                initialize(WriteTxn(txn, tables))
        except lmdb.Error as error:
            raise translate(error) from error
        finally:
            environment.close()

    @classmethod
    def open(
        cls, path: Path, check: Callable[[ReadTxn], None], *, map_size: int = MAP_SIZE
    ) -> Database:
        """Open a database file that exists; `check` sees its META table before all else.

        Raises:
            StoreDamagedError: it cannot be read.
            StoreFormatError: it is not one of ours.
            StoreBusyError: this process has it open already.
        """
        check_file(path)
        environment = _open_environment(path, map_size, create=False)
        try:
            environment.reader_check()
            tables: dict[Table, Any] = {}
            tables[Table.META] = environment.open_db(Table.META.value, create=False)
            with environment.begin() as txn:
                check(ReadTxn(txn, tables))
            # Those that came with a later version are made here, empty, for the upgrade to fill.
            tables |= {
                table: environment.open_db(table.value, create=table in LATER_TABLES)
                for table in Table
            }
            return cls(environment, tables)
        except lmdb.Error as error:
            environment.close()
            if isinstance(error, lmdb.NotFoundError):
                raise StoreFormatError("the database is not one of a blob store") from error
            raise translate(error) from error
        except BaseException:
            environment.close()
            raise

    def read(self, job: Callable[[ReadTxn], T]) -> T:
        """Run `job` in a read transaction. It must not outlive it: no generators out of it."""
        while True:
            try:
                with self._gate.transaction():
                    if self._closed:
                        raise StoreClosedError("the store is closed")
                    with self._environment.begin() as txn:
                        return job(ReadTxn(txn, self._tables, self.bound_memory))
            except lmdb.MapResizedError:
                self._adopt_map()
            except lmdb.Error as error:
                raise translate(error) from error

    def submit(self, job: Callable[[WriteTxn], T]) -> Future[T]:
        """Queue a write job; the future is done once it is on disk, or has left no trace."""
        queued = _Job(job)
        with self._submit_lock:
            if not self._accepts_jobs:
                raise StoreClosedError("the store is closed")
            self._queue.put(queued)
        return cast("Future[T]", queued.future)

    def write(self, job: Callable[[WriteTxn], T]) -> T:
        """Run a write job and wait until it is on disk. Not for the event loop's thread."""
        return self.submit(job).result()

    def bound_memory(self) -> None:
        """Give back the memory of mapped pages if it is much, whoever reads or writes meanwhile."""
        resident = mapped.resident()
        if resident.total > RESIDENT_MAX and resident.shared > SHARED_MIN:
            # The map stays where it is while we are in here.
            with self._gate.transaction():
                if not self._closed and (mapping := self._find_mapping()):
                    self._give_back(mapping)

    def clear_stale_readers(self) -> None:
        """Free the slots of processes that died while they read: they keep old pages alive."""
        with self._gate.transaction():
            if not self._closed:
                self._environment.reader_check()

    def close(self) -> None:
        """Run what is queued, then let go."""
        with self._submit_lock:
            if not self._accepts_jobs:
                return
            self._accepts_jobs = False
            self._queue.put(None)
        self._writer.join()
        with self._gate.change():
            self._closed = True
            self._environment.close()

    # The writer thread

    def _write_loop(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                break
            batch = [job]
            last = False
            while len(batch) < BATCH_MAX:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    last = True
                    break
                batch.append(job)
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if batch:
                self._write_batch(batch)
            if last:
                break

    def _write_batch(self, batch: list[_Job]) -> None:
        try:
            while not self._try_batch(batch):
                pass
        except lmdb.Error as error:
            self._fail(batch, self._translate_commit(error))
        except Exception as error:  # noqa: BLE001 - it is handed to those who wait
            self._fail(batch, error)
        self.bound_memory()
        for job in batch:
            job.settle()

    def _translate_commit(self, error: lmdb.Error) -> BlobError:
        """As `translate`; LMDB says EIO when a write was cut short, as by a disk that is full."""
        if error.code == errno.EIO and self._room() < ROOM_MIN:
            return StoreFullError("no room left for the store's database, or its disk fails")
        return translate(error)

    def _room(self) -> int:
        """Bytes by which the database's file may still grow."""
        path = self._environment.path()
        disk = os.statvfs(path)
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        free = disk.f_bavail * disk.f_frsize
        if limit == resource.RLIM_INFINITY:
            return free
        return min(free, limit - Path(path).stat().st_size)

    @staticmethod
    def _fail(batch: list[_Job], error: Exception) -> None:
        for job in batch:
            job.error = job.error or error

    def _try_batch(self, batch: list[_Job]) -> bool:
        """One transaction for the batch; False if the map had to change first."""
        try:
            with self._gate.transaction(), self._environment.begin(write=True) as txn:
                for job in batch:
                    self._run_job(job, txn, alone=len(batch) == 1)
                if len(batch) == 1 and batch[0].error is not None:
                    txn.abort()
                    return True
        except lmdb.MapFullError:
            self._grow_map()
            return False
        except lmdb.MapResizedError:
            self._adopt_map()
            return False
        self.transactions_committed += 1
        return True

    def _run_job(self, job: _Job, txn: lmdb.Transaction[bytes], *, alone: bool) -> None:
        job.error = None
        child = txn if alone else self._environment.begin(parent=txn, write=True)
        try:
            job.result = job.run(WriteTxn(child, self._tables, self.bound_memory))
            if not alone:
                child.commit()
        except (lmdb.MapFullError, lmdb.MapResizedError):
            raise
        except BaseException as error:  # noqa: BLE001 - it is handed to those who wait
            job.error = translate(error) if isinstance(error, lmdb.Error) else error
            if not alone:
                child.abort()

    # The map, and where it is. All of this within the gate, so that none of it moves meanwhile.

    def _grow_map(self) -> None:
        with self._change_map():
            size = self._environment.info()["map_size"]
            self._environment.set_mapsize(2 * max(size, self._map_size))

    def _adopt_map(self) -> None:
        """Another process grew the map: take its size."""
        with self._change_map():
            self._environment.set_mapsize(0)

    @contextlib.contextmanager
    def _change_map(self) -> Generator[None]:
        with self._gate.change():
            # Before all else: whatever comes to the place of the old map is none of ours.
            self._mapping, self._mapping_is_known = None, False
            yield
            self._map_size = self._environment.info()["map_size"]

    def _find_mapping(self) -> mapped.Mapping | None:
        """Where the map is, if it can be given back."""
        if self._mapping_is_known:
            return self._mapping
        try:
            with self._environment.begin(buffers=True) as txn:
                # A row that every store has: where it is, there is the map.
                row = txn.get(VERSION_KEY, db=self._tables[Table.META])
                if row is not None:
                    with row:
                        self._mapping = mapped.mapping_of(row, self._map_size)
        except lmdb.Error:
            # Most likely another process grew the map; the next transaction is told and adopts it,
            # and what else may be wrong it is told as well.
            return None
        except OSError as error:
            logger.warning("mapped pages of the database stay in memory: %s", error)
        self._mapping_is_known = True
        return self._mapping

    def _give_back(self, mapping: mapped.Mapping) -> None:
        try:
            mapped.give_back(mapping)
        except OSError as error:
            # Such as pages that someone locked in memory.
            logger.warning("mapped pages of the database stay in memory: %s", error)
            self._mapping = None


def _open_environment(path: Path, map_size: int, *, create: bool) -> lmdb.Environment:
    page = mmap.PAGESIZE
    try:
        return lmdb.open(
            str(path),
            map_size=-(-map_size // page) * page,
            subdir=False,
            create=create,
            mode=0o600,
            max_dbs=len(Table),
            max_readers=READERS_MAX,
            # Small data is read at random; read-ahead would fill memory with its neighbours.
            readahead=False,
        )
    except lmdb.Error as error:
        if "already open in this process" in str(error):
            raise StoreBusyError("this process has the store open already") from error
        raise translate(error) from error
