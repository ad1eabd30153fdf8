//! `Progress`: watched and cancelled from another thread.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::progress;

#[pyclass(frozen, module = "pybao")]
#[derive(Default)]
pub(super) struct Progress(Arc<progress::Progress>);

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn done(&self) -> u64 {
        self.0.done()
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

/// What a call works with: the progress given, or one of its own.
pub(super) fn shared(progress: Option<&Bound<'_, Progress>>) -> Arc<progress::Progress> {
    progress.map_or_else(Arc::default, |progress| progress.get().0.clone())
}
