"""Every error has an exit code and one line."""

from __future__ import annotations

import errno
import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

import pytest

import blobsync.app
import blobsync.cli
from blobstore import errors as store_errors
from blobstore.codec.hash import EMPTY_HASH
from blobsync.cli.failures import (
    InterruptedBySignalError,
    describe_failure,
    store_error_codes,
)
from blobsync.errors import (
    BlobsyncError,
    DiskFullError,
    ExitCode,
    RateLimitedError,
    TargetExistsError,
    TicketError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def subclasses(base: type) -> Iterator[type]:
    for child in base.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_error_of_the_store_is_in_the_table() -> None:
    declared = {
        kind
        for _, kind in inspect.getmembers(store_errors, inspect.isclass)
        if issubclass(kind, store_errors.BlobError)
    }
    assert set(store_error_codes()) == declared


def test_every_error_of_the_application_has_a_code() -> None:
    for module in pkgutil.iter_modules(blobsync.cli.__path__, "blobsync.cli."):
        importlib.import_module(module.name)
    errors = [kind for kind in subclasses(BlobsyncError) if kind.__module__.startswith("blobsync.")]
    assert len(errors) > 15
    for kind in errors:
        assert kind.exit_code in set(ExitCode) - {ExitCode.OK}, kind


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TicketError("not a ticket"), ExitCode.BAD_INPUT, "not a ticket"),
        (TargetExistsError("a/b is there"), ExitCode.CONFLICT, "a/b is there"),
        (store_errors.BlobNotFoundError(EMPTY_HASH), ExitCode.NOT_FOUND, "blob af13"),
        (store_errors.StoreFullError("no room"), ExitCode.DISK_FULL, "no room"),
        (store_errors.StoreDamagedError("bad page"), ExitCode.STORE, "bad page"),
        (store_errors.VerificationError(EMPTY_HASH, 3), ExitCode.STORE, "chunk 3 of af13"),
        (store_errors.ImportFileError("changed"), ExitCode.BAD_INPUT, "changed"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            ExitCode.DISK_FULL,
            "no space left on device: /data/x",
        ),
        (OSError(errno.EDQUOT, "Quota exceeded"), ExitCode.DISK_FULL, "quota exceeded"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a", None, "b"),
            ExitCode.BAD_INPUT,
            "no such file or directory: a -> b",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/y"),
            ExitCode.FAILURE,
            "permission denied: /data/y",
        ),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ExitCode.UNREACHABLE, "reset"),
        (TimeoutError(), ExitCode.UNREACHABLE, "timed out"),
        (KeyError("x"), ExitCode.FAILURE, "unexpected: KeyError: 'x' (--debug"),
        (RuntimeError(), ExitCode.FAILURE, "unexpected: RuntimeError (--debug"),
        (InterruptedBySignalError(143, "all is kept"), 143, "interrupted; all is kept"),
    ],
)
def test_code_and_line(error: Exception, code: int, message: str) -> None:
    failure = describe_failure(error)
    assert failure.exit_code == code
    assert failure.message.startswith(message)


def test_a_subclass_has_the_code_of_its_base() -> None:
    class NewError(store_errors.StoreDamagedError):
        pass

    assert describe_failure(NewError("x")).exit_code == ExitCode.STORE


def test_whether_to_try_again() -> None:
    assert describe_failure(UnreachableError("gone")).retry
    assert describe_failure(DiskFullError("full")).retry
    assert describe_failure(RateLimitedError("later")).retry
    assert describe_failure(store_errors.PartialBusyError("busy")).retry
    assert describe_failure(OSError(errno.ENOSPC, "full")).retry
    assert not describe_failure(TicketError("no")).retry
    assert not describe_failure(KeyError("no")).retry


def test_a_group_is_told_by_the_error_in_it_that_is_ours() -> None:
    inner = ExceptionGroup("inner", [ValueError("x"), UnreachableError("peer is gone")])
    failure = describe_failure(ExceptionGroup("outer", [KeyError("y"), inner]))
    assert failure.exit_code == ExitCode.UNREACHABLE
    assert failure.message == "peer is gone"


def test_a_group_without_any_of_ours_is_told_by_its_first() -> None:
    failure = describe_failure(ExceptionGroup("g", [OSError(errno.ENOSPC, "Full"), KeyError("y")]))
    assert failure.exit_code == ExitCode.DISK_FULL
