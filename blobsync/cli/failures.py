"""From exceptions to exit codes and one line: the only place where that is decided.

Errors of the application carry their code on the class; those of the store and of the operating
system are in the tables here.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from blobsync.errors import BlobsyncError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobstore.errors import BlobError

TERMINATED_EXIT_CODE = 143
"""Ended by SIGTERM: 128 + 15, as shells say it."""

STDOUT_CLOSED_EXIT_CODE = 141
"""Whoever read our output went away: 128 + 13, as of a program that SIGPIPE ends."""

OS_ERROR_CODES = {
    errno.ENOSPC: ExitCode.DISK_FULL,
    errno.EDQUOT: ExitCode.DISK_FULL,
    errno.EEXIST: ExitCode.CONFLICT,
    errno.ENOTEMPTY: ExitCode.CONFLICT,
    errno.ENOENT: ExitCode.BAD_INPUT,
    errno.ENOTDIR: ExitCode.BAD_INPUT,
    errno.EISDIR: ExitCode.BAD_INPUT,
    errno.ENAMETOOLONG: ExitCode.BAD_INPUT,
    errno.ELOOP: ExitCode.BAD_INPUT,
    errno.ETIMEDOUT: ExitCode.UNREACHABLE,
    errno.ECONNREFUSED: ExitCode.UNREACHABLE,
    errno.ECONNRESET: ExitCode.UNREACHABLE,
    errno.ECONNABORTED: ExitCode.UNREACHABLE,
    errno.ENETUNREACH: ExitCode.UNREACHABLE,
    errno.EHOSTUNREACH: ExitCode.UNREACHABLE,
    errno.EADDRINUSE: ExitCode.CONFLICT,
    errno.EADDRNOTAVAIL: ExitCode.BAD_INPUT,
}
"""What the operating system says; any other `OSError` is a plain failure."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What the shell and the person in front of it get to see of an error."""

    kind: str
    """Name of the exit code in lower case, for programs."""
    exit_code: int
    message: str
    """Lower case, may hold text of a peer: escape it."""
    retry: bool
    """Running the same command again may help."""


class InterruptedBySignalError(Exception):
    """A signal ended the command in the middle."""

    def __init__(self, exit_code: int, kept: str) -> None:
        super().__init__(f"interrupted; {kept}")
        self.exit_code = exit_code


def store_error_codes() -> dict[type[BlobError], ExitCode]:
    """Exit codes of the store's errors; a class that is not here has that of its base."""
    # Only a failing command needs the store's classes; the others start quicker without.
    from blobstore import errors as store_errors

    return {
        store_errors.BlobError: ExitCode.FAILURE,
        store_errors.BlobNotFoundError: ExitCode.NOT_FOUND,
        store_errors.FileChangedError: ExitCode.NOT_FOUND,
        store_errors.TagNotFoundError: ExitCode.NOT_FOUND,
        store_errors.ImportFileError: ExitCode.BAD_INPUT,
        store_errors.ProtectedError: ExitCode.CONFLICT,
        store_errors.PartialBusyError: ExitCode.CONFLICT,
        store_errors.StoreBusyError: ExitCode.FAILURE,
        store_errors.StoreFullError: ExitCode.DISK_FULL,
        store_errors.StoreFormatError: ExitCode.STORE,
        store_errors.StoreDamagedError: ExitCode.STORE,
        store_errors.VerificationError: ExitCode.STORE,
        store_errors.StoreClosedError: ExitCode.FAILURE,
    }


def describe_failure(error: BaseException) -> Failure:
    """What to tell of `error`. An exception nobody foresaw is told as unexpected, code 1."""
    error = root_error(error)
    match error:
        case InterruptedBySignalError():
            return Failure("interrupted", error.exit_code, str(error), retry=True)
        case BlobsyncError():
            return _failure(error.exit_code, _text(error), retry=not error.is_permanent)
        case OSError() if error.errno is not None:
            return _failure(OS_ERROR_CODES.get(error.errno, ExitCode.FAILURE), _os_text(error))
        case TimeoutError():
            return _failure(ExitCode.UNREACHABLE, str(error) or "timed out", retry=True)
        case _:
            return _describe_store_error(error)


def _describe_store_error(error: BaseException) -> Failure:
    codes = store_error_codes()
    for parent in type(error).__mro__:
        code = codes.get(parent)
        if code is not None:
            is_permanent = bool(getattr(error, "is_permanent", True))
            return _failure(code, _text(error), retry=not is_permanent)
    name = type(error).__name__
    detail = f": {error}" if str(error) else ""
    hint = "--debug shows where it comes from"
    return _failure(ExitCode.FAILURE, f"unexpected: {name}{detail} ({hint})")


def root_error(error: BaseException) -> BaseException:
    """The error that a group of a task group is about: the first one that is ours, if any."""
    causes = list(_leaves(error))
    return next((cause for cause in causes if isinstance(cause, BlobsyncError)), causes[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
        yield from _leaves(inner)


def _failure(code: ExitCode, message: str, *, retry: bool = False) -> Failure:
    retry = retry or code in (ExitCode.UNREACHABLE, ExitCode.DISK_FULL)
    return Failure(code.name.lower(), int(code), message, retry)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _os_text(error: OSError) -> str:
    what = (error.strerror or "input/output error").lower()
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{what}: {' -> '.join(names)}" if names else what
