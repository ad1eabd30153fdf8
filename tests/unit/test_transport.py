"""Which transport is chosen, and what one without relays refuses."""

from __future__ import annotations

import sys

import pytest

from blobsync.network import NetworkOptions, OptionError, TransportName
from blobsync.protocols.blobs.python_pumps import PythonPumps
from blobsync.transport import MissingTransportError, choose_transport
from blobsync.transports.quic.guard import UnsupportedAioquicError
from tests.needs import iroh_transport


@pytest.fixture
def without_pyiroh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.split(".")[0] == "pyiroh" or name.endswith((".iroh_pumps", "transports.iroh")):
            monkeypatch.delitem(sys.modules, name)
    # A submodule that was imported before is also found in its package.
    monkeypatch.delattr("blobsync.transports.iroh", raising=False)
    monkeypatch.delattr("blobsync.protocols.blobs.iroh_pumps", raising=False)
    monkeypatch.setitem(sys.modules, "pyiroh", None)


def test_auto_is_iroh_where_it_is_installed():
    iroh_transport()
    assert choose_transport(TransportName.AUTO).name is TransportName.IROH


@pytest.mark.usefixtures("without_pyiroh")
def test_auto_is_aioquic_where_it_is_not():
    chosen = choose_transport(TransportName.AUTO)
    assert chosen.name is TransportName.AIOQUIC
    assert isinstance(chosen.make_pumps(), PythonPumps)
    with pytest.raises(MissingTransportError, match="--transport aioquic"):
        choose_transport(TransportName.IROH)


def test_an_unfit_aioquic_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aioquic.quic.connection.QuicConnection._initialize", None)
    with pytest.raises(UnsupportedAioquicError, match="_initialize"):
        choose_transport(TransportName.AIOQUIC)


def test_relays_of_a_transport_without_them():
    chosen = choose_transport(TransportName.AIOQUIC)
    relay = "https://relay.example/"
    assert chosen.relays(NetworkOptions(), if_unset=None) == ()
    assert chosen.relays(NetworkOptions(), if_unset=(relay,)) == ()
    assert chosen.relays(NetworkOptions(relay="disabled"), if_unset=None) == ()
    for asked in ("default", relay):
        with pytest.raises(OptionError, match="no relays"):
            chosen.relays(NetworkOptions(relay=asked), if_unset=())


async def test_the_same_secret_key_is_the_same_id():
    """Of both transports, and with the vector of iroh."""
    key = bytes(32)
    async with await choose_transport(TransportName.AIOQUIC).bind(secret_key=key) as ours:
        assert str(ours.id).startswith("3b6a27bcceb6a42d")
        iroh_transport()
        async with await choose_transport(TransportName.IROH).bind(secret_key=key) as theirs:
            assert theirs.id == ours.id
