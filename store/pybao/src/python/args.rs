//! Arguments from Python, checked as they are converted: what does not fit is a `ValueError`.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::error::os_error;
use crate::Hash;
use crate::geometry::SIZE_MAX;
use crate::io::{Source, dup};
use crate::ranges::{NotIncreasing, Ranges};

/// Immutable bytes, held as long as the call needs them.
pub(super) struct Bytes(pub(super) PyBackedBytes);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromPyObject<'_, '_> for Bytes {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let bytes = object.cast::<PyBytes>()?;
        Ok(Self(PyBackedBytes::from(bytes.to_owned())))
    }
}

/// The root of a blob.
pub(super) struct Root(pub(super) Hash);

impl FromPyObject<'_, '_> for Root {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let bytes = object.cast::<PyBytes>()?;
        let root = bytes.as_bytes().try_into();
        root.map(Self)
            .map_err(|_| PyValueError::new_err("a root has 32 bytes"))
    }
}

/// A number of u64.
pub(super) struct Number(pub(super) u64);

impl FromPyObject<'_, '_> for Number {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        object.extract().map(Self).map_err(|error| {
            if error.is_instance_of::<PyOverflowError>(object.py()) {
                PyValueError::new_err("a number is negative or too large")
            } else {
                error
            }
        })
    }
}

impl Number {
    /// As a count of things in memory, where the largest count stands for any above.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The size of a blob.
pub(super) struct Size(pub(super) u64);

impl FromPyObject<'_, '_> for Size {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match object.extract::<Number>()?.0 {
            size if size <= SIZE_MAX => Ok(Self(size)),
            _ => Err(PyValueError::new_err("a size is below 2^63")),
        }
    }
}

/// Chunk ranges, given as their boundaries.
pub(super) struct Boundaries(pub(super) Ranges);

impl FromPyObject<'_, '_> for Boundaries {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let numbers = object.extract::<Vec<Number>>()?;
        let boundaries = numbers.into_iter().map(|number| number.0).collect();
        Ranges::new(boundaries)
            .map(Self)
            .map_err(|NotIncreasing| PyValueError::new_err("boundaries must increase strictly"))
    }
}

/// A descriptor, duplicated.
pub(super) struct Descriptor(pub(super) std::fs::File);

impl FromPyObject<'_, '_> for Descriptor {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let fd = object.extract::<RawFd>()?;
        dup(fd).map(Self).map_err(os_error)
    }
}

/// Bytes or a descriptor.
pub(super) struct BytesOrFile(pub(super) Source<Bytes>);

impl FromPyObject<'_, '_> for BytesOrFile {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyBytes>() {
            return Ok(Self(Source::Bytes(object.extract()?)));
        }
        if object.is_instance_of::<pyo3::types::PyInt>() {
            let Descriptor(file) = object.extract()?;
            return Ok(Self(Source::File(file)));
        }
        Err(PyTypeError::new_err("neither bytes nor a descriptor"))
    }
}

impl BytesOrFile {
    /// Raise a `ValueError` if these are bytes, but not as many as the blob needs.
    pub(super) fn check_len(&self, len: u64) -> PyResult<()> {
        match &self.0 {
            Source::Bytes(bytes) if bytes.as_ref().len() as u64 != len => {
                let len_given = bytes.as_ref().len();
                let message = format!("{len_given} bytes given where the size asks for {len}");
                Err(PyValueError::new_err(message))
            }
            _ => Ok(()),
        }
    }
}
