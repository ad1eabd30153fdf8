"""Endpoint ids, addresses and relay URLs: text forms and what is refused."""

import base64
import json
import pickle
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from nacl.bindings import crypto_core_ed25519_is_valid_point

from blobsync.address import EndpointAddr, EndpointId, RelayUrl, SocketAddr
from blobsync.identity import public_id

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/tickets.json").read_text())
ID_TEXT = "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"
ID = EndpointId.from_text(ID_TEXT)
ID_BASE32 = base64.b32encode(ID).decode().rstrip("=").lower()


@pytest.mark.parametrize("case", VECTORS["tickets"], ids=lambda case: case["name"])
def test_ids_of_the_rust_peer(case):
    id = EndpointId.from_text(case["endpoint_id"])
    assert str(id) == case["endpoint_id"]
    assert id == bytes.fromhex(case["endpoint_id"])


def test_id_text_forms():
    assert EndpointId.from_text(ID_BASE32) == ID
    assert EndpointId.from_text(ID_BASE32.upper()) == ID
    assert f"{ID}" == ID_TEXT
    assert ID.short() == ID_TEXT[:10]
    assert repr(ID) == f"EndpointId({ID_TEXT})"
    assert isinstance(pickle.loads(pickle.dumps(ID)), EndpointId)


def test_text_forms_of_the_zero_key():
    """Vectors of iroh for the secret key of 32 zero bytes."""
    id = public_id(bytes(32))
    assert str(id) == "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
    assert id.base32() == "hnvcppgow2sc2yvdvdicu3ynonsteflxdxrehjr2ybekdc2z3iuq"
    assert id.z32() == "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo"
    assert id.short() == "3b6a27bcce"
    assert EndpointId.from_text(id.base32()) == id


# Order 1, 2, 4 and 8, some not reduced; each also with the bit of the sign.
WEAK = [
    bytes(32),
    b"\x01" + bytes(31),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    b"\xed" + b"\xff" * 30 + b"\x7f",
    b"\xee" + b"\xff" * 30 + b"\x7f",
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
]


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", WEAK, ids=lambda point: point.hex()[:8])
def test_weak_ids(point: bytes, sign: int):
    id = EndpointId(point[:31] + bytes([point[31] | sign]))
    assert id.is_weak
    assert not crypto_core_ed25519_is_valid_point(bytes(id))


def test_ids_of_keys_are_not_weak():
    assert not ID.is_weak
    assert not any(public_id(bytes([i]) * 32).is_weak for i in range(50))


@pytest.mark.parametrize(
    "text",
    [
        ID_TEXT.upper(),
        ID_TEXT[:-1],
        ID_TEXT[:-1] + "x",
        ID_BASE32[:-1],
        ID_BASE32[:-1] + "1",
        ID_BASE32[:-1] + "=",
        ID_BASE32[:-1] + chr(ord(ID_BASE32[-1]) + 1),
        "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstioo",  # z32 is for DNS names only
        "",
    ],
)
def test_refused_id_texts(text: str):
    with pytest.raises(ValueError, match="endpoint id"):
        EndpointId.from_text(text)


@pytest.mark.parametrize(
    ("key", "is_point"),
    [
        (b"\xff" * 32, True),  # y is not reduced, and stands for 18
        (b"\x01" + bytes(31), True),  # the neutral element
        (b"\x01" + bytes(30) + b"\x80", True),  # its x is 0, with a sign all the same
        (bytes(32), True),  # y = 0, a point of order 4
        (b"\x02" + bytes(31), False),
        (b"\x02" + bytes(30) + b"\x80", False),
    ],
)
def test_an_id_is_a_curve_point(key: bytes, is_point: bool):
    if is_point:
        assert EndpointId(key) == key
    else:
        with pytest.raises(ValueError, match="point"):
            EndpointId(key)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_an_id_has_32_bytes(size: int):
    with pytest.raises(ValueError, match="32 bytes"):
        EndpointId(bytes(size))


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("1.2.3.4:5", IPv4Address("1.2.3.4"), 5),
        ("0.0.0.0:0", IPv4Address(0), 0),
        ("[::1]:65535", IPv6Address("::1"), 65535),
        ("[2001:db8::1]:443", IPv6Address("2001:db8::1"), 443),
        ("[::ffff:10.0.0.1]:80", IPv6Address("::ffff:10.0.0.1"), 80),
    ],
)
def test_socket_addr_text(text: str, ip, port: int):
    addr = SocketAddr.from_text(text)
    assert addr == SocketAddr(ip, port)
    assert str(addr) == text


