"""The edges of pybao's interface: arguments, descriptors, errors, threads."""

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pybao
from tests.unit.pybao.vectors import data

SIZE = 5_000_001
DATA = data(SIZE)
ROOT, PAIRS = pybao.outboard(DATA)
EMPTY_ROOT = pybao.hash(b"")
ALL = [0]


@pytest.fixture
def data_fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "data").write_bytes(DATA)
    with (tmp_path / "data").open("rb") as file:
        yield file.fileno()


@pytest.fixture
def target() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def encoded(ranges: list[int] = ALL) -> bytes:
    return pybao.Encoder(ROOT, SIZE, ranges, DATA, PAIRS).next(1 << 30)


CALLS: list[tuple[str, Callable[[], object]]] = [
    ("equal boundaries", lambda: pybao.truncate_ranges([1, 1], 1)),
    ("falling boundaries", lambda: pybao.Decoder(ROOT, [3, 2])),
    ("negative boundary", lambda: pybao.full_groups([-1])),
    ("boundary beyond u64", lambda: pybao.round_up_to_groups([2**64])),
    ("short root", lambda: pybao.Decoder(b"root", ALL)),
    ("negative size", lambda: pybao.outboard_size(-1)),
    ("size of 2^63", lambda: pybao.outboard_size(2**63)),
    ("negative claim", lambda: pybao.Decoder(ROOT, ALL, size=-1)),
    ("data too short", lambda: pybao.Encoder(ROOT, SIZE, ALL, DATA[:-1], PAIRS)),
    ("outboard too short", lambda: pybao.Encoder(ROOT, SIZE, ALL, DATA, PAIRS[:-64])),
    ("outboard too long", lambda: pybao.Encoder(ROOT, SIZE, ALL, DATA, PAIRS + bytes(64))),
    ("negative threads", lambda: pybao.outboard(DATA, threads=-1)),
    ("negative length", lambda: pybao.Encoder(ROOT, SIZE, ALL, DATA, PAIRS).next(-1)),
    ("negative start", lambda: pybao.read_verified(ROOT, SIZE, DATA, PAIRS, -1, 5)),
]


@pytest.mark.parametrize("call", [c for _, c in CALLS], ids=[name for name, _ in CALLS])
def test_what_does_not_fit_is_a_value_error(call):
    with pytest.raises(ValueError, match=r"increase|32 bytes|below 2\^63|negative|asks for"):
        call()


