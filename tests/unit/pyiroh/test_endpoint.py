"""Binding, dialling, accepting, refusing, closing."""

from __future__ import annotations

import asyncio
import socket

import pytest

import pyiroh
from pyiroh import Endpoint, EndpointAddr, RelayConfig, SecretKey, TransportConfig
from tests.unit.pyiroh.ends import ALPN, Ends, bind, connect

# The other end of a time limit that must pass: long enough for a busy machine to do other things.
SHORT_S = 0.2


@pytest.fixture
def silent_port() -> int:
    """A UDP port where nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_loopback_only_has_only_loopback_sockets():
    async with await bind() as endpoint:
        (sock,) = endpoint.bound_sockets()
        assert sock.startswith("127.0.0.1:")
        assert not sock.endswith(":0")
        assert endpoint.addr() == EndpointAddr(endpoint.id, ip_addrs=[sock])


async def test_each_family_is_bound_as_told():
    async with await Endpoint.bind(bind_ipv4=None, bind_ipv6="[::1]:0") as endpoint:
        (sock,) = endpoint.bound_sockets()
        assert sock.startswith("[::1]:")
    async with await Endpoint.bind(bind_ipv4="127.0.0.1:0", bind_ipv6="[::1]:0") as endpoint:
        assert {sock.rpartition(":")[0] for sock in endpoint.bound_sockets()} == {
            "127.0.0.1",
            "[::1]",
        }


async def test_without_sockets_there_is_no_address():
    async with await Endpoint.bind(bind_ipv4=None, bind_ipv6=None, relays=[]) as endpoint:
        assert endpoint.bound_sockets() == ()
        assert endpoint.addr() == EndpointAddr(endpoint.id)


async def test_bound_twice_names_the_reason():
    async with await bind() as endpoint:
        (sock,) = endpoint.bound_sockets()
        with pytest.raises(pyiroh.BindError, match="in use") as caught:
            await Endpoint.bind(bind_ipv4=sock, bind_ipv6=None)
        assert "/" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"bind_ipv4": "[::1]:0"},
        {"bind_ipv6": "127.0.0.1:0"},
        {"bind_ipv4": "localhost:0"},
        {"relays": "some"},
        {"discovery": "dns"},
        {"external_addrs": ["1.2.3.4"]},
    ],
)
async def test_arguments_that_cannot_be_right(options: dict[str, object]):
    with pytest.raises(ValueError, match=r"address|relays|discovery"):
        Endpoint.bind(**options)  # type: ignore[arg-type] # wrong on purpose


async def test_identity_is_that_of_the_key():
    key = SecretKey.generate()
    async with await Endpoint.bind(
        secret_key=key, bind_ipv4="127.0.0.1:0", bind_ipv6=None
    ) as endpoint:
        assert endpoint.id == key.public()
    async with await bind() as one, await bind() as two:
        assert one.id != two.id


async def test_who_is_who(ends: Ends):
    assert ends.dialled.remote_id == ends.accepting.id
    assert ends.accepted.remote_id == ends.dialling.id
    assert ends.dialled.alpn == ends.accepted.alpn == ALPN
    assert (ends.dialled.side, ends.accepted.side) == ("client", "server")


async def test_ipv6_works_too():
    async with (
        await Endpoint.bind(alpns=[ALPN], bind_ipv4=None, bind_ipv6="[::1]:0") as one,
        await Endpoint.bind(alpns=[ALPN], bind_ipv4=None, bind_ipv6="[::1]:0") as two,
    ):
        dialled, _accepted = await connect(one, two)
        (path,) = dialled.paths()
        assert path.remote_addr == two.bound_sockets()[0]


async def test_incoming_is_known_before_the_handshake():
    async with await bind(alpns=[b"a/1", ALPN]) as accepting, await bind() as dialling:
        dial = asyncio.ensure_future(dialling.connect(accepting.addr(), ALPN))
        incoming = await accepting.accept()
        assert incoming is not None
        assert incoming.remote_kind == "ip"
        assert incoming.remote_addr == dialling.bound_sockets()[0]
        assert incoming.remote_id is None
        assert incoming.alpns == (ALPN,)
        assert not incoming.is_validated
        connection = await incoming.accept()
        assert connection.alpn == ALPN
        await dial
        for decide in (incoming.accept, incoming.refuse, incoming.ignore, incoming.retry):
            with pytest.raises(pyiroh.IrohError, match="already decided"):
                decide()


async def test_refused():
    async with await bind() as accepting, await bind() as dialling:
        dial = asyncio.ensure_future(dialling.connect(accepting.addr(), ALPN))
        incoming = await accepting.accept()
        assert incoming is not None
        incoming.refuse()
        with pytest.raises(pyiroh.ConnectRefused):
            await dial


async def test_dropped_undecided_is_refused():
    async with await bind() as accepting, await bind() as dialling:
        dial = asyncio.ensure_future(dialling.connect(accepting.addr(), ALPN))
        assert await accepting.accept() is not None
        with pytest.raises(pyiroh.ConnectRefused):
            await dial


async def test_retry_validates_the_address():
    async with await bind() as accepting, await bind() as dialling:
        dial = asyncio.ensure_future(dialling.connect(accepting.addr(), ALPN))
        first = await accepting.accept()
        assert first is not None
        first.retry()
        second = await accepting.accept()
        assert second is not None
        assert second.is_validated
        with pytest.raises(ValueError, match="proven already"):
            second.retry()
        await second.accept()
        await dial


async def test_ignored_times_out():
    async with await bind() as accepting, await bind() as dialling:
        dial = asyncio.ensure_future(dialling.connect(accepting.addr(), ALPN, timeout_s=SHORT_S))
        incoming = await accepting.accept()
        assert incoming is not None
        incoming.ignore()
        with pytest.raises(pyiroh.ConnectTimedOut):
            await dial


async def test_silent_port_times_out(silent_port: int):
    async with await bind() as endpoint:
        nobody = EndpointAddr(SecretKey.generate().public(), ip_addrs=[f"127.0.0.1:{silent_port}"])
        with pytest.raises(pyiroh.ConnectTimedOut) as caught:
            await endpoint.connect(nobody, ALPN, timeout_s=SHORT_S)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, pyiroh.ConnectError)
        assert "/" not in str(caught.value)


async def test_idle_time_ends_a_dial_without_time_limit(silent_port: int):
    hasty = TransportConfig(idle_timeout_s=SHORT_S)
    async with await bind() as endpoint:
        nobody = EndpointAddr(SecretKey.generate().public(), ip_addrs=[f"127.0.0.1:{silent_port}"])
        with pytest.raises(pyiroh.ConnectTimedOut):
            await endpoint.connect(nobody, ALPN, transport=hasty)


async def test_no_addresses():
    async with await bind() as endpoint:
        with pytest.raises(pyiroh.NoAddresses) as caught:
            await endpoint.connect(SecretKey.generate().public(), ALPN)
        assert "/" not in str(caught.value)


async def test_no_common_protocol_is_told_to_both():
    async with await bind() as accepting, await bind() as dialling:
        dial = asyncio.ensure_future(dialling.connect(accepting.addr(), b"other/0"))
        incoming = await accepting.accept()
        assert incoming is not None
        assert incoming.alpns == (b"other/0",)
        with pytest.raises(pyiroh.NoCommonAlpn):
            await incoming.accept()
        with pytest.raises(pyiroh.NoCommonAlpn):
            await dial


async def test_another_key_than_dialled_fails_the_handshake():
    async with await bind() as accepting, await bind() as dialling:
        wrong = EndpointAddr(SecretKey.generate().public(), ip_addrs=accepting.bound_sockets())
        dial = asyncio.ensure_future(dialling.connect(wrong, ALPN))
        incoming = await accepting.accept()
        assert incoming is not None
        with pytest.raises(pyiroh.HandshakeFailed):
            await incoming.accept()
        with pytest.raises(pyiroh.HandshakeFailed) as caught:
            await dial
        assert caught.value.code is not None
        assert "/" not in str(caught.value)


async def test_oneself_cannot_be_dialled():
    async with await bind() as endpoint:
        with pytest.raises(pyiroh.SelfConnect):
            await endpoint.connect(endpoint.addr(), ALPN)


async def test_empty_alpn_is_a_value_error():
    async with await bind() as one, await bind() as two:
        with pytest.raises(ValueError, match="ALPN"):
            await one.connect(two.addr(), b"")
        with pytest.raises(TypeError):
            one.connect("text", ALPN)  # type: ignore[arg-type] # wrong on purpose


async def test_alpns_can_change():
    async with await bind(alpns=[]) as accepting, await bind() as dialling:
        accepting.set_alpns([ALPN])
        await connect(dialling, accepting)


async def test_accept_after_close_is_none_and_wakes_who_waits():
    endpoint = await bind()
    waiting = asyncio.ensure_future(endpoint.accept())
    closed = asyncio.ensure_future(endpoint.closed())
    await asyncio.sleep(0)
    assert not endpoint.is_closed
    await endpoint.close()
    assert await waiting is None
    assert await endpoint.accept() is None
    await closed
    assert endpoint.is_closed
    await endpoint.close()


async def test_closed_endpoint_dials_no_more():
    async with await bind() as other:
        endpoint = await bind()
        key = endpoint.id
        await endpoint.close()
        with pytest.raises(pyiroh.EndpointClosed):
            await endpoint.connect(other.addr(), ALPN)
        with pytest.raises(pyiroh.EndpointClosed):
            await endpoint.online(SHORT_S)
        assert endpoint.id == key
        assert endpoint.addr() == EndpointAddr(key)
        assert endpoint.bound_sockets() == ()
        assert endpoint.metrics() == {}
        assert [addr async for addr in endpoint.watch_addr()] == []
        await endpoint.closed()


async def test_closing_the_endpoint_tells_the_peer(ends: Ends):
    await ends.dialling.close()
    reason = await ends.accepted.closed()
    assert isinstance(reason, pyiroh.ConnectionClosedByPeer)
    assert reason.code == 0
    assert isinstance(await ends.dialled.closed(), pyiroh.LocallyClosed)


async def test_leaving_the_context_closes_also_after_an_error():
    with pytest.raises(KeyError):
        async with await bind() as endpoint:
            raise KeyError
    assert endpoint.is_closed


async def test_watch_addr_begins_with_the_present_and_ends_with_the_endpoint():
    endpoint = await bind()
    watcher = endpoint.watch_addr()
    assert await anext(watcher) == endpoint.addr()
    await endpoint.add_external_addr("192.0.2.1:7")
    async for addr in watcher:
        if "192.0.2.1:7" in addr.ip_addrs:
            break
    assert await endpoint.remove_external_addr("192.0.2.1:7")
    assert not await endpoint.remove_external_addr("192.0.2.1:7")
    rest = asyncio.ensure_future(collect(watcher))
    await endpoint.close()
    await rest


async def collect(watcher: pyiroh.AddrWatcher) -> list[EndpointAddr]:
    return [addr async for addr in watcher]


async def test_external_addrs_are_part_of_the_address():
    async with await Endpoint.bind(
        bind_ipv4="127.0.0.1:0", bind_ipv6=None, external_addrs=["192.0.2.7:99"]
    ) as endpoint:
        assert "192.0.2.7:99" in endpoint.addr().ip_addrs


async def test_online_without_relays_times_out():
    async with await bind() as endpoint:
        with pytest.raises(pyiroh.NotOnline) as caught:
            await endpoint.online(SHORT_S)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.denied is None
        assert endpoint.home_relays() == []


async def test_online_ends_when_the_endpoint_closes():
    endpoint = await bind()
    online = asyncio.ensure_future(endpoint.online(60))
    await asyncio.sleep(0)
    await endpoint.close()
    with pytest.raises(pyiroh.EndpointClosed):
        await online


async def test_relays_come_and_go():
    async with await Endpoint.bind(bind_ipv4="127.0.0.1:0", bind_ipv6=None, relays=[]) as endpoint:
        with socket.socket() as closed_port:
            closed_port.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed_port.getsockname()[1]}/"
            await endpoint.insert_relay(RelayConfig(url))
            assert await endpoint.remove_relay(url)
            assert not await endpoint.remove_relay(url)


async def test_metrics_are_named_numbers(ends: Ends):
    metrics = ends.dialling.metrics()
    assert metrics["socket:num_conns_opened"] == 1
    assert all(isinstance(value, int) for value in metrics.values())


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
async def test_times_that_cannot_be(wrong: float):
    async with await bind() as endpoint:
        with pytest.raises(ValueError, match="timeout_s"):
            endpoint.online(wrong)
        with pytest.raises(ValueError, match="timeout_s"):
            endpoint.close(wrong)
