"""File verbs that fail, or kill the process, at a chosen call."""

from __future__ import annotations

import errno
import functools
import os
import signal
from typing import TYPE_CHECKING, Any

from blobstore.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UNFAILING = frozenset(("close", "exists"))
"""Verbs that do not fail in practice; `close` has let go even when it complains."""

VERBS = frozenset(
    name
    for name, value in vars(Files).items()
    if callable(value) and not name.startswith("_") and name not in UNFAILING
)


BATCH_VERBS = frozenset(("scan_folders", "read_files"))
"""Verbs of many folders or files, each of which counts as a call and fails alone."""


class _Counting(Files):
    """Counts the calls of all verbs and gives each to `before` and `after`."""

    def __init__(self) -> None:
        self.calls = 0
        self.verbs: list[str] = []
        for verb in VERBS:
            wrap = self._wrap_batch if verb in BATCH_VERBS else self._wrap
            setattr(self, verb, wrap(verb, getattr(self, verb)))

    def _wrap(self, verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self.verbs.append(verb)
            number = self.calls
            self.before(number, verb)
            try:
                return call(*args, **kwargs)
            finally:
                self.after(number, verb)

        return wrapped

    def _wrap_batch(self, verb: str, call: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        @functools.wraps(call)
        def wrapped(paths: Sequence[bytes], **kwargs: Any) -> list[Any]:
            outcomes: list[Any] = []
            for path in paths:
                self.calls += 1
                self.verbs.append(verb)
                number = self.calls
                try:
                    self.before(number, verb)
                    outcomes += call([path], **kwargs)
                except OSError as error:
                    outcomes.append(error.errno)
                finally:
                    self.after(number, verb)
            return outcomes

        return wrapped

    def before(self, number: int, verb: str) -> None:
        """About to make call `number`."""

    def after(self, number: int, verb: str) -> None:
        """Call `number` has returned or raised."""


class FaultyFiles(_Counting):
    """The real file system, with one call that fails.

    Attributes:
        fail_at: number of the call that raises, counted from 1; 0 for none. `arm` counts from
            the present.
        verbs: those called so far.
    """

    def __init__(self, fail_at: int = 0, code: int = errno.EIO) -> None:
        super().__init__()
        self.fail_at = fail_at
        self.code = code
        self.has_failed = False

    def arm(self, fail_at: int) -> None:
        """Fail the `fail_at`-th call from now on."""
        self.calls, self.verbs = 0, []
        self.fail_at, self.has_failed = fail_at, False

    def before(self, number: int, verb: str) -> None:
        if number == self.fail_at:
            self.has_failed = True
            raise OSError(self.code, os.strerror(self.code), verb)


class CrashFiles(_Counting):
    """The real file system, with one call at which the process kills itself."""

    def __init__(self, crash_at: int, *, after: bool = False) -> None:
        super().__init__()
        self._crash_at = crash_at
        self._crash_after = after

    def before(self, number: int, verb: str) -> None:
        if not self._crash_after:
            self._crash(number)

    def after(self, number: int, verb: str) -> None:
        if self._crash_after:
            self._crash(number)

    def _crash(self, number: int) -> None:
        if number == self._crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
