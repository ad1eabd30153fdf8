//! Items that go back to where they came from unless Python takes them.
//!
//! The holder of an item also holds the lock of its source. Nobody can take a later item before
//! the fate of this one is known, so the order is kept whatever is cancelled.

use std::{collections::VecDeque, future::Future, sync::Arc};

use pyo3::prelude::*;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{bridge::Deliver, error::Error};

/// Where items of one kind come from: those put back first.
pub struct Source<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static> Source<T> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// The item that was put back, or the next one. `next` must be safe to cancel.
    pub async fn take<F>(&self, next: F) -> Result<Taken<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut front = self.0.clone().lock_owned().await;
        let item = match front.pop_front() {
            Some(item) => item,
            None => next.await?,
        };
        Ok(Taken {
            front,
            item: Some(item),
        })
    }
}

/// An item on its way to Python.
pub struct Taken<T> {
    front: OwnedMutexGuard<VecDeque<T>>,
    item: Option<T>,
}

impl<T: Send + 'static> Taken<T> {
    /// The item as a Python value, which is when it is gone for good.
    pub fn deliver<F>(mut self, convert: F) -> Deliver
    where
        F: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        Box::new(move |py| {
            let item = self.item.take().expect("only drop and this take the item");
            convert(py, item)
        })
    }
}

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.front.push_front(item);
        }
    }
}
