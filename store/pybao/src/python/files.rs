//! `scan_folders` and `read_files`: a place of the answer is what was found, or a number why not.

use std::io;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyTuple};

use super::args::{Bytes, Number};
use super::error::os_error;
use crate::files::{self, ReadError};

pub(super) const NOT_REGULAR: i32 = -1;
pub(super) const CHANGED: i32 = -2;
pub(super) const TOO_LARGE: i32 = -3;

/// EIO, for an error that has no number.
const NO_NUMBER: i32 = 5;

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(NO_NUMBER)
}

#[pyfunction]
#[pyo3(signature = (paths, *, threads=Number(0)), text_signature = "(paths, *, threads=0)")]
pub(super) fn scan_folders<'py>(
    py: Python<'py>,
    paths: Vec<Bytes>,
    threads: Number,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let found = py
        .detach(|| files::scan_folders(&paths, threads.count()))
        .map_err(os_error)?;
    let folder = |outcome: io::Result<files::Folder>| match outcome {
        Ok(folder) => {
            let fields = [
                folder.files,
                folder.identities,
                folder.folders,
                folder.links,
                folder.others,
            ];
            let fields = fields.map(|field| PyBytes::new(py, &field));
            Ok(PyTuple::new(py, fields)?.into_any())
        }
        Err(error) => Ok(PyInt::new(py, number(&error)).into_any()),
    };
    found.into_iter().map(folder).collect()
}

#[pyfunction]
#[pyo3(
    signature = (paths, *, data_max, size_max, threads=Number(0)),
    text_signature = "(paths, *, data_max, size_max, threads=0)"
)]
pub(super) fn read_files<'py>(
    py: Python<'py>,
    paths: Vec<Bytes>,
    data_max: Number,
    size_max: Number,
    threads: Number,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let read = py
        .detach(|| files::read_files(&paths, data_max.0, size_max.0, threads.count()))
        .map_err(os_error)?;
    let file = |outcome: Result<files::Read, ReadError>| {
        let read = match outcome {
            Ok(read) => read,
            Err(error) => {
                let number = match error {
                    ReadError::NotRegular => NOT_REGULAR,
                    ReadError::Changed => CHANGED,
                    ReadError::TooLarge => TOO_LARGE,
                    ReadError::Io(error) => number(&error),
                };
                return Ok(PyInt::new(py, number).into_any());
            }
        };
        let fields = (
            PyBytes::new(py, &read.identity),
            PyBytes::new(py, &read.root),
            read.data.map(|data| PyBytes::new(py, &data)),
            PyBytes::new(py, &read.outboard),
        );
        Ok(fields.into_pyobject(py)?.into_any())
    };
    read.into_iter().map(file).collect()
}
