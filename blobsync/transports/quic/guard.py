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

WANTED = "aioquic>=1.7.2,<1.8"
"""The releases that the tests were run with."""

_CONNECTION = "aioquic.quic.connection"

# Where a method is overridden or called: its parameters after `self`.
METHODS: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    (_CONNECTION, "QuicConnection"): {
        "_alpn_handler": ("alpn_protocol",),
        "_get_or_create_stream_for_send": ("stream_id",),
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

# What a new connection has.
CONNECTION_ATTRIBUTES = (
    *(
        "_close_event",
        "_cryptos",
        "_datagrams_pending",
        "_events",
        "_handshake_complete",
        "_handshake_confirmed",
    ),
    *("_host_cid_seq", "_host_cids", "_is_client", "_local_max_data", "_local_max_streams_bidi"),
    *("_local_max_streams_uni", "_local_next_stream_id_bidi", "_loss", "_max_datagram_size"),
    *("_network_paths", "_packet_number", "_ping_pending", "_remote_max_datagram_frame_size"),
    *("_remote_max_streams_bidi", "_state", "_streams"),
)
STREAM_ATTRIBUTES = ("max_stream_data_local", "max_stream_data_local_sent", "receiver", "sender")
CONTEXT_ATTRIBUTES = (
    *("_certificate_request", "_peer_certificate", "_request_client_certificate"),
    *("_signature_algorithms", "_supported_groups", "alpn_cb", "certificate"),
    *("certificate_private_key", "handshake_extensions", "received_extensions"),
    "update_traffic_key_cb",
)


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
        configuration = load("aioquic.quic.configuration").QuicConfiguration(is_client=True)
        made = {
            CONNECTION_ATTRIBUTES: load(_CONNECTION).QuicConnection(configuration=configuration),
            CONTEXT_ATTRIBUTES: load("aioquic.tls").Context(is_client=True),
            STREAM_ATTRIBUTES: load("aioquic.quic.stream").QuicStream(stream_id=0),
        }
    except (ImportError, AttributeError, TypeError) as error:
        return f"a connection cannot be made: {error}"
    for names, instance in made.items():
        for name in names:
            if not hasattr(instance, name):
                return f"{type(instance).__name__} has no {name}"
    return None
