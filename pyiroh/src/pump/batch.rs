//! Receives many whole small blobs.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use pybao::{
    Hash,
    decode::{DecodeError, Place, Verified, Verifier},
    geometry::outboard_size,
    plan::Plan,
    ranges::Ranges,
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyList},
};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    task::JoinHandle,
};

use super::{check_size, panicked};
use crate::{
    bridge::{Deliver, Local, Operation, lock},
    error::Error,
    recv::{Reading, RecvShared},
};

const HEADER_SIZE: usize = 8;

/// Bytes by which the slab grows at a time: a claim alone takes no memory.
const STEP: usize = 256 << 10;

/// A blob whose encoding is in the slab.
struct Entry {
    index: usize,
    size: u64,
    /// Where its encoding begins and how long it is.
    at: usize,
    len: usize,
}

/// A blob that was verified in the slab.
struct Blob {
    index: usize,
    size: usize,
    at: usize,
    items: Vec<Verified>,
}

impl Blob {
    fn to_python<'py>(&self, py: Python<'py>, slab: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let encoding = &slab[self.at..];
        let data = PyBytes::new_with(py, self.size, |buffer| {
            for item in &self.items {
                if let Verified::Leaf { leaf, at } = item {
                    let offset = leaf.offset() as usize;
                    buffer[offset..offset + leaf.len].copy_from_slice(&encoding[*at..][..leaf.len]);
                }
            }
            Ok(())
        })?;
        let pairs = outboard_size(self.size as u64) as usize;
        let outboard = PyBytes::new_with(py, pairs, |buffer| {
            for item in &self.items {
                if let Verified::Pair { offset, at } = item {
                    let offset = *offset as usize;
                    buffer[offset..offset + 64].copy_from_slice(&encoding[*at..][..64]);
                }
            }
            Ok(())
        })?;
        Ok((self.index, data, outboard).into_pyobject(py)?.into_any())
    }
}

/// Verified blobs and the slab they are in; then what is wrong with the blob after them.
struct Batch {
    slab: Vec<u8>,
    blobs: Vec<Blob>,
    failure: Option<(usize, DecodeError)>,
}

/// Checks the entries in order, up to the first that is wrong. A last one that is shorter than it
/// should be gets the error for that.
fn verify(slab: Vec<u8>, entries: Vec<Entry>, hashes: &[Hash]) -> Batch {
    let mut blobs = Vec::with_capacity(entries.len());
    let mut failure = None;
    for entry in entries {
        let plan = Plan::new(entry.size, &Ranges::all());
        let mut verifier = Verifier::new(hashes[entry.index], plan);
        let mut items = Vec::new();
        let end = slab.len().min(entry.at + entry.len);
        let bytes = &slab[entry.at..end];
        let result = verifier.verify(bytes, &mut items).and_then(|used| {
            match verifier.upcoming().map(Place::of) {
                None => Ok(()),
                Some(place) if used < bytes.len() => Err(DecodeError::Truncated(Some(place))),
                Some(Place::Node(node)) => Err(DecodeError::ParentNotFound { node }),
                Some(Place::Chunk(chunk)) => Err(DecodeError::LeafNotFound { chunk }),
            }
        });
        if let Err(err) = result {
            failure = Some((entry.index, err));
            break;
        }
        blobs.push(Blob {
            index: entry.index,
            size: entry.size as usize,
            at: entry.at,
            items,
        });
    }
    Batch {
        slab,
        blobs,
        failure,
    }
}

/// Everything a cancelled call leaves for the next one.
struct State {
    hashes: Arc<[Hash]>,
    whole_max: u64,
    batch_bytes: usize,
    /// The blob whose header comes next.
    next: usize,
    header: [u8; HEADER_SIZE],
    header_len: usize,
    /// Encodings of `entries`; the last one may be incomplete.
    slab: Vec<u8>,
    entries: Vec<Entry>,
    verifying: Option<JoinHandle<Batch>>,
    /// Verified, not yet handed over.
    ready: Option<Batch>,
    large: Option<(usize, u64)>,
    failure: Option<(usize, DecodeError)>,
}

impl State {
    /// Bytes of the last entry that are missing.
    fn missing(&self) -> usize {
        let last = self.entries.last();
        last.map_or(0, |entry| entry.at + entry.len - self.slab.len())
    }

    /// Reads until there is a batch. Safe to cancel. Ok also when the stream has ended early,
    /// which the entries or `failure` then show.
    async fn read(&mut self, stream: &RecvShared) -> Result<(), Error> {
        let mut reading = stream.reading().await?;
        loop {
            let missing = self.missing();
            if missing > 0 {
                if self.grow(&mut reading, missing).await? == 0 {
                    return Ok(());
                }
                continue;
            }
            let is_full = self.slab.len() >= self.batch_bytes && !self.entries.is_empty();
            if is_full || self.next == self.hashes.len() || self.large.is_some() {
                return Ok(());
            }
            let rest = &mut self.header[self.header_len..];
            let more = reading.fill(rest).await?;
            self.header_len += more;
            if more == 0 {
                let failure = match self.header_len {
                    0 => DecodeError::SizeNotFound,
                    _ => DecodeError::Truncated(None),
                };
                self.failure = Some((self.next, failure));
                return Ok(());
            }
            if self.header_len == HEADER_SIZE {
                self.header_len = 0;
                self.begin(u64::from_le_bytes(self.header));
            }
            if self.failure.is_some() {
                return Ok(());
            }
        }
    }

