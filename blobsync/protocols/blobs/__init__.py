"""The blobs protocol (`/iroh-bytes/4`): serve and fetch verified blobs over a connection."""

from blobsync.protocols.blobs.downloader import Peer, get_elements
from blobsync.protocols.blobs.getter import BlobSink, GetProgress
from blobsync.protocols.blobs.heads import (
    decode_collection,
    decode_names,
    get_collection_head,
    get_sizes,
)
from blobsync.protocols.blobs.provider import Provider, ProviderCounters, SharedBlobs
from blobsync.protocols.blobs.pumps import Element, Pumps, WholeBlob, WholeBlobs
from blobsync.protocols.blobs.ranges import read_range

ALPN = b"/iroh-bytes/4"

__all__ = [
    "ALPN",
    "BlobSink",
    "Element",
    "GetProgress",
    "Peer",
    "Provider",
    "ProviderCounters",
    "Pumps",
    "SharedBlobs",
    "WholeBlob",
    "WholeBlobs",
    "decode_collection",
    "decode_names",
    "get_collection_head",
    "get_elements",
    "get_sizes",
    "read_range",
]
