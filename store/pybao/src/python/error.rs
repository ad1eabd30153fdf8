//! Errors of the Rust part as exceptions of `pybao.errors`, in one place.

use std::io;

use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyOSError};

use crate::decode::{DecodeError, Place};
use crate::encode::EncodeError;
use crate::hashing::OutboardError;
use crate::push::PushError;
use crate::read::CopyError;
use crate::validate::ValidateError;

mod classes {
    pyo3::import_exception!(pybao.errors, Cancelled);
    pyo3::import_exception!(pybao.errors, DecodeError);
    pyo3::import_exception!(pybao.errors, EncodeError);
    pyo3::import_exception!(pybao.errors, FileShorter);
}

/// Node and chunk, of which at most one is set.
type NodeAndChunk = (Option<u64>, Option<u64>);

fn node_and_chunk(place: Place) -> NodeAndChunk {
    match place {
        Place::Node(node) => (Some(node), None),
        Place::Chunk(chunk) => (None, Some(chunk)),
    }
}

/// An `OSError` of the subclass that its number asks for.
pub(super) fn os_error(error: io::Error) -> PyErr {
    as_os_error(&error)
}

fn as_os_error(error: &io::Error) -> PyErr {
    if error.kind() == io::ErrorKind::OutOfMemory {
        return PyMemoryError::new_err(());
    }
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => {
            let suffix = format!(" (os error {number})");
            let text = text.strip_suffix(&suffix).unwrap_or(&text).to_owned();
            PyOSError::new_err((number, text))
        }
        None => PyOSError::new_err(text),
    }
}

impl From<DecodeError> for PyErr {
    fn from(error: DecodeError) -> Self {
        let (kind, (node, chunk)) = match error {
            DecodeError::ParentHashMismatch { node } => {
                ("parent_hash_mismatch", (Some(node), None))
            }
            DecodeError::LeafHashMismatch { chunk } => ("leaf_hash_mismatch", (None, Some(chunk))),
            DecodeError::SizeInvalid => ("size_invalid", (None, None)),
            DecodeError::SizeNotFound => ("size_not_found", (None, None)),
            DecodeError::ParentNotFound { node } => ("parent_not_found", (Some(node), None)),
            DecodeError::LeafNotFound { chunk } => ("leaf_not_found", (None, Some(chunk))),
            DecodeError::Truncated(place) => {
                ("truncated", place.map_or((None, None), node_and_chunk))
            }
        };
        classes::DecodeError::new_err((kind, node, chunk))
    }
}

impl From<PushError> for PyErr {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Decode(error) => error.into(),
            PushError::Io(error) => as_os_error(&error),
        }
    }
}

impl From<EncodeError> for PyErr {
    fn from(error: EncodeError) -> Self {
        let (kind, (node, chunk)) = match error {
            EncodeError::ParentHashMismatch { node } => {
                ("parent_hash_mismatch", (Some(node), None))
            }
            EncodeError::LeafHashMismatch { chunk } => ("leaf_hash_mismatch", (None, Some(chunk))),
            EncodeError::SizeMismatch => ("size_mismatch", (None, None)),
            EncodeError::Io(error) => return as_os_error(&error),
        };
        classes::EncodeError::new_err((kind, node, chunk))
    }
}

impl From<OutboardError> for PyErr {
    fn from(error: OutboardError) -> Self {
        match error {
            OutboardError::FileShorter => classes::FileShorter::new_err(()),
            OutboardError::Cancelled => classes::Cancelled::new_err(()),
            OutboardError::Io(error) => os_error(error),
        }
    }
}

impl From<ValidateError> for PyErr {
    fn from(error: ValidateError) -> Self {
        match error {
            ValidateError::Cancelled => classes::Cancelled::new_err(()),
            ValidateError::Io(error) => os_error(error),
        }
    }
}

impl From<CopyError> for PyErr {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Encode(error) => error.into(),
            CopyError::Cancelled => classes::Cancelled::new_err(()),
            CopyError::Io(error) => os_error(error),
        }
    }
}
