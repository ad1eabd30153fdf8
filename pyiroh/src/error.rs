//! Every error of this crate, and its Python class.
//!
//! Texts are made here from codes and reasons, never from a debug form or a chain of sources:
//! those name files of the machine that built us.

use iroh::endpoint::{
    ConnectError, ConnectWithOptsError, ConnectingError, ConnectionError, QuicConnectError,
    ReadError, SendDatagramError, StoppedError, TransportErrorCode, WriteError,
};
use pybao::{
    decode::{DecodeError, Place},
    encode::EncodeError,
};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    import_exception,
    prelude::*,
    types::PyBytes,
};

mod python {
    use super::import_exception;

    import_exception!(pyiroh.errors, BindError);
    import_exception!(pyiroh.errors, ConnectClosedByPeer);
    import_exception!(pyiroh.errors, ConnectRefused);
    import_exception!(pyiroh.errors, ConnectTimedOut);
    import_exception!(pyiroh.errors, ConnectionAborted);
    import_exception!(pyiroh.errors, ConnectionClosedByPeer);
    import_exception!(pyiroh.errors, ConnectionReset);
    import_exception!(pyiroh.errors, ConnectionTimedOut);
    import_exception!(pyiroh.errors, DatagramTooLarge);
    import_exception!(pyiroh.errors, DatagramsUnsupported);
    import_exception!(pyiroh.errors, EndpointClosed);
    import_exception!(pyiroh.errors, ForkedProcess);
    import_exception!(pyiroh.errors, HandshakeFailed);
    import_exception!(pyiroh.errors, IncompleteRead);
    import_exception!(pyiroh.errors, IrohError);
    import_exception!(pyiroh.errors, LocallyClosed);
    import_exception!(pyiroh.errors, NoAddresses);
    import_exception!(pyiroh.errors, NoCommonAlpn);
    import_exception!(pyiroh.errors, NotOnline);
    import_exception!(pyiroh.errors, OperationFailed);
    import_exception!(pyiroh.errors, PumpError);
    import_exception!(pyiroh.errors, SelfConnect);
    import_exception!(pyiroh.errors, StreamBusy);
    import_exception!(pyiroh.errors, StreamClosed);
    import_exception!(pyiroh.errors, StreamReset);
    import_exception!(pyiroh.errors, StreamStopped);
    import_exception!(pyiroh.errors, StreamTooLong);
    import_exception!(pyiroh.errors, VerifyError);
}

/// The TLS alert "no application protocol" as a QUIC error code.
const NO_APPLICATION_PROTOCOL: u64 = 0x178;

/// An error on its way to Python.
#[derive(Debug)]
pub enum Error {
    Bind(String),
    Failed(String),
    Decided,
    Forked,
    EndpointClosed,
    NotOnline {
        denied: Option<String>,
    },
    ConnectTimedOut,
    ConnectRefused,
    ConnectClosedByPeer {
        code: u64,
        reason: Vec<u8>,
    },
    NoAddresses,
    NoCommonAlpn,
    SelfConnect,
    Handshake {
        text: String,
        code: Option<u64>,
        reason: String,
    },
    Lost(ConnectionError),
    StreamReset(u64),
    StreamStopped(u64),
    StreamClosed,
    StreamBusy,
    StreamTooLong {
        limit: usize,
    },
    IncompleteRead(Vec<u8>),
    DatagramTooLarge,
    DatagramsUnsupported,
    Pump(&'static str),
    Verify {
        kind: &'static str,
        node: Option<u64>,
        chunk: Option<u64>,
        /// Which blob of several.
        index: Option<usize>,
    },
    Io(std::io::Error),
    Value(String),
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        use python as py;
        match error {
            Error::Bind(text) => py::BindError::new_err(text),
            Error::Failed(text) => py::OperationFailed::new_err(text),
            Error::Decided => {
                py::IrohError::new_err("this incoming connection was already decided on")
            }
            Error::Forked => py::ForkedProcess::new_err(
                "pyiroh was used before this process was forked and cannot be used in the child",
            ),
            Error::EndpointClosed => py::EndpointClosed::new_err("the endpoint is closed"),
            Error::NotOnline { denied } => {
                let text = match &denied {
                    Some(words) => format!("no home relay was reached; one refused us: {words}"),
                    None => "no home relay was reached in time".to_owned(),
                };
                py::NotOnline::new_err((text, denied))
            }
            Error::ConnectTimedOut => {
                py::ConnectTimedOut::new_err("the peer did not answer in time")
            }
            Error::ConnectRefused => py::ConnectRefused::new_err("the peer refused the connection"),
            Error::ConnectClosedByPeer { code, reason } => Python::attach(|py| {
                py::ConnectClosedByPeer::new_err((code, PyBytes::new(py, &reason).unbind()))
            }),
            Error::NoAddresses => py::NoAddresses::new_err("no address of the peer is known"),
            Error::NoCommonAlpn => py::NoCommonAlpn::new_err("no common protocol"),
            Error::SelfConnect => py::SelfConnect::new_err("an endpoint cannot connect to itself"),
            Error::Handshake { text, code, reason } => {
                py::HandshakeFailed::new_err((text, code, reason))
            }
            Error::Lost(lost) => connection_lost(lost),
            Error::StreamReset(code) => py::StreamReset::new_err((code,)),
            Error::StreamStopped(code) => py::StreamStopped::new_err((code,)),
            Error::StreamClosed => {
                py::StreamClosed::new_err("this side of the stream was ended before")
            }
            Error::StreamBusy => {
                py::StreamBusy::new_err("another operation of the stream is under way")
            }
            Error::StreamTooLong { limit } => {
                py::StreamTooLong::new_err(format!("the stream is longer than {limit} bytes"))
            }
            Error::IncompleteRead(partial) => Python::attach(|py| {
                py::IncompleteRead::new_err((PyBytes::new(py, &partial).unbind(),))
            }),
            Error::DatagramTooLarge => py::DatagramTooLarge::new_err("the datagram is too large"),
            Error::DatagramsUnsupported => {
                py::DatagramsUnsupported::new_err("datagrams are off on this or the other side")
            }
            Error::Pump(text) => py::PumpError::new_err(text),
            Error::Verify {
                kind,
                node,
                chunk,
                index,
            } => py::VerifyError::new_err((kind, node, chunk, index)),
            Error::Io(err) => match err.raw_os_error() {
                Some(number) => PyOSError::new_err((number, os_error_text(&err))),
                None => PyOSError::new_err(os_error_text(&err)),
            },
            Error::Value(text) => PyValueError::new_err(text),
        }
    }
}