def test_the_scope_of_an_address_is_dropped():
    assert str(SocketAddr.from_text("[fe80::1%3]:5000")) == "[fe80::1]:5000"
    assert SocketAddr(IPv6Address("fe80::1%eth0"), 1) == SocketAddr(IPv6Address("fe80::1"), 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4:٣",
        "1.2.3:5",
        "01.2.3.4:5",
        "::1:5",
        "[::1]",
        "[::1]5",
        "[1.2.3.4]:5",
        "[::1]:5 ",
        "localhost:5",
        "1.2.3.4:5\n",
    ],
)
def test_refused_socket_addrs(text: str):
    with pytest.raises(ValueError, match=r".+"):
        SocketAddr.from_text(text)


@pytest.mark.parametrize("port", [-1, 65536])
def test_refused_ports(port: int):
    with pytest.raises(ValueError, match="port"):
        SocketAddr(IPv4Address("1.2.3.4"), port)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://relay.example.org", "https://relay.example.org/"),
        ("HTTPS://Relay.Example.Org:443/", "https://relay.example.org/"),
        ("http://relay.example.org:80", "http://relay.example.org/"),
        ("http://relay.example.org:443", "http://relay.example.org:443/"),
        ("https://relay.example.org.:8443/x", "https://relay.example.org.:8443/x"),
        ("https://euw1-1.relay.example.com./", "https://euw1-1.relay.example.com./"),
        ("http://[::0:1]:80/a?b=c#d", "http://[::1]/a?b=c#d"),
        ("https://10.0.0.1:7/A", "https://10.0.0.1:7/A"),
    ],
)
def test_relay_urls_are_normalised(text: str, normal: str):
    assert RelayUrl(text) == normal
    assert RelayUrl(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relay.example.org",
        "//relay.example.org/",
        "ftp://relay.example.org/",
        "https:///path",
        "https://",
        "https://user@relay.example.org/",
        "https://user:word@relay.example.org/",
        "https://relay.example.org:99999/",
        "https://relay.example.org:x/",
        "https://relay.exa mple.org/",
        "https://relay.example.org/\n",
        "https://relay.example.org\\@evil.example/",
        "https://rel%61y.example.org/",
        "https://rélay.example.org/",
        "https://[::1%25eth0]/",
        "https://[v1.a]/",
        "https://[1.2.3.4]/",
        "https://relay.example.org/" + "x" * 2048,
    ],
)
def test_refused_relay_urls(text: str):
    with pytest.raises(ValueError, match=r".+"):
        RelayUrl(text)


def test_an_endpoint_addr_is_sorted_and_has_no_duplicates():
    texts = ["[::1]:2", "10.0.0.2:1", "9.0.0.1:9", "10.0.0.2:1", "[::1]:1", "9.0.0.1:10"]
    addr = EndpointAddr(
        ID,
        (
            RelayUrl("https://b.example"),
            RelayUrl("https://a.example"),
            RelayUrl("https://b.example/"),
        ),
        tuple(SocketAddr.from_text(text) for text in texts),
    )
    assert addr.relay_urls == ("https://a.example/", "https://b.example/")
    assert [str(each) for each in addr.ip_addrs] == [
        "9.0.0.1:9",
        "9.0.0.1:10",
        "10.0.0.2:1",
        "[::1]:1",
        "[::1]:2",
    ]
    assert addr == EndpointAddr(ID, addr.relay_urls[::-1], addr.ip_addrs[::-1])
    assert hash(addr) == hash(EndpointAddr(ID, addr.relay_urls, addr.ip_addrs))
