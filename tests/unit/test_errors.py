"""The table of errors: exit codes, and whether trying again helps."""

import pytest

from blobsync import errors
from blobsync.errors import BlobsyncError, ExitCode

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BlobsyncError)
]


@pytest.mark.parametrize("error", CLASSES)
def test_each_class_tells_the_shell_something(error: type[BlobsyncError]):
    assert error.exit_code in ExitCode
    assert error.exit_code not in (ExitCode.OK, ExitCode.USAGE)


def test_exit_codes_are_those_of_the_docs():
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILURE": 1,
        "USAGE": 2,
        "BAD_INPUT": 3,
        "UNREACHABLE": 4,
        "REFUSED": 5,
        "NOT_FOUND": 6,
        "BAD_DATA": 7,
        "PROTOCOL": 8,
        "CONFLICT": 9,
        "DISK_FULL": 10,
        "STORE": 11,
        "HOSTILE": 12,
        "INTERRUPTED": 130,
    }


def test_which_errors_pass_by_themselves():
    transient = {each.__name__ for each in CLASSES if not each.is_permanent}
    assert transient == {"UnreachableError", "RateLimitedError", "DiskFullError"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.TicketError("x"), ValueError),
        (errors.NotFoundError("x"), LookupError),
        (errors.TargetExistsError("x"), FileExistsError),
        (errors.RateLimitedError("x"), errors.RefusedError),
    ],
)
def test_what_plain_python_expects(error: BlobsyncError, kind: type[Exception]):
    assert isinstance(error, kind)
    assert str(error) == "x"


def test_bad_data_says_what_and_from_whom():
    error = errors.PeerDataError(b"\x3f" * 32, 7040, peer="5ea2000000")
    assert str(error).startswith("chunk 7040 of 3f3f")
    assert str(error).endswith("does not match its parent (from 5ea2000000)")
    assert (error.hash, error.chunk, error.peer) == (b"\x3f" * 32, 7040, "5ea2000000")
    assert str(errors.PeerDataError(b"\x3f" * 32)).startswith("data of 3f3f")


def test_not_found_says_which_piece():
    error = errors.NotFoundError("gone", hash=b"h", chunk=3, index=2)
    assert (error.hash, error.chunk, error.index) == (b"h", 3, 2)