/// The words of an OS error without the number that Rust appends.
fn os_error_text(err: &std::io::Error) -> String {
    let text = err.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The exception for the end of an established connection.
pub fn connection_lost(lost: ConnectionError) -> PyErr {
    use python as py;
    match lost {
        ConnectionError::ApplicationClosed(close) => Python::attach(|py| {
            py::ConnectionClosedByPeer::new_err((
                close.error_code.into_inner(),
                PyBytes::new(py, &close.reason).unbind(),
            ))
        }),
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            let text = with_reason(&format!("aborted by peer: {}", close.error_code), &reason);
            py::ConnectionAborted::new_err((text, Some(u64::from(close.error_code)), true, reason))
        }
        ConnectionError::TransportError(err) => {
            let text = with_reason(&err.code.to_string(), &err.reason);
            py::ConnectionAborted::new_err((text, Some(u64::from(err.code)), false, err.reason))
        }
        ConnectionError::Reset => py::ConnectionReset::new_err("connection reset by peer"),
        ConnectionError::TimedOut => py::ConnectionTimedOut::new_err("connection timed out"),
        ConnectionError::LocallyClosed => {
            py::LocallyClosed::new_err("the connection was closed on this side")
        }
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
            py::ConnectionAborted::new_err((lost.to_string(),))
        }
    }
}

/// Why a connection of a closed endpoint is over. noq's tasks end in any order when an endpoint
/// closes; a connection that ends after its driver blames that, which is no reason of its own.
pub fn reason_at_end(lost: Option<ConnectionError>) -> ConnectionError {
    match lost {
        Some(ConnectionError::TransportError(err))
            if err.code == TransportErrorCode::INTERNAL_ERROR =>
        {
            ConnectionError::LocallyClosed
        }
        Some(lost) => lost,
        None => ConnectionError::LocallyClosed,
    }
}

fn with_reason(text: &str, reason: &str) -> String {
    if reason.is_empty() {
        text.to_owned()
    } else {
        format!("{text}: {reason}")
    }
}

/// What the end of a connection means while it is still being made.
fn not_connected(lost: ConnectionError) -> Error {
    let handshake = |code: u64, text: String, reason: String| match code {
        NO_APPLICATION_PROTOCOL => Error::NoCommonAlpn,
        code if code == u64::from(TransportErrorCode::CONNECTION_REFUSED) => Error::ConnectRefused,
        code => Error::Handshake {
            text: with_reason(&text, &reason),
            code: Some(code),
            reason,
        },
    };
    match lost {
        ConnectionError::TimedOut => Error::ConnectTimedOut,
        ConnectionError::LocallyClosed => Error::EndpointClosed,
        ConnectionError::ApplicationClosed(close) => Error::ConnectClosedByPeer {
            code: close.error_code.into_inner(),
            reason: close.reason.to_vec(),
        },
        ConnectionError::ConnectionClosed(close) => handshake(
            close.error_code.into(),
            format!("given up by peer: {}", close.error_code),
            String::from_utf8_lossy(&close.reason).into_owned(),
        ),
        ConnectionError::TransportError(err) => {
            handshake(err.code.into(), err.code.to_string(), err.reason)
        }
        ConnectionError::Reset
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => Error::Handshake {
            text: lost.to_string(),
            code: None,
            reason: String::new(),
        },
    }
}

