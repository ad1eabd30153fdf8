"""A release of aioquic that is not what we know is named, before anything of it runs."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

from blobsync.transports.quic.guard import UnsupportedAioquicError, check_aioquic


def changed(module_name: str, class_name: str, **members: object):
    """Loads modules as they are, but with some members of one class replaced."""

    def load(name: str):
        module = importlib.import_module(name)
        if name != module_name:
            return module
        owner = getattr(module, class_name)
        return SimpleNamespace(
            **{**vars(module), class_name: type(class_name, (owner,), dict(members))}
        )

    return load


def test_the_installed_release_is_known():
    check_aioquic()


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (
            changed("aioquic.quic.connection", "QuicConnection", _initialize=None),
            "QuicConnection has no _initialize",
        ),
        (
            changed(
                "aioquic.quic.connection",
                "QuicConnection",
                _initialize=lambda self, peer_cid, more: None,
            ),
            "QuicConnection._initialize takes peer_cid, more",
        ),
        (
            changed("aioquic.tls", "Context", __init__=lambda self, is_client: None),
            "TLS context has no _certificate_request",
        ),
        (
            changed("aioquic.quic.connection", "QuicConnection", __init__=lambda self: None),
            "a connection cannot be made",
        ),
    ],
)
def test_a_moved_part_is_named(load, said: str):
    with pytest.raises(UnsupportedAioquicError, match=said) as caught:
        check_aioquic(load)
    assert "install aioquic>=" in str(caught.value)


def test_a_missing_module_is_named():
    def load(name: str):
        raise ImportError(name)

    with pytest.raises(UnsupportedAioquicError, match="there is no aioquic"):
        check_aioquic(load)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    from importlib.metadata import PackageNotFoundError

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("blobsync.transports.quic.guard.version", version)
    with pytest.raises(UnsupportedAioquicError, match="not installed"):
        check_aioquic()
