//! `Encoder`: the encoding of ranges of one blob, buffer by buffer.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyBytes;

use super::args::{Boundaries, Bytes, BytesOrFile, Number, Root, Size};
use crate::encode;
use crate::geometry;
use crate::io::Source;

/// Bytes that are planned with the GIL held, to be verified right in the result.
const DIRECT_MAX: usize = 4 << 20;

type Inner = encode::Encoder<Source<Bytes>, Source<Bytes>>;

#[pyclass(frozen, module = "pybao")]
pub(super) struct Encoder {
    encoded_size: u64,
    /// Waited for only without the GIL, so that a thread that waits here holds nobody up.
    inner: Mutex<Inner>,
}

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (root, size, ranges, data, outboard, *, header=true))]
    fn new(
        py: Python<'_>,
        root: Root,
        size: Size,
        ranges: Boundaries,
        data: BytesOrFile,
        outboard: BytesOrFile,
        header: bool,
    ) -> PyResult<Self> {
        data.check_len(size.0)?;
        outboard.check_len(geometry::outboard_size(size.0))?;
        let inner = py
            .detach(|| encode::Encoder::new(root.0, size.0, &ranges.0, data.0, outboard.0, header));
        Ok(Self {
            encoded_size: inner.encoded_size(),
            inner: Mutex::new(inner),
        })
    }

    #[getter]
    fn encoded_size(&self) -> u64 {
        self.encoded_size
    }

    #[pyo3(
        signature = (max_bytes=Number(1 << 20)),
        text_signature = "($self, max_bytes=1048576)"
    )]
    fn next<'py>(&self, py: Python<'py>, max_bytes: Number) -> PyResult<Bound<'py, PyBytes>> {
        let max = max_bytes.count();
        let mut inner = self
            .inner
            .lock_py_attached(py)
            .expect("an earlier call panicked");
        let inner: &mut Inner = &mut inner;
        if max > DIRECT_MAX {
            let bytes = py.detach(|| {
                let mut bytes = Vec::new();
                inner.fill(&mut bytes, max)?;
                Ok::<_, encode::EncodeError>(bytes)
            })?;
            return Ok(PyBytes::new(py, &bytes));
        }
        let len = inner.prepare(max, true);
        let mut verified = 0;
        let bytes = PyBytes::new_with(py, len, |buf| {
            verified = py.detach(|| inner.write(buf))?;
            Ok(())
        })?;
        Ok(if verified == len {
            bytes
        } else {
            PyBytes::new(py, &bytes.as_bytes()[..verified])
        })
    }
}