impl From<ConnectError> for Error {
    fn from(err: ConnectError) -> Self {
        match err {
            ConnectError::Connect { source, .. } => match source {
                ConnectWithOptsError::SelfConnect { .. } => Self::SelfConnect,
                ConnectWithOptsError::NoAddress { .. } => Self::NoAddresses,
                ConnectWithOptsError::Noq { source, .. } => match source {
                    QuicConnectError::EndpointStopping => Self::EndpointClosed,
                    other => Self::Failed(other.to_string()),
                },
                ConnectWithOptsError::InternalConsistencyError { .. }
                | ConnectWithOptsError::EndpointClosed { .. } => Self::EndpointClosed,
                ConnectWithOptsError::InvalidAlpn { .. } => {
                    Self::Value("the ALPN is empty".to_owned())
                }
                other => Self::Failed(other.to_string()),
            },
            ConnectError::Connecting { source, .. } => source.into(),
            ConnectError::Connection { source, .. } => not_connected(source),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<ConnectingError> for Error {
    fn from(err: ConnectingError) -> Self {
        match err {
            ConnectingError::ConnectionError { source, .. } => not_connected(source),
            ConnectingError::InternalConsistencyError { .. } => Self::EndpointClosed,
            other => Self::Handshake {
                text: other.to_string(),
                code: None,
                reason: String::new(),
            },
        }
    }
}

impl From<ConnectionError> for Error {
    fn from(lost: ConnectionError) -> Self {
        Self::Lost(lost)
    }
}

impl From<WriteError> for Error {
    fn from(err: WriteError) -> Self {
        match err {
            WriteError::Stopped(code) => Self::StreamStopped(code.into_inner()),
            WriteError::ConnectionLost(lost) => Self::Lost(lost),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::StreamClosed,
        }
    }
}

impl From<StoppedError> for Error {
    fn from(err: StoppedError) -> Self {
        match err {
            StoppedError::ConnectionLost(lost) => Self::Lost(lost),
            StoppedError::ZeroRttRejected => Self::StreamClosed,
        }
    }
}

impl From<ReadError> for Error {
    fn from(err: ReadError) -> Self {
        match err {
            ReadError::Reset(code) => Self::StreamReset(code.into_inner()),
            ReadError::ConnectionLost(lost) => Self::Lost(lost),
            ReadError::ClosedStream | ReadError::ZeroRttRejected => Self::StreamClosed,
        }
    }
}

impl From<SendDatagramError> for Error {
    fn from(err: SendDatagramError) -> Self {
        match err {
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                Self::DatagramsUnsupported
            }
            SendDatagramError::TooLarge => Self::DatagramTooLarge,
            SendDatagramError::ConnectionLost(lost) => Self::Lost(lost),
        }
    }
}

impl Error {
    /// Says which blob of several a failed check is about.
    pub fn of_blob(mut self, which: usize) -> Self {
        if let Self::Verify { index, .. } = &mut self {
            *index = Some(which);
        }
        self
    }
}

impl From<DecodeError> for Error {
    fn from(err: DecodeError) -> Self {
        let (kind, place) = match err {
            DecodeError::ParentHashMismatch { node } => {
                ("parent_hash_mismatch", Some(Place::Node(node)))
            }
            DecodeError::LeafHashMismatch { chunk } => {
                ("leaf_hash_mismatch", Some(Place::Chunk(chunk)))
            }
            DecodeError::SizeInvalid => ("size_invalid", None),
            DecodeError::SizeNotFound => ("size_not_found", None),
            DecodeError::ParentNotFound { node } => ("parent_not_found", Some(Place::Node(node))),
            DecodeError::LeafNotFound { chunk } => ("leaf_not_found", Some(Place::Chunk(chunk))),
            DecodeError::Truncated(place) => ("truncated", place),
        };
        Self::Verify {
            kind,
            node: match place {
                Some(Place::Node(node)) => Some(node),
                _ => None,
            },
            chunk: match place {
                Some(Place::Chunk(chunk)) => Some(chunk),
                _ => None,
            },
            index: None,
        }
    }
}

impl From<EncodeError> for Error {
    fn from(err: EncodeError) -> Self {
        let (kind, node, chunk) = match err {
            EncodeError::ParentHashMismatch { node } => ("parent_hash_mismatch", Some(node), None),
            EncodeError::LeafHashMismatch { chunk } => ("leaf_hash_mismatch", None, Some(chunk)),
            EncodeError::SizeMismatch => ("size_mismatch", None, None),
            EncodeError::Io(err) => {
                return Self::Io(match err.raw_os_error() {
                    Some(number) => std::io::Error::from_raw_os_error(number),
                    None => err.kind().into(),
                });
            }
        };
        Self::Verify {
            kind,
            node,
            chunk,
            index: None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(err: std::io::Error) -> Self {
        Self::Io(err)
    }
}
