"""Messages of the peers: bytes in, values out, and back. No sockets, no clock, no event loop."""

from blobsync.wire.codes import (
    CloseCode,
    StreamCode,
    error_of_close,
    error_of_reset,
    reset_of_error,
)
from blobsync.wire.get_response import (
    BlobData,
    BlobEnd,
    BlobHeader,
    BlobPairs,
    GetEvent,
    GetResponseReader,
    GetResponseWriter,
    ResponseEnd,
)
from blobsync.wire.missing import missing
from blobsync.wire.observe import Observation, ObservationReader, encode_observation
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import (
    PUSH_KIND,
    REQUEST_SIZE_MAX,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    Request,
    RequestKind,
    decode_request,
    encode_request,
    push_header_size,
    split_request,
)
from blobsync.wire.ticket import BlobTicket

__all__ = [
    "PUSH_KIND",
    "REQUEST_SIZE_MAX",
    "BlobData",
    "BlobEnd",
    "BlobHeader",
    "BlobPairs",
    "BlobTicket",
    "ChunkRangesSeq",
    "CloseCode",
    "GetEvent",
    "GetManyRequest",
    "GetRequest",
    "GetResponseReader",
    "GetResponseWriter",
    "Observation",
    "ObservationReader",
    "ObserveRequest",
    "PushRequest",
    "Request",
    "RequestKind",
    "ResponseEnd",
    "StreamCode",
    "decode_request",
    "encode_observation",
    "encode_request",
    "error_of_close",
    "error_of_reset",
    "missing",
    "push_header_size",
    "reset_of_error",
    "split_request",
]
