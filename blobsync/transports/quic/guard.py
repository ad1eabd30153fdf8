"""Whether the installed aioquic is one that we know from inside.

The transport subclasses aioquic's connection and its TLS state, and uses what has no public name.
A release that moved any of it must not fail in the middle of a handshake, or worse, leave out
a check of a key: `check_aioquic` looks before anything is imported from it, and says what is wrong.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from blobsync.errors import BlobsyncError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WANTED = "aioquic>=1.7.0,<1.8"
"""The releases that the tests were run with."""

_CONNECTION = "aioquic.quic.connection"

# Where a method is overridden or called: its parameters after `self`.
METHODS: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    (_CONNECTION, "QuicConnection"): {
        "_alpn_handler": ("alpn_protocol",),
        "_get_or_create_stream_for_send": ("stream_id",),
        "_handle_ack_frame": ("context", "frame_type", "buf"),
        "_idle_timeout": (),
        "_initialize": ("peer_cid",),
        "_on_connection_limit_delivery": ("delivery", "limit"),
        "_on_max_stream_data_delivery": ("delivery", "stream"),
        "_parse_transport_parameters": ("data", "from_session_ticket"),
        "_payload_received": ("context", "plain", "crypto_frame_required"),
        "_update_traffic_key": ("direction", "epoch", "cipher_suite", "secret"),
        "_write_connection_limits": ("builder", "space"),
        "_write_stream_limits": ("builder", "space", "stream"),
        "close": ("error_code", "frame_type", "reason_phrase"),
        "datagrams_to_send": ("now",),
        "receive_datagram": ("data", "addr", "now"),
    },
    ("aioquic.tls", "Context"): {
        "_client_handle_certificate": ("input_buf",),
        "_server_handle_certificate": ("input_buf",),
        "_set_peer_certificate": ("certificate",),
        "_check_certificate_verify_signature": ("verify",),
    },
    ("aioquic.quic.packet_builder", "QuicPacketBuilder"): {
        "start_frame": ("frame_type", "capacity", "handler", "handler_args"),
        "start_packet": ("packet_type", "crypto"),
        "flush": (),
    },
    ("aioquic.quic.recovery", "QuicPacketPacer"): {
        "next_send_time": ("now",),
        "update_after_send": ("now",),
        "update_rate": ("congestion_window", "smoothed_rtt"),
    },
    ("aioquic.quic.crypto", "CryptoPair"): {
        "setup_initial": ("cid", "is_client", "version"),
    },
}

# What new objects have, by the name that `_make_parts` gives them.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "connection": (
        *("_ack_delay", "_ack_eliciting_sent_since_receipt", "_close_at", "_close_event"),
        *("_close_pending", "_cryptos", "_datagrams_pending", "_events", "_handshake_complete"),
        *("_handshake_confirmed", "_host_cid_seq", "_host_cids", "_is_client", "_local_max_data"),
        *("_local_max_streams_bidi", "_local_max_streams_uni", "_local_next_stream_id_bidi"),
        *("_loss", "_max_datagram_size", "_network_paths", "_packet_number", "_peer_cid"),
        *("_ping_pending", "_probe_pending", "_remote_max_data", "_remote_max_data_used"),
        *("_remote_max_datagram_frame_size", "_remote_max_streams_bidi", "_spaces", "_spin_bit"),
        *("_spin_highest_pn", "_state", "_streams", "_streams_queue", "_version"),
    ),
    "TLS context": (
        *("_certificate_request", "_peer_certificate", "_request_client_certificate"),
        *("_signature_algorithms", "_supported_groups", "alpn_cb", "certificate"),
        *("certificate_private_key", "handshake_extensions", "received_extensions"),
        "update_traffic_key_cb",
    ),
    "stream": (
        *("is_blocked", "max_stream_data_local", "max_stream_data_local_sent"),
        *("max_stream_data_remote", "receiver", "sender"),
    ),
    "stream receiver": (
        *("_buffer", "_buffer_start", "_final_size", "highest_offset", "is_finished"),
    ),
    "stream sender": (
        *("_buffer", "_buffer_start", "_buffer_stop", "_pending", "_reset_error_code"),
        *("buffer_is_empty", "highest_offset", "is_finished", "on_data_delivery"),
    ),
    "recovery": (
        *("_cc", "_pacer", "_pto_count", "_rtt_initialized", "_rtt_smoothed"),
        "_time_of_last_sent_ack_eliciting_packet",
    ),
    "congestion control": (
        *("_max_datagram_size", "additive_increase_factor", "bytes_in_flight"),
        "congestion_window",
    ),
    "packet space": (
        *("ack_at", "ack_eliciting_in_flight", "ack_queue", "expected_packet_number"),
        *("largest_received_packet", "largest_received_time", "received_packets"),
        "sent_packets",
    ),
    "keys": ("_update_key_requested", "recv", "send"),
    "AEAD": ("_aead", "_iv"),
    "header protection": ("_encryptor",),
}


class UnsupportedAioquicError(BlobsyncError):
    """aioquic is missing, or a release that this transport was not written for."""


def check_aioquic(load: Callable[[str], Any] = importlib.import_module) -> None:
    """Look for every part of aioquic that the transport relies on.

    Args:
        load: gives a module by its name.

    Raises:
        UnsupportedAioquicError: one of them is not there, or not as it was.
    """
    try:
        found = version("aioquic")
    except PackageNotFoundError as error:
        raise UnsupportedAioquicError(
            f"the aioquic transport needs {WANTED}, which is not installed"
        ) from error
    problem = _first_problem(load)
    if problem is not None:
        raise UnsupportedAioquicError(
            f"aioquic {found} is not one that this version of blobsync can use ({problem}):"
            f" install {WANTED}"
        )


def _first_problem(load: Callable[[str], Any]) -> str | None:
    for (module_name, class_name), methods in METHODS.items():
        try:
            owner = getattr(load(module_name), class_name)
        except (ImportError, AttributeError):
            return f"there is no {module_name}.{class_name}"
        for name, wanted in methods.items():
            method = inspect.getattr_static(owner, name, None)
            if not callable(method):
                return f"{class_name} has no {name}"
            parameters = tuple(inspect.signature(method).parameters)[1:]
            if parameters != wanted:
                return f"{class_name}.{name} takes {', '.join(parameters) or 'nothing'}"
    try:
        parts = _make_parts(load)
    except (ImportError, AttributeError, TypeError) as error:
        return f"a connection cannot be made: {error}"
    for part, names in ATTRIBUTES.items():
        for name in names:
            if not hasattr(parts[part], name):
                return f"{part} has no {name}"
    return None


def _make_parts(load: Callable[[str], Any]) -> dict[str, Any]:
    configuration = load("aioquic.quic.configuration").QuicConfiguration(
        is_client=True, congestion_control_algorithm="cubic"
    )
    connection = load(_CONNECTION).QuicConnection(configuration=configuration)
    stream = load("aioquic.quic.stream").QuicStream(stream_id=0)
    crypto = load("aioquic._crypto")
    return {
        "connection": connection,
        "TLS context": load("aioquic.tls").Context(is_client=True),
        "stream": stream,
        "stream receiver": stream.receiver,
        "stream sender": stream.sender,
        "recovery": connection._loss,
        "congestion control": connection._loss._cc,
        "packet space": load("aioquic.quic.recovery").QuicPacketSpace(),
        "keys": load("aioquic.quic.crypto").CryptoPair(),
        "AEAD": crypto.AEAD(b"aes-128-gcm", bytes(16), bytes(12)),
        "header protection": crypto.HeaderProtection(b"aes-128-ecb", bytes(16)),
    }
