"""Keys, ids, addresses and tickets: their bytes, texts and refusals."""

import base64

import pytest

from pyiroh import EndpointAddr, EndpointId, EndpointTicket, RelayConfig, SecretKey

ZERO_SEED_ID = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
ZERO_SEED_BASE32 = "hnvcppgow2sc2yvdvdicu3ynonsteflxdxrehjr2ybekdc2z3iuq"
ZERO_SEED_Z32 = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo"
KEY = SecretKey.from_bytes(b"\x2a" * 32)

TICKET_ID = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6"
TICKET = (
    "endpointacxfr74igmsbvsbnn73wcecg5vt3kbzncqwfrdiampuufwnhkublmayacbuhi5dqhixs6zdfojyc43lffyxqca"
    "d7aaaadaaiaeaqaaaaaaaaaaaaaaaaaaaaaaaacua"
)

P = 2**255 - 19
WEAK_POINTS = [
    *(y.to_bytes(32, "little") for y in (0, 1, P - 1, P, P + 1)),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
]


def with_sign(key: bytes) -> bytes:
    return key[:31] + bytes([key[31] | 0x80])


def test_public_key_of_a_seed_is_the_published_one():
    assert str(SecretKey.from_bytes(bytes(32)).public()) == ZERO_SEED_ID
    assert str(KEY.public()) == "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"
    assert KEY.public().z32() == "df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstioo"


@pytest.mark.parametrize("text", [ZERO_SEED_ID, ZERO_SEED_BASE32, ZERO_SEED_BASE32.upper()])
def test_id_is_read_from_hex_and_base32(text: str):
    key = EndpointId.from_text(text)
    assert str(key) == ZERO_SEED_ID
    assert key.short() == ZERO_SEED_ID[:10]
    assert key.z32() == ZERO_SEED_Z32
    assert bytes(key) == key.to_bytes() == bytes.fromhex(ZERO_SEED_ID)
    assert EndpointId.from_bytes(bytes(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ZERO_SEED_ID.upper(),
        ZERO_SEED_ID[:-1],
        ZERO_SEED_ID + "0",
        ZERO_SEED_BASE32 + "====",
        "g" * 64,
        "1" * 52,
    ],
)
def test_other_texts_are_no_id(text: str):
    with pytest.raises(ValueError, match="not an endpoint id"):
        EndpointId.from_text(text)


@pytest.mark.parametrize("key", [*WEAK_POINTS, *map(with_sign, WEAK_POINTS)])
def test_weak_keys_are_refused_in_every_form(key: bytes):
    with pytest.raises(ValueError, match=r"weak|not an Ed25519"):
        EndpointId.from_bytes(key)
    with pytest.raises(ValueError, match=r"weak|not an endpoint id"):
        EndpointId.from_text(key.hex())
    ticket = base64.b32encode(b"\0" + key + b"\0").decode().rstrip("=").lower()
    with pytest.raises(ValueError, match=r"weak|not an endpoint ticket"):
        EndpointTicket.from_text("endpoint" + ticket)


def test_bytes_that_are_no_curve_point_are_refused():
    with pytest.raises(ValueError, match="not an Ed25519 public key"):
        EndpointId.from_bytes(b"\x02" + bytes(31))
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 bytes"):
            EndpointId.from_bytes(wrong)
        with pytest.raises(ValueError, match="32 bytes"):
            SecretKey.from_bytes(wrong)


def test_signatures():
    signature = KEY.sign(b"message")
    assert len(signature) == 64
    assert KEY.public().verify(b"message", signature)
    assert not KEY.public().verify(b"massage", signature)
    assert not SecretKey.generate().public().verify(b"message", signature)
    assert not KEY.public().verify(b"message", signature[:-1])


def test_secret_key_round_trip_and_repr_hides_it():
    key = SecretKey.generate()
    again = SecretKey.from_bytes(key.to_bytes())
    assert again == key
    assert hash(again) == hash(key)
    assert key != KEY
    assert key.to_bytes().hex() not in repr(key)
    assert key.to_bytes().hex() not in str(key)


def test_ids_are_ordered_hashable_values():
    keys = [SecretKey.from_bytes(bytes([n]) * 32).public() for n in range(20)]
    assert [bytes(key) for key in sorted(keys)] == sorted(bytes(key) for key in keys)
    assert len({*keys, *(EndpointId.from_bytes(bytes(key)) for key in keys)}) == 20
    assert keys[0] != "text"


def test_addr_normalises_sorts_and_compares():
    key = KEY.public()
    addr = EndpointAddr(
        key,
        ["https://relay.example", "http://derp.me./"],
        ["[::1]:80", "10.0.0.2:5", "10.0.0.1:5", "10.0.0.1:5"],
    )
    assert addr.id == key
    assert addr.relay_urls == ("http://derp.me./", "https://relay.example/")
    assert addr.ip_addrs == ("10.0.0.1:5", "10.0.0.2:5", "[::1]:80")
    same = EndpointAddr(key, addr.relay_urls, addr.ip_addrs)
    assert same == addr
    assert hash(same) == hash(addr)
    assert EndpointAddr(key) != addr
    assert EndpointAddr(key).ip_addrs == ()


@pytest.mark.parametrize("wrong", ["", "localhost:5", "10.0.0.1", "10.0.0.1:70000", "::1:80"])
def test_addr_refuses_what_is_no_socket_address(wrong: str):
    with pytest.raises(ValueError, match="not an ip:port address"):
        EndpointAddr(KEY.public(), ip_addrs=[wrong])


@pytest.mark.parametrize("wrong", ["", "relay.example", "ftp://relay.example", "http://"])
def test_relay_urls_that_cannot_be_are_refused(wrong: str):
    with pytest.raises(ValueError, match="not a relay URL"):
        EndpointAddr(KEY.public(), relay_urls=[wrong])
    with pytest.raises(ValueError, match="not a relay URL"):
        RelayConfig(wrong)


def test_relay_config_shows_its_url_and_hides_its_token():
    config = RelayConfig("https://relay.example", token="secret", quic_port=1234)
    assert config.url == "https://relay.example/"
    assert "secret" not in repr(config)


def test_ticket_is_the_published_one():
    ticket = EndpointTicket.from_text(TICKET)
    addr = EndpointAddr(
        EndpointId.from_text(TICKET_ID), ["http://derp.me./"], ["127.0.0.1:1024", "[::1]:80"]
    )
    assert ticket.addr == addr
    assert str(EndpointTicket(addr)) == TICKET
    assert ticket == EndpointTicket(addr)
    assert hash(ticket) == hash(EndpointTicket(addr))
    assert EndpointTicket.from_text("endpoint" + TICKET[8:].upper()) == ticket


@pytest.mark.parametrize("wrong", ["", "endpoint", "blob" + TICKET[8:], TICKET[:-20], TICKET + "!"])
def test_other_texts_are_no_ticket(wrong: str):
    with pytest.raises(ValueError, match="not an endpoint ticket"):
        EndpointTicket.from_text(wrong)
