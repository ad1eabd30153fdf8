"""Opening a store's folder: making it, refusing what is not one, recovery, and the way out."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from blobstore import catalog, schema
from blobstore.core import Core
from blobstore.database import Database
from blobstore.errors import StoreFullError
from blobstore.folder import CREATING, Folder
from blobstore.session import Session

if TYPE_CHECKING:
    from blobstore.database import ReadTxn
    from blobstore.files import Files


def open_core(path: Path, files: Files, map_size: int, boot: bytes) -> Core:
    """Open the store in a folder, or make one there if it is empty or not there.

    Raises:
        StoreFormatError, StoreDamagedError, StoreBusyError, StoreFullError: nothing was changed.
    """
    folder = Folder(Path(os.path.abspath(path)), files)  # noqa: PTH100 - links stay as they are
    folder.check_is_ours()
    lock = folder.prepare()
    try:
        if not files.exists(folder.database):
            folder.remove_unfinished_database()
            Database.create(folder.path / CREATING, schema.create)
            folder.publish_database()
        database = Database.open(folder.database, _check, map_size=map_size)
        try:
            if database.read(schema.check_version) != schema.FORMAT_VERSION:
                database.write(schema.upgrade)
            return Core(folder, database, Session(folder), boot)
        except BaseException:
            database.close()
            raise
    finally:
        files.close(lock)


def _check(txn: ReadTxn) -> None:
    schema.check_version(txn)


def close_core(core: Core) -> None:
    """Let go of what this session kept alive, then of everything."""
    try:
        # On a full disk the rows stay: without a living session the next GC removes them.
        with contextlib.suppress(StoreFullError):
            core.database.write(lambda txn: catalog.release(txn, core.session.id))
    finally:
        try:
            core.database.close()
        finally:
            core.session.close()
