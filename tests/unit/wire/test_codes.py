"""Wire codes and errors, both ways."""

import pytest

from blobsync.errors import (
    BlobsyncError,
    NotFoundError,
    PeerFailedError,
    RateLimitedError,
    RefusedError,
    UnreachableError,
)
from blobsync.wire.codes import (
    CloseCode,
    StreamCode,
    error_of_close,
    error_of_reset,
    reset_of_error,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, RefusedError),
        (2, RateLimitedError),
        (3, PeerFailedError),
        (0, PeerFailedError),
        (77, PeerFailedError),
    ],
)
def test_resets(code: int, kind: type[BlobsyncError]):
    error = error_of_reset(code, "5ea2000000")
    assert type(error) is kind
    assert "5ea2000000" in str(error)
    if code in (1, 2, 3):
        assert reset_of_error(error) == code


@pytest.mark.parametrize("error", [ValueError("x"), NotFoundError("x"), OSError("x")])
def test_any_other_error_is_internal(error: Exception):
    assert reset_of_error(error) is StreamCode.INTERNAL


@pytest.mark.parametrize(
    ("code", "kind", "is_permanent"),
    [
        (0, UnreachableError, False),
        (1, RefusedError, True),
        (2, RateLimitedError, False),
        (3, UnreachableError, False),
        (99, UnreachableError, False),
        (None, UnreachableError, False),
    ],
)
def test_closes(code: int | None, kind: type[BlobsyncError], is_permanent: bool):
    error = error_of_close(code, "5ea2000000")
    assert type(error) is kind
    assert error.is_permanent == is_permanent
    assert "5ea2000000" in str(error)


def test_reasons_of_a_close():
    assert [code.reason for code in CloseCode] == [b"", b"permission", b"limit", b"internal"]