@pytest.mark.parametrize("mutable", [bytearray(b"data"), memoryview(b"data")])
def test_only_bytes_are_taken(mutable):
    decoder = pybao.Decoder(ROOT, ALL)
    for call in (
        lambda: pybao.hash(mutable),
        lambda: pybao.outboard(mutable),
        lambda: pybao.hash_many([mutable]),
        lambda: decoder.feed(mutable),
        lambda: pybao.Encoder(ROOT, 4, ALL, mutable, b""),
    ):
        with pytest.raises(TypeError):
            call()
    assert decoder.needed == 8


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_outboard_size_at_the_ends(size):
    assert pybao.outboard_size(size) == (max(1, -(-size // 16384)) - 1) * 64


def test_closed_descriptors_are_os_errors():
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    for call in (
        lambda: pybao.outboard_fd(fd, 0),
        lambda: pybao.Encoder(ROOT, SIZE, ALL, fd, PAIRS),
        lambda: pybao.Decoder(ROOT, ALL, data_fd=fd),
        lambda: pybao.Decoder(ROOT, ALL, data_fd=-1),
    ):
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_descriptors_may_be_closed_and_keep_their_position(data_fd, target):
    os.lseek(data_fd, 7, os.SEEK_SET)
    copies = [os.dup(data_fd), os.dup(target)]
    encoder = pybao.Encoder(ROOT, SIZE, ALL, copies[0], PAIRS)
    decoder = pybao.Decoder(ROOT, ALL, data_fd=copies[1])
    for fd in copies:
        os.close(fd)
    while part := encoder.next():
        decoder.feed(part)
    decoder.finish()
    assert content(target) == DATA
    assert os.lseek(data_fd, 0, os.SEEK_CUR) == 7
    assert os.lseek(target, 0, os.SEEK_CUR) == 0


def test_no_descriptor_is_left_open(data_fd, target):
    before = open_descriptors()
    for _ in range(10):
        pybao.Encoder(ROOT, SIZE, ALL, data_fd, PAIRS).next()
        pybao.Decoder(ROOT, ALL, data_fd=target, outboard_fd=target).feed(b"12345678")
        pybao.outboard_fd(data_fd, SIZE, outboard_fd=target)
        pybao.copy_verified(ROOT, SIZE, data_fd, PAIRS, target)
        with pytest.raises(ValueError, match="increase"):
            pybao.Encoder(ROOT, SIZE, [1, 0], data_fd, PAIRS)
    assert open_descriptors() == before


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("to_file", [False, True])
def test_a_file_that_ends_early(data_fd, target, threads, to_file):
    with pytest.raises(pybao.FileShorter):
        pybao.outboard_fd(
            data_fd, SIZE + 1, outboard_fd=target if to_file else None, threads=threads
        )


def test_a_huge_size_takes_no_memory_for_bytes_that_are_not_there(data_fd):
    with pytest.raises(pybao.FileShorter):
        pybao.outboard_fd(data_fd, 2**63 - 1)
    with pytest.raises(pybao.EncodeError, match="size mismatch"):
        pybao.read_verified(ROOT, 2**63 - 1, data_fd, b"", 0, 2**63 - 1)
    assert pybao.valid_ranges(ROOT, 2**63 - 1, data_fd, data_fd) == []
    encoder = pybao.Encoder(ROOT, 2**63 - 1, ALL, data_fd, data_fd)
    assert encoder.encoded_size == 8 + 2**63 - 1 + (2**49 - 1) * 64
    assert encoder.next() == (2**63 - 1).to_bytes(8, "little")
    with pytest.raises(pybao.EncodeError, match="parent hash mismatch at node"):
        encoder.next()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_bytes_of_a_longer_file(data_fd, threads):
    size = 3_000_000
    expected = pybao.outboard(DATA[:size])
    assert pybao.outboard_fd(data_fd, size, threads=threads) == expected


def test_unreadable_and_unwritable_descriptors(data_fd):
    with Path("/dev/null").open("wb") as null:
        unreadable, unwritable = null.fileno(), data_fd
        encoder = pybao.Encoder(ROOT, SIZE, ALL, unreadable, PAIRS)
        # The pairs before the first bytes of data are good, and come first.
        assert encoded().startswith(encoder.next())
        for call in (
            lambda: pybao.outboard_fd(unreadable, 1 << 21),
            lambda: pybao.outboard_fd(data_fd, SIZE, outboard_fd=unwritable),
            lambda: pybao.copy_verified(ROOT, SIZE, DATA, PAIRS, unwritable),
            lambda: pybao.valid_ranges(ROOT, SIZE, unreadable, PAIRS),
            lambda: pybao.valid_ranges(ROOT, SIZE, DATA, unreadable),
            lambda: pybao.read_verified(ROOT, SIZE, DATA, unreadable, 0, 1),
            lambda: pybao.Decoder(ROOT, ALL, data_fd=unwritable).feed(encoded()),
            lambda: pybao.Decoder(ROOT, ALL, outboard_fd=unwritable).feed(encoded()),
            encoder.next,
            encoder.next,
        ):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                call()
            assert caught.value.errno == errno.EBADF


def test_a_full_disk_ends_the_decoder():
    with Path("/dev/full").open("wb") as full:
        decoder = pybao.Decoder(ROOT, ALL, data_fd=full.fileno())
    for _ in range(2):
        with pytest.raises(OSError, match="No space left") as caught:
            decoder.feed(encoded())
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        decoder.finish()
    assert decoder.proven == []
    assert not decoder.is_done


def test_what_is_good_comes_out_before_what_is_bad():
    bad = DATA[:2_000_000] + b"x" + DATA[2_000_001:]
    encoder = pybao.Encoder(ROOT, SIZE, ALL, bad, PAIRS)
    part = encoder.next(1 << 30)
    group = 2_000_000 // 16384
    assert encoded().startswith(part)
    assert len(part) > group * 16384
    for _ in range(2):
        with pytest.raises(pybao.EncodeError) as caught:
            encoder.next()
        assert (caught.value.kind, caught.value.chunk) == ("leaf_hash_mismatch", group * 16)
    decoder = pybao.Decoder(ROOT, ALL)
    decoder.feed(part)
    assert decoder.proven == [0, group * 16]


def test_the_empty_blob(target):
    for root, ranges in ((EMPTY_ROOT, ALL), (EMPTY_ROOT, [2**64 - 1]), (EMPTY_ROOT, [5, 6])):
        encoder = pybao.Encoder(root, 0, ranges, b"", b"")
        assert (encoder.next(), encoder.next()) == (bytes(8), b"")
        decoder = pybao.Decoder(root, ranges)
        assert (decoder.needed, decoder.remaining, decoder.size) == (8, None, None)
        decoder.feed(bytes(8) + b"next")
        decoder.finish()
        assert (decoder.is_done, decoder.size_proven, decoder.proven) == (True, True, [0, 1])
        assert (decoder.take_pieces(), decoder.take_unused()) == ([], b"next")
    decoder = pybao.Decoder(EMPTY_ROOT, ALL, size=0, data_fd=target)
    decoder.finish()
    assert decoder.is_done
    assert pybao.valid_ranges(EMPTY_ROOT, 0, b"", b"") == [0, 1]
    assert pybao.valid_ranges(ROOT, 0, b"", b"") == []
    assert pybao.read_verified(EMPTY_ROOT, 0, b"", b"", 0, 10) == b""
    pybao.copy_verified(EMPTY_ROOT, 0, b"", b"", target)
    assert content(target) == b""


def test_a_claim_of_no_bytes_is_checked_against_the_root(target):
    decoder = pybao.Decoder(ROOT, ALL)
    with pytest.raises(pybao.DecodeError) as caught:
        decoder.feed(bytes(8))
    assert (caught.value.kind, caught.value.chunk) == ("leaf_hash_mismatch", 0)
    assert not decoder.is_done
    for call in (
        lambda: pybao.Decoder(ROOT, ALL, size=0).finish(),
        lambda: pybao.read_verified(ROOT, 0, b"", b"", 0, 1),
        lambda: pybao.copy_verified(ROOT, 0, b"", b"", target),
        lambda: pybao.Encoder(ROOT, 0, ALL, b"", b"", header=False).next(),
    ):
        with pytest.raises((pybao.DecodeError, pybao.EncodeError), match="leaf hash mismatch"):
            call()


def test_no_ranges():
    encoder = pybao.Encoder(ROOT, SIZE, [], DATA, PAIRS)
    assert (encoder.encoded_size, encoder.next(), encoder.next()) == (
        8,
        SIZE.to_bytes(8, "little"),
        b"",
    )
    decoder = pybao.Decoder(ROOT, [])
    decoder.feed(SIZE.to_bytes(8, "little") + b"next")
    decoder.finish()
    assert (decoder.is_done, decoder.size, decoder.size_proven) == (True, SIZE, False)
    assert (decoder.proven, decoder.take_unused()) == ([], b"next")
    known = pybao.Decoder(ROOT, [], size=SIZE)
    assert (known.is_done, known.needed, known.remaining) == (True, 0, 0)
    assert pybao.Encoder(ROOT, SIZE, [], DATA, PAIRS, header=False).next() == b""


@pytest.mark.parametrize(("claim", "size_max"), [(2**63, None), (2**64 - 1, 2**64 - 1), (11, 10)])
def test_impossible_sizes(claim, size_max):
    limit = {} if size_max is None else {"size_max": size_max}
    decoder = pybao.Decoder(ROOT, ALL, **limit)
    with pytest.raises(pybao.DecodeError) as caught:
        decoder.feed(claim.to_bytes(8, "little"))
    assert caught.value.kind == "size_invalid"
    assert decoder.size is None
    with pytest.raises(pybao.DecodeError, match="size invalid"):
        pybao.Decoder(ROOT, ALL, size=claim, **limit)


def test_a_huge_claim_with_many_ranges_costs_little():
    boundaries = list(range(0, 400_000, 2))
    decoder = pybao.Decoder(ROOT, boundaries)
    decoder.feed((2**63 - 1).to_bytes(8, "little"))
    assert decoder.needed == 64
    # All but the last level of a binary tree over the chunks asked for, and the way to it.
    remaining = decoder.remaining
    assert remaining is not None
    assert remaining > 200_000 * 1024
    with pytest.raises(pybao.DecodeError) as caught:
        decoder.feed(bytes(64))
    assert (caught.value.kind, caught.value.node) == ("parent_hash_mismatch", 2**52 - 1)


def test_the_last_chunk_proves_the_size():
    decoder = pybao.Decoder(ROOT, [2**64 - 1])
    decoder.feed(encoded([2**64 - 1]))
    decoder.finish()
    last = -(-SIZE // 1024)
    assert (decoder.size_proven, decoder.proven) == (True, [last - 1, last])
    other = pybao.Decoder(ROOT, [20, 21])
    other.feed(encoded([20, 21]))
    other.finish()
    assert (other.size_proven, other.proven) == (False, [20, 21])


@pytest.mark.parametrize("threads", [1, 2])
def test_cancelled_before_it_began(data_fd, target, threads):
    for call in (
        lambda p: pybao.outboard_fd(data_fd, SIZE, threads=threads, progress=p),
        lambda p: pybao.valid_ranges(ROOT, SIZE, DATA, PAIRS, threads=threads, progress=p),
        lambda p: pybao.copy_verified(ROOT, SIZE, DATA, PAIRS, target, progress=p),
    ):
        progress = pybao.Progress()
        call(progress)
        assert progress.done == SIZE
        progress = pybao.Progress()
        progress.cancel()
        with pytest.raises(pybao.Cancelled):
            call(progress)
        assert progress.done == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_cancelled_while_it_runs(tmp_path, threads):
    """A sparse file that would take far longer than any test; other threads go on meanwhile."""
    path = tmp_path / "sparse"
    with path.open("wb+") as file, (tmp_path / "outboard").open("wb") as out:
        file.truncate(1 << 42)
        progress = pybao.Progress()
        raised: list[BaseException] = []

        def work() -> None:
            try:
                pybao.outboard_fd(
                    file.fileno(),
                    1 << 42,
                    outboard_fd=out.fileno(),
                    threads=threads,
                    progress=progress,
                )
            except pybao.Cancelled as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while progress.done == 0:
            assert thread.is_alive()
        progress.cancel()
        thread.join()
    assert len(raised) == 1
    assert 0 < progress.done < 1 << 42


def test_other_threads_see_a_decoder_at_work():
    decoder = pybao.Decoder(ROOT, ALL)
    seen: list[int] = []

    def watch() -> None:
        while not decoder.is_done:
            remaining = decoder.remaining
            if remaining is not None:
                seen.append(remaining)

    watcher = threading.Thread(target=watch)
    watcher.start()
    stream = encoded()
    for start in range(0, len(stream), 10_000):
        decoder.feed(stream[start : start + 10_000])
    watcher.join()
    assert seen == sorted(seen, reverse=True)
    assert b"".join(piece for _, piece in decoder.take_pieces()) == DATA


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_threads_work_in_a_forked_child():
    """A child inherits the parent's pool but none of its threads, and once waited for them."""
    expected = pybao.outboard(DATA, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if pybao.outboard(DATA, threads=2) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pybao.outboard(DATA, threads=2) == expected


def test_errors_say_what_and_where():
    assert str(pybao.DecodeError("leaf_hash_mismatch", chunk=7)) == "leaf hash mismatch at chunk 7"
    assert str(pybao.EncodeError("size_mismatch")) == "size mismatch"
    for error in (pybao.DecodeError, pybao.EncodeError, pybao.FileShorter, pybao.Cancelled):
        assert issubclass(error, pybao.BaoError)
    wrong = pybao.Encoder(EMPTY_ROOT, SIZE, ALL, DATA, PAIRS, header=False)
    with pytest.raises(pybao.EncodeError) as caught:
        wrong.next()
    assert str(caught.value) == "parent hash mismatch at node 4095"
    assert (caught.value.node, caught.value.chunk) == (4095, None)
