//! The functions of the module.

use std::ffi::CString;
use std::io::IoSlice;
use std::os::fd::IntoRawFd;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::args::{Boundaries, Bytes, BytesOrFile, Descriptor, Number, Root, Size};
use super::error::os_error;
use super::progress::{Progress, shared};
use crate::ranges::Ranges;
use crate::{geometry, hashing, read, validate, writing};

/// A root and an outboard.
type RootAndOutboard<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

#[pyfunction]
pub(super) fn hash<'py>(py: Python<'py>, data: Bytes) -> Bound<'py, PyBytes> {
    let root = py.detach(|| hashing::hash(data.as_ref()));
    PyBytes::new(py, &root)
}

#[pyfunction]
#[pyo3(signature = (blobs, *, threads=Number(0)), text_signature = "(blobs, *, threads=0)")]
pub(super) fn hash_many<'py>(
    py: Python<'py>,
    blobs: Vec<Bytes>,
    threads: Number,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let roots = py
        .detach(|| hashing::hash_many(&blobs, threads.count()))
        .map_err(os_error)?;
    Ok(roots.iter().map(|root| PyBytes::new(py, root)).collect())
}

#[pyfunction]
#[pyo3(signature = (data, *, threads=Number(0)), text_signature = "(data, *, threads=0)")]
pub(super) fn outboard<'py>(
    py: Python<'py>,
    data: Bytes,
    threads: Number,
) -> PyResult<RootAndOutboard<'py>> {
    let (root, pairs) = py
        .detach(|| hashing::outboard(data.as_ref(), threads.count()))
        .map_err(os_error)?;
    Ok((PyBytes::new(py, &root), PyBytes::new(py, &pairs)))
}

#[pyfunction]
#[pyo3(
    signature = (fd, size, *, outboard_fd=None, threads=Number(0), progress=None),
    text_signature = "(fd, size, *, outboard_fd=None, threads=0, progress=None)"
)]
pub(super) fn outboard_fd<'py>(
    py: Python<'py>,
    fd: Descriptor,
    size: Size,
    outboard_fd: Option<Descriptor>,
    threads: Number,
    progress: Option<Bound<'py, Progress>>,
) -> PyResult<RootAndOutboard<'py>> {
    let progress = shared(progress.as_ref());
    let target = outboard_fd.map(|file| file.0);
    let (root, pairs) = py.detach(|| {
        hashing::outboard_file(&fd.0, size.0, target.as_ref(), threads.count(), &progress)
    })?;
    Ok((PyBytes::new(py, &root), PyBytes::new(py, &pairs)))
}

#[pyfunction]
#[pyo3(
    signature = (
        root, size, data, outboard, ranges=Boundaries(Ranges::all()), *, threads=Number(0),
        progress=None
    ),
    text_signature = "(root, size, data, outboard, ranges=..., *, threads=0, progress=None)"
)]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(super) fn valid_ranges<'py>(
    py: Python<'py>,
    root: Root,
    size: Size,
    data: BytesOrFile,
    outboard: BytesOrFile,
    ranges: Boundaries,
    threads: Number,
    progress: Option<Bound<'py, Progress>>,
) -> PyResult<Vec<u64>> {
    let progress = shared(progress.as_ref());
    let valid = py.detach(|| {
        validate::valid_ranges(
            root.0,
            size.0,
            &data.0,
            &outboard.0,
            &ranges.0,
            threads.count(),
            &progress,
        )
    })?;
    Ok(valid.boundaries())
}

#[pyfunction]
pub(super) fn read_verified<'py>(
    py: Python<'py>,
    root: Root,
    size: Size,
    data: BytesOrFile,
    outboard: BytesOrFile,
    start: Number,
    end: Number,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes =
        py.detach(|| read::read_verified(root.0, size.0, &data.0, &outboard.0, start.0, end.0))?;
    Ok(PyBytes::new(py, &bytes))
}

#[pyfunction]
#[pyo3(signature = (root, size, data, outboard, out_fd, *, progress=None))]
pub(super) fn copy_verified<'py>(
    py: Python<'py>,
    root: Root,
    size: Size,
    data: BytesOrFile,
    outboard: BytesOrFile,
    out_fd: Descriptor,
    progress: Option<Bound<'py, Progress>>,
) -> PyResult<()> {
    let progress = shared(progress.as_ref());
    py.detach(|| read::copy_verified(root.0, size.0, &data.0, &outboard.0, &out_fd.0, &progress))?;
    Ok(())
}

#[pyfunction]
pub(super) fn outboard_size(size: Size) -> u64 {
    geometry::outboard_size(size.0)
}

#[pyfunction]
pub(super) fn truncate_ranges(py: Python<'_>, ranges: Boundaries, size: Size) -> Vec<u64> {
    py.detach(|| ranges.0.truncate(size.0).boundaries())
}

#[pyfunction]
pub(super) fn round_up_to_groups(py: Python<'_>, ranges: Boundaries) -> Vec<u64> {
    py.detach(|| ranges.0.round_up_to_groups().boundaries())
}

#[pyfunction]
pub(super) fn full_groups(py: Python<'_>, ranges: Boundaries) -> Vec<u64> {
    py.detach(|| ranges.0.full_groups().boundaries())
}

impl writing::Content for Bytes {
    fn pieces(&self) -> Vec<IoSlice<'_>> {
        vec![IoSlice::new(self.as_ref())]
    }
}

#[pyfunction]
pub(super) fn write_files(
    py: Python<'_>,
    folder_fds: Vec<Descriptor>,
    files: Vec<(usize, Bytes, Bytes, Bytes)>,
    keep_open_over: Number,
) -> PyResult<Vec<Option<i32>>> {
    let folders: Vec<_> = folder_fds.into_iter().map(|folder| folder.0).collect();
    let name = |bytes: &Bytes| {
        CString::new(bytes.as_ref()).map_err(|_| PyValueError::new_err("a name holds a zero byte"))
    };
    let files = files
        .into_iter()
        .map(|(folder, hidden, last, data)| {
            Ok(writing::NewFile {
                folder,
                hidden: name(&hidden)?,
                name: name(&last)?,
                content: data,
            })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let keep_open_over = keep_open_over.count();
    let written = py.detach(|| writing::write_files(&folders, &files, keep_open_over));
    let numbers = written.into_iter().map(|fd| fd.map(IntoRawFd::into_raw_fd));
    Ok(numbers.collect())
}
