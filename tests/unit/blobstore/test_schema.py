"""Versions: what is refused, and how one is brought to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blobstore import schema
from blobstore.database import Database, ReadTxn, WriteTxn
from blobstore.errors import StoreDamagedError, StoreFormatError
from blobstore.schema import PROTECTIONS_KEY, VERSION_KEY, Table, encode_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def ignore(txn: ReadTxn) -> None:
    """Any version will do."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    Database.create(tmp_path / "db", schema.create)
    database = Database.open(tmp_path / "db", ignore)
    yield database
    database.close()


@pytest.fixture
def old_database(database: Database) -> Database:
    """One that says it is of version 1."""
    database.write(lambda txn: txn.put(Table.META, VERSION_KEY, encode_number(1)))
    return database


def version(txn: ReadTxn) -> int:
    return schema.decode_number(txn.get(Table.META, VERSION_KEY) or b"")


def step_one(txn: WriteTxn) -> None:
    txn.put(Table.TAGS, b"one", b"done")


def step_two(txn: WriteTxn) -> None:
    assert txn.get(Table.TAGS, b"one") == b"done"
    txn.put(Table.TAGS, b"two", b"done")


def test_a_new_database_is_of_the_newest_version(database: Database) -> None:
    assert database.read(schema.check_version) == schema.FORMAT_VERSION
    database.write(schema.upgrade)
    assert database.read(version) == schema.FORMAT_VERSION


def test_steps_run_in_order(old_database: Database) -> None:
    old_database.write(lambda txn: schema.upgrade(txn, 3, {1: step_one, 2: step_two}))
    assert old_database.read(version) == 3
    assert old_database.read(lambda txn: txn.get(Table.TAGS, b"two")) == b"done"
    # What is at the newest version already stays as it is.
    old_database.write(lambda txn: schema.upgrade(txn, 3, {}))


def test_a_step_that_fails_undoes_all(old_database: Database) -> None:
    def fails(txn: WriteTxn) -> None:
        raise StoreDamagedError("on purpose")

    with pytest.raises(StoreDamagedError):
        old_database.write(lambda txn: schema.upgrade(txn, 3, {1: step_one, 2: fails}))
    assert old_database.read(version) == 1
    assert old_database.read(lambda txn: txn.get(Table.TAGS, b"one")) is None


def test_versions_that_are_refused(old_database: Database) -> None:
    newer = schema.FORMAT_VERSION + 1
    with pytest.raises(StoreFormatError, match="no longer read"):
        old_database.write(lambda txn: schema.upgrade(txn, 3, {2: step_two}))
    old_database.write(lambda txn: txn.put(Table.META, VERSION_KEY, encode_number(newer)))
    with pytest.raises(StoreFormatError, match="newer"):
        old_database.read(schema.check_version)
    old_database.write(lambda txn: txn.put(Table.META, VERSION_KEY, b"short"))
    with pytest.raises(StoreDamagedError):
        old_database.read(schema.check_version)
    old_database.write(lambda txn: txn.delete(Table.META, VERSION_KEY))
    with pytest.raises(StoreFormatError, match="not one of a blob store"):
        old_database.read(schema.check_version)


def test_the_counter_of_protections_begins_at_zero(database: Database) -> None:
    assert database.read(lambda txn: txn.get(Table.META, PROTECTIONS_KEY)) == bytes(8)
