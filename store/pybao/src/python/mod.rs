//! The Python module: thin wrappers that let go of the GIL around every call.
//!
//! Only `bytes` are taken, since a mutable buffer may change while it is hashed. The docstrings are
//! in `_pybao.pyi`.

mod args;
mod decoder;
mod encoder;
mod error;
mod files;
mod functions;
mod progress;

/// The module `pybao._pybao`.
#[pyo3::pymodule]
mod _pybao {
    use pyo3::exceptions::PyRuntimeWarning;
    use pyo3::prelude::*;

    use crate::geometry;

    #[pymodule_export]
    use super::decoder::Decoder;
    #[pymodule_export]
    use super::encoder::Encoder;
    #[pymodule_export]
    use super::files::{read_files, scan_folders};
    #[pymodule_export]
    use super::functions::{
        copy_verified, full_groups, hash, hash_many, outboard, outboard_fd, outboard_size,
        read_verified, round_up_to_groups, truncate_ranges, valid_ranges, write_files,
    };
    #[pymodule_export]
    use super::progress::Progress;

    #[pymodule_export]
    const CHUNK_SIZE: u64 = geometry::CHUNK_SIZE;
    #[pymodule_export]
    const GROUP_SIZE: u64 = geometry::GROUP_SIZE;
    #[pymodule_export]
    const NOT_REGULAR: i32 = super::files::NOT_REGULAR;
    #[pymodule_export]
    const CHANGED: i32 = super::files::CHANGED;
    #[pymodule_export]
    const TOO_LARGE: i32 = super::files::TOO_LARGE;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        if cfg!(debug_assertions) {
            let py = module.py();
            let category = py.get_type::<PyRuntimeWarning>();
            PyErr::warn(py, &category, c"pybao is a debug build and slow", 1)?;
        }
        Ok(())
    }
}