    async fn grow(&mut self, reading: &mut Reading, missing: usize) -> Result<usize, Error> {
        let begin = self.slab.len();
        self.slab.resize(begin + missing.min(STEP), 0);
        let mut grown = Grown {
            slab: &mut self.slab,
            len: begin,
        };
        let more = reading.fill(&mut grown.slab[begin..]).await?;
        grown.len += more;
        Ok(more)
    }

    /// Forgets a blob whose rest cannot come any more. It counts as never begun, so that nobody
    /// takes the blobs before it for all there are.
    fn drop_incomplete(&mut self) {
        if self.missing() > 0
            && let Some(entry) = self.entries.pop()
        {
            self.slab.truncate(entry.at);
            self.next = entry.index;
        }
    }

    /// The header of the next blob has come.
    fn begin(&mut self, size: u64) {
        let index = self.next;
        self.next += 1;
        if check_size(size).is_err() {
            self.failure = Some((index, DecodeError::SizeInvalid));
        } else if size > self.whole_max {
            self.large = Some((index, size));
        } else {
            self.entries.push(Entry {
                index,
                size,
                at: self.slab.len(),
                len: Plan::new(size, &Ranges::all()).encoded_len() as usize,
            });
        }
    }
}

/// Cuts a slab back to what was really read, also when the read is cancelled.
struct Grown<'a> {
    slab: &'a mut Vec<u8>,
    len: usize,
}

impl Drop for Grown<'_> {
    fn drop(&mut self) {
        self.slab.truncate(self.len);
    }
}

/// What Python may look at at any time.
#[derive(Default)]
struct Status {
    index: AtomicUsize,
    large: Mutex<Option<(usize, u64)>>,
}

/// A batch on its way to Python; it goes back if it does not get there.
struct Taken {
    state: OwnedMutexGuard<State>,
    batch: Option<Batch>,
    status: Arc<Status>,
}

impl Taken {
    fn to_python(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let batch = self.batch.as_ref().expect("not delivered yet");
        let blobs = batch
            .blobs
            .iter()
            .map(|blob| blob.to_python(py, &batch.slab));
        let list = PyList::new(py, blobs.collect::<PyResult<Vec<_>>>()?)?;
        Ok(list.into_any().unbind())
    }

    fn deliver(mut self) -> Deliver {
        Box::new(move |py| {
            let list = self.to_python(py)?;
            let batch = self.batch.take();
            if let Some(last) = batch.as_ref().and_then(|batch| batch.blobs.last()) {
                self.status.index.store(last.index + 1, Ordering::Release);
            }
            *lock(&self.status.large) = self.state.large;
            Ok(list)
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.state.ready = Some(batch);
        }
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct BatchPump {
    stream: Local<RecvShared>,
    state: Arc<AsyncMutex<State>>,
    status: Arc<Status>,
}

impl BatchPump {
    pub fn new(
        stream: RecvShared,
        hashes: Vec<Hash>,
        whole_max: u64,
        batch_bytes: usize,
    ) -> Result<Self, Error> {
        if usize::try_from(whole_max).is_err() || batch_bytes == 0 {
            return Err(Error::Value(
                "whole_max is too large, or batch_bytes is 0".to_owned(),
            ));
        }
        Ok(Self {
            stream: Local::new(stream),
            state: Arc::new(AsyncMutex::new(State {
                hashes: hashes.into(),
                whole_max,
                batch_bytes,
                next: 0,
                header: [0; HEADER_SIZE],
                header_len: 0,
                slab: Vec::new(),
                entries: Vec::new(),
                verifying: None,
                ready: None,
                large: None,
                failure: None,
            })),
            status: Arc::default(),
        })
    }
}

async fn next(
    mut state: OwnedMutexGuard<State>,
    stream: RecvShared,
    status: Arc<Status>,
) -> Result<Taken, Error> {
    if state.ready.is_none() {
        if state.verifying.is_none()
            && state.failure.is_none()
            && state.large.is_none()
            && let Err(err) = state.read(&stream).await
        {
            state.drop_incomplete();
            // Whole blobs come first; the stream gives the same error again.
            if state.entries.is_empty() {
                return Err(err);
            }
        }
        if state.verifying.is_none() && !state.entries.is_empty() {
            let slab = mem::take(&mut state.slab);
            let entries = mem::take(&mut state.entries);
            let hashes = state.hashes.clone();
            let verifying = tokio::task::spawn_blocking(move || verify(slab, entries, &hashes));
            state.verifying = Some(verifying);
        }
        if let Some(verifying) = &mut state.verifying {
            let result = verifying.await;
            state.verifying = None;
            let mut batch = result.map_err(panicked)?;
            if let Some(failure) = batch.failure.take() {
                state.failure = Some(failure);
            }
            state.ready = Some(batch);
        }
    }
    let batch = match state.ready.take() {
        Some(batch) if !batch.blobs.is_empty() => batch,
        _ => {
            if let Some((index, failure)) = state.failure {
                status.index.store(index, Ordering::Release);
                return Err(failure.into());
            }
            Batch {
                slab: Vec::new(),
                blobs: Vec::new(),
                failure: None,
            }
        }
    };
    Ok(Taken {
        state,
        batch: Some(batch),
        status,
    })
}

#[pymethods]
impl BatchPump {
    fn next(&self) -> PyResult<Operation> {
        let stream = self.stream.get()?.clone();
        let state = self.state.clone();
        let status = self.status.clone();
        Ok(Operation::new(async move {
            let state = state.lock_owned().await;
            Ok(next(state, stream, status).await?.deliver())
        }))
    }

    #[getter]
    fn index(&self) -> usize {
        self.status.index.load(Ordering::Acquire)
    }

    #[getter]
    fn large(&self) -> Option<(usize, u64)> {
        *lock(&self.status.large)
    }
}
