//! `Decoder`: a push decoder that writes to descriptors or keeps what it verified.

use std::sync::{Mutex, MutexGuard};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::args::{Boundaries, Bytes, Descriptor, Number, Root};
use crate::geometry::SIZE_MAX;
use crate::push;

/// An offset and the bytes that belong there.
type Piece<'py> = (u64, Bound<'py, PyBytes>);

#[pyclass(frozen, module = "pybao")]
pub(super) struct Decoder {
    /// Locked only without the GIL, so that a thread that waits here holds nobody up.
    inner: Mutex<push::Decoder>,
}

impl Decoder {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut push::Decoder) -> T + Send,
    ) -> T {
        py.detach(|| {
            let mut inner: MutexGuard<'_, push::Decoder> =
                self.inner.lock().expect("an earlier call panicked");
            work(&mut inner)
        })
    }
}

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(
        signature = (
            root, ranges, *, size=None, size_max=Number(SIZE_MAX), data_fd=None, outboard_fd=None
        ),
        text_signature = "(root, ranges, *, size=None, size_max=9223372036854775807, \
                          data_fd=None, outboard_fd=None)"
    )]
    fn new(
        py: Python<'_>,
        root: Root,
        ranges: Boundaries,
        size: Option<Number>,
        size_max: Number,
        data_fd: Option<Descriptor>,
        outboard_fd: Option<Descriptor>,
    ) -> PyResult<Self> {
        let size = size.map(|size| size.0);
        let data = data_fd.map(|file| file.0);
        let outboard = outboard_fd.map(|file| file.0);
        let inner =
            py.detach(|| push::Decoder::new(root.0, ranges.0, size, size_max.0, data, outboard))?;
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    fn feed(&self, py: Python<'_>, data: Bytes) -> PyResult<()> {
        self.with(py, |inner| inner.feed(data.as_ref()))?;
        Ok(())
    }

    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, push::Decoder::finish)?;
        Ok(())
    }

    fn take_pieces<'py>(&self, py: Python<'py>) -> Vec<Piece<'py>> {
        self.with(py, push::Decoder::take_pieces)
            .into_iter()
            .map(|(offset, bytes)| (offset, PyBytes::new(py, &bytes)))
            .collect()
    }

    fn take_pairs<'py>(&self, py: Python<'py>) -> Vec<Piece<'py>> {
        self.with(py, push::Decoder::take_pairs)
            .into_iter()
            .map(|(offset, pair)| (offset, PyBytes::new(py, &pair)))
            .collect()
    }

    fn take_unused<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.with(py, push::Decoder::take_unused))
    }

    #[getter]
    fn size(&self, py: Python<'_>) -> Option<u64> {
        self.with(py, |inner| inner.size())
    }

    #[getter]
    fn size_proven(&self, py: Python<'_>) -> bool {
        self.with(py, |inner| {
            inner.proven().is_some_and(|proven| proven.size_proven())
        })
    }

    #[getter]
    fn is_done(&self, py: Python<'_>) -> bool {
        self.with(py, |inner| inner.is_done())
    }

    #[getter]
    fn proven(&self, py: Python<'_>) -> Vec<u64> {
        self.with(py, |inner| {
            inner
                .proven()
                .map_or_else(Vec::new, |proven| proven.boundaries())
        })
    }

    #[getter]
    fn needed(&self, py: Python<'_>) -> usize {
        self.with(py, |inner| inner.needed())
    }

    #[getter]
    fn remaining(&self, py: Python<'_>) -> Option<u64> {
        self.with(py, |inner| inner.remaining())
    }
}
