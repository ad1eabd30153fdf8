"""The key of a home folder, and who may use it."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from blobsync.errors import ExitCode
from blobsync.identity import Identity, KeyFileError, load_key, public_id

if TYPE_CHECKING:
    from pathlib import Path


def test_a_key_is_made_once(tmp_path: Path):
    key = load_key(tmp_path)
    assert len(key) == 32
    assert load_key(tmp_path) == key
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_key_is_for_its_owner_alone(tmp_path: Path):
    load_key(tmp_path)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_key_is_text(tmp_path: Path):
    (tmp_path / "key").write_text("0f" * 32 + "\n")
    assert load_key(tmp_path) == b"\x0f" * 32


@pytest.mark.parametrize("content", [b"", b"\n", b"0f" * 31, b"0f" * 33, b"zz" * 32, b"\xff" * 64])
def test_what_is_no_key_is_left_alone(tmp_path: Path, content: bytes):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyFileError, match="does not hold a secret key") as caught:
        load_key(tmp_path)
    assert caught.value.exit_code == ExitCode.STORE
    assert (tmp_path / "key").read_bytes() == content


def test_many_at_once_make_one_key(tmp_path: Path):
    """Whoever loses the race takes the key of whoever won it."""
    start = threading.Barrier(8)
    keys: list[bytes] = []

    def load() -> None:
        start.wait()
        keys.append(load_key(tmp_path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_the_id_of_a_key():
    """The first of the test vectors of ed25519 in RFC 8032."""
    secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert public_id(bytes.fromhex(secret)).hex() == public


def test_one_process_at_a_time_has_the_key(tmp_path: Path):
    first = Identity.claim(tmp_path)
    second = Identity.claim(tmp_path)
    third = Identity.claim(tmp_path)
    try:
        assert not first.is_temporary
        assert first.secret_key == load_key(tmp_path)
        assert second.is_temporary
        assert len({first.secret_key, second.secret_key, third.secret_key}) == 3
    finally:
        first.release()
    fourth = Identity.claim(tmp_path)
    assert not fourth.is_temporary
    assert fourth.secret_key == first.secret_key
    for identity in (first, second, third, fourth):
        identity.release()
        identity.release()


def test_a_released_identity_frees_no_descriptor_twice(tmp_path: Path):
    identity = Identity.claim(tmp_path)
    identity.release()
    fd = os.open(tmp_path / "key", os.O_RDONLY)
    try:
        identity.release()
        os.fstat(fd)
    finally:
        os.close(fd)


def test_the_port_is_kept(tmp_path: Path):
    first = Identity.claim(tmp_path)
    assert first.last_port() == 0
    first.keep_port(50_000)
    first.release()
    second = Identity.claim(tmp_path)
    assert second.last_port() == 50_000
    second.release()


def test_a_temporary_identity_leaves_the_port_alone(tmp_path: Path):
    first = Identity.claim(tmp_path)
    first.keep_port(50_000)
    second = Identity.claim(tmp_path)
    second.keep_port(50_001)
    assert second.last_port() == 0
    assert first.last_port() == 50_000
    first.release()


@pytest.mark.parametrize("content", [b"", b"no", b"-1", b"0", b"65536", b"9" * 5000, b"\xff\xfe"])
def test_a_port_that_is_none_is_forgotten(tmp_path: Path, content: bytes):
    identity = Identity.claim(tmp_path)
    (tmp_path / "port").write_bytes(content)
    assert identity.last_port() == 0
    identity.keep_port(1234)
    assert identity.last_port() == 1234
    identity.release()
