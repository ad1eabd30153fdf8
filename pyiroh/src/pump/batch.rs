//! Receives many whole small blobs.
//!
//! Three things happen at once: a task reads the next slab off the stream, a blocking thread
//! verifies the one before it, and Python has the one before that. Each hands over to the next
//! through a channel of one, so a slow end holds up the peer and not our memory.

use std::{
    ffi::CString,
    io::IoSlice,
    mem,
    os::fd::IntoRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use pybao::{
    Hash,
    decode::{DecodeError, Place, Verified, Verifier},
    geometry::{GROUP_SIZE, outboard_size},
    hashing::hash,
    io::dup,
    plan::Plan,
    ranges::Ranges,
    writing::{Content, NewFile, write_files},
};
use pyo3::{
    exceptions::{PyIndexError, PyValueError},
    prelude::*,
    pybacked::PyBackedBytes,
    types::PyBytes,
};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, mpsc},
    task::AbortHandle,
};

use super::{
    check_size, panicked,
    pool::{Buffer, Pool},
};
use crate::{
    bridge::{Deliver, Local, Operation, lock},
    error::Error,
    recv::{Reading, RecvShared},
};

const HEADER_SIZE: usize = 8;

/// Bytes by which the slab grows at a time: a claim alone takes no memory.
const STEP: usize = 256 << 10;

/// Slabs and batches that wait for whoever is next.
const AHEAD: usize = 1;

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
    /// None for a blob of one leaf, whose encoding is its data.
    items: Option<Vec<Verified>>,
}

impl Blob {
    fn outboard_size(&self) -> usize {
        outboard_size(self.size as u64) as usize
    }
}

/// A blob's data where it is in the slab.
struct Data<'a> {
    blob: &'a Blob,
    encoding: &'a [u8],
}

impl Content for Data<'_> {
    fn pieces(&self) -> Vec<IoSlice<'_>> {
        let Some(items) = &self.blob.items else {
            return vec![IoSlice::new(&self.encoding[..self.blob.size])];
        };
        // All of a blob, so its leaves come in the order of their offsets.
        let leaves = items.iter().filter_map(|item| match item {
            Verified::Leaf { leaf, at } => Some(IoSlice::new(&self.encoding[*at..][..leaf.len])),
            Verified::Pair { .. } => None,
        });
        leaves.collect()
    }
}

/// Why no more blobs come.
enum End {
    /// All did.
    All,
    /// The header of a blob above the limit came.
    Large(usize, u64),
    /// What came is not the blob asked for.
    Failed(usize, DecodeError),
    /// Reading failed.
    Broken(Error),
}

/// Verified blobs and the slab they are in.
#[derive(Default)]
struct Batch {
    slab: Buffer,
    blobs: Vec<Blob>,
}

impl Batch {
    fn data<'a>(&'a self, blob: &'a Blob) -> Data<'a> {
        Data {
            blob,
            encoding: &self.slab[blob.at..],
        }
    }

    /// The blob that Python means.
    fn get(&self, position: usize) -> PyResult<&Blob> {
        let blob = self.blobs.get(position);
        blob.ok_or_else(|| PyIndexError::new_err("no such blob in this batch"))
    }
}

/// Verified blobs that Python has. Their bytes become Python's only where it asks for them.
#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct WholeBlobs(Batch);

#[pymethods]
impl WholeBlobs {
    fn __len__(&self) -> usize {
        self.0.blobs.len()
    }

    #[getter]
    fn indices(&self) -> Vec<usize> {
        self.0.blobs.iter().map(|blob| blob.index).collect()
    }

    #[getter]
    fn sizes(&self) -> Vec<usize> {
        self.0.blobs.iter().map(|blob| blob.size).collect()
    }

    fn data<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        let blob = self.0.get(position)?;
        let data = self.0.data(blob);
        PyBytes::new_with(py, blob.size, |mut buffer| {
            for piece in data.pieces() {
                let (head, rest) = buffer.split_at_mut(piece.len());
                head.copy_from_slice(&piece);
                buffer = rest;
            }
            Ok(())
        })
    }

    fn outboard<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyBytes>> {
        let blob = self.0.get(position)?;
        let encoding = &self.0.slab[blob.at..];
        PyBytes::new_with(py, blob.outboard_size(), |buffer| {
            for item in blob.items.iter().flatten() {
                if let Verified::Pair { offset, at } = item {
                    let offset = *offset as usize;
                    buffer[offset..offset + 64].copy_from_slice(&encoding[*at..][..64]);
                }
            }
            Ok(())
        })
    }

    fn write_files(
        &self,
        py: Python<'_>,
        folder_fds: Vec<i32>,
        files: Vec<(usize, usize, PyBackedBytes, PyBackedBytes)>,
        keep_open_over: usize,
    ) -> PyResult<Vec<Option<i32>>> {
        let folders = folder_fds
            .into_iter()
            .map(|fd| Ok(dup(fd).map_err(Error::from)?))
            .collect::<PyResult<Vec<_>>>()?;
        let name = |bytes: &PyBackedBytes| {
            CString::new(&**bytes).map_err(|_| PyValueError::new_err("a name holds a zero byte"))
        };
        let files = files
            .iter()
            .map(|(position, folder, hidden, last)| {
                Ok(NewFile {
                    folder: *folder,
                    hidden: name(hidden)?,
                    name: name(last)?,
                    content: self.0.data(self.0.get(*position)?),
                })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let written = py.detach(|| write_files(&folders, &files, keep_open_over));
        let numbers = written.into_iter().map(|fd| fd.map(IntoRawFd::into_raw_fd));
        Ok(numbers.collect())
    }
}

/// Encodings as they came off the stream. The last one is cut off if the stream ended there.
struct Slab {
    bytes: Buffer,
    entries: Vec<Entry>,
    end: Option<End>,
}

/// Verifies one encoding that is to be all of a blob.
fn verify(root: Hash, entry: &Entry, bytes: &[u8]) -> Result<Option<Vec<Verified>>, DecodeError> {
    if entry.size <= GROUP_SIZE && bytes.len() == entry.len && hash(bytes) == root {
        return Ok(None);
    }
    let mut verifier = Verifier::new(root, Plan::new(entry.size, &Ranges::all()));
    let mut items = Vec::new();
    let used = verifier.verify(bytes, &mut items)?;
    match verifier.upcoming().map(Place::of) {
        None => Ok(Some(items)),
        Some(place) if used < bytes.len() => Err(DecodeError::Truncated(Some(place))),
        Some(Place::Node(node)) => Err(DecodeError::ParentNotFound { node }),
        Some(Place::Chunk(chunk)) => Err(DecodeError::LeafNotFound { chunk }),
    }
}

/// Verifies the entries in order, up to the first that is wrong.
fn verify_all(slab: Slab, hashes: &[Hash]) -> (Batch, Option<End>) {
    let Slab {
        bytes,
        entries,
        mut end,
    } = slab;
    let mut blobs = Vec::with_capacity(entries.len());
    for entry in entries {
        let there = &bytes[entry.at..bytes.len().min(entry.at + entry.len)];
        match verify(hashes[entry.index], &entry, there) {
            Ok(items) => blobs.push(Blob {
                index: entry.index,
                size: entry.size as usize,
                at: entry.at,
                items,
            }),
            Err(err) => {
                end = Some(End::Failed(entry.index, err));
                break;
            }
        }
    }
    (Batch { slab: bytes, blobs }, end)
}

/// Takes the stream apart into slabs.
struct Reader {
    hashes: Arc<[Hash]>,
    whole_max: u64,
    batch_bytes: usize,
    /// The blob whose header comes next.
    next: usize,
    /// Encodings of `entries`, of which the last one may be incomplete, then what follows.
    bytes: Buffer,
    pool: Pool,
    entries: Vec<Entry>,
    /// Where the header of `next` is to be.
    at: usize,
}

impl Reader {
    /// Reads until a slab is full or nothing more is to come.
    async fn slab(&mut self, reading: &mut Reading) -> Slab {
        let end = loop {
            if let Some(end) = self.parse() {
                // What follows is whoever's comes next on this stream.
                let begin = self.at.min(self.bytes.len());
                reading.put_back(Bytes::copy_from_slice(&self.bytes[begin..]));
                self.bytes.truncate(begin);
                break Some(end);
            }
            if self.is_full() {
                break None;
            }
            match self.grow(reading).await {
                Ok(0) => break Some(self.ended_early()),
                Ok(_) => {}
                Err(err) => {
                    self.drop_incomplete();
                    break Some(End::Broken(err));
                }
            }
        };
        self.cut(end)
    }

    /// Looks at the headers that are there.
    fn parse(&mut self) -> Option<End> {
        while let Some(header) = self.bytes.get(self.at..self.at + HEADER_SIZE)
            && self.next < self.hashes.len()
        {
            let mut size = [0; HEADER_SIZE];
            size.copy_from_slice(header);
            let size = u64::from_le_bytes(size);
            let index = self.next;
            self.at += HEADER_SIZE;
            if check_size(size).is_err() {
                return Some(End::Failed(index, DecodeError::SizeInvalid));
            }
            if size > self.whole_max {
                return Some(End::Large(index, size));
            }
            let len = (size + outboard_size(size)) as usize;
            self.entries.push(Entry {
                index,
                size,
                at: self.at,
                len,
            });
            self.at += len;
            self.next += 1;
        }
        let is_all = self.next == self.hashes.len() && self.at <= self.bytes.len();
        is_all.then_some(End::All)
    }

    /// Whether enough whole blobs are there.
    fn is_full(&self) -> bool {
        let whole = match self.entries.last() {
            Some(last) if self.at > self.bytes.len() => last.at - HEADER_SIZE,
            _ => self.at,
        };
        whole >= self.batch_bytes
    }

    async fn grow(&mut self, reading: &mut Reading) -> Result<usize, Error> {
        let begin = self.bytes.len();
        // Up to the end of the blob under way, or to fill the slab.
        let missing = (self.at + HEADER_SIZE).saturating_sub(begin);
        let room = self.batch_bytes.saturating_sub(begin);
        let len = missing.max(room).min(STEP);
        let more = reading.fill(self.bytes.room(len)).await?;
        self.bytes.advance(more);
        Ok(more)
    }

    /// The stream has ended, and something is missing.
    fn ended_early(&self) -> End {
        let failure = match self.bytes.len().checked_sub(self.at) {
            Some(0) => DecodeError::SizeNotFound,
            Some(_) => DecodeError::Truncated(None),
            // The entry is cut off, which its verification tells better.
            None => return End::All,
        };
        End::Failed(self.next, failure)
    }

    /// Forgets a blob whose rest cannot come any more.
    fn drop_incomplete(&mut self) {
        if self.at > self.bytes.len() {
            self.entries.pop();
        }
    }

    /// Parts with what is there; an incomplete blob goes on in the next slab.
    fn cut(&mut self, end: Option<End>) -> Slab {
        let mut entries = mem::take(&mut self.entries);
        let mut rest = Buffer::default();
        if end.is_none() {
            let begin = match entries.pop_if(|last| last.at + last.len > self.bytes.len()) {
                None => self.at,
                Some(last) => {
                    self.entries.push(Entry {
                        at: HEADER_SIZE,
                        ..last
                    });
                    last.at - HEADER_SIZE
                }
            };
            rest = self.pool.take();
            rest.push(&self.bytes[begin..]);
            self.at -= begin;
        }
        Slab {
            bytes: mem::replace(&mut self.bytes, rest),
            entries,
            end,
        }
    }
}

/// Reads slabs until the last one.
async fn read_slabs(mut reader: Reader, stream: RecvShared, slabs: mpsc::Sender<Slab>) {
    loop {
        // The stream is held only while it is read: an endpoint that closes waits for it.
        let Ok(room) = slabs.reserve().await else {
            return;
        };
        let slab = match stream.reading().await {
            Ok(mut reading) => reader.slab(&mut reading).await,
            Err(err) => {
                reader.drop_incomplete();
                reader.cut(Some(End::Broken(err)))
            }
        };
        let is_last = slab.end.is_some();
        room.send(slab);
        if is_last {
            return;
        }
    }
}

/// Verifies slabs until the last one, or until one is bad.
async fn verify_slabs(
    hashes: Arc<[Hash]>,
    mut slabs: mpsc::Receiver<Slab>,
    batches: mpsc::Sender<(Batch, Option<End>)>,
) {
    while let Some(slab) = slabs.recv().await {
        let hashes = hashes.clone();
        let verifying = tokio::task::spawn_blocking(move || verify_all(slab, &hashes));
        let verified = verifying
            .await
            .unwrap_or_else(|err| (Batch::default(), Some(End::Broken(panicked(err)))));
        let is_last = verified.1.is_some();
        if batches.send(verified).await.is_err() || is_last {
            return;
        }
    }
}

/// The tasks that work ahead; they end when nobody wants their work any more.
struct Ahead {
    batches: mpsc::Receiver<(Batch, Option<End>)>,
    tasks: [AbortHandle; 2],
}

impl Ahead {
    fn start(reader: Reader, stream: RecvShared) -> Self {
        let (slabs_in, slabs) = mpsc::channel(AHEAD);
        let (batches_in, batches) = mpsc::channel(AHEAD);
        let hashes = reader.hashes.clone();
        let verifying = tokio::spawn(verify_slabs(hashes, slabs, batches_in));
        let reading = tokio::spawn(read_slabs(reader, stream, slabs_in));
        Self {
            batches,
            tasks: [verifying.abort_handle(), reading.abort_handle()],
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Everything a cancelled call leaves for the next one.
enum State {
    New(Reader),
    Running {
        ahead: Ahead,
        /// Verified, not yet handed over.
        ready: Option<(Batch, Option<End>)>,
    },
    Ended(End),
    /// Only while one of the above becomes another.
    Moving,
}

impl State {
    /// The next batch that holds anything; none at the end.
    async fn next(&mut self, stream: &RecvShared) -> Result<Option<(Batch, Option<End>)>, Error> {
        if matches!(self, Self::New(_))
            && let Self::New(reader) = mem::replace(self, Self::Moving)
        {
            *self = Self::Running {
                ahead: Ahead::start(reader, stream.clone()),
                ready: None,
            };
        }
        let Self::Running { ahead, ready } = self else {
            return Ok(None);
        };
        let next = match ready.take() {
            Some(next) => next,
            None => ahead.batches.recv().await.ok_or_else(|| {
                Error::Failed("a task of the pump ended early; please report this".to_owned())
            })?,
        };
        if !next.0.blobs.is_empty() {
            return Ok(Some(next));
        }
        // Only a last slab can be empty.
        *self = Self::Ended(next.1.unwrap_or(End::All));
        Ok(None)
    }
}

/// The error that ended a stream, as reading it again tells.
async fn broken(stream: &RecvShared) -> Error {
    let reading = async { stream.reading().await?.fill(&mut [0]).await };
    match reading.await {
        Err(err) => err,
        Ok(_) => Error::Failed("the stream goes on after an error".to_owned()),
    }
}

/// What Python may look at at any time.
#[derive(Default)]
struct Status {
    index: AtomicUsize,
    large: Mutex<Option<(usize, u64)>>,
}

impl Status {
    fn tell(&self, end: &End) {
        match end {
            End::Large(index, size) => *lock(&self.large) = Some((*index, *size)),
            End::Failed(index, _) => self.index.store(*index, Ordering::Release),
            End::All | End::Broken(_) => {}
        }
    }
}

/// A batch on its way to Python; it goes back if it does not get there.
struct Taken {
    state: OwnedMutexGuard<State>,
    batch: Option<(Batch, Option<End>)>,
    status: Arc<Status>,
}

impl Taken {
    fn deliver(mut self) -> Deliver {
        Box::new(move |py| {
            let Some((batch, end)) = self.batch.take() else {
                return Ok(Py::new(py, WholeBlobs(Batch::default()))?.into_any());
            };
            let next = batch.blobs.last().map_or(0, |last| last.index + 1);
            self.status.index.store(next, Ordering::Release);
            if let Some(end) = end {
                if matches!(end, End::Large(..)) {
                    self.status.tell(&end);
                }
                *self.state = State::Ended(end);
            }
            Ok(Py::new(py, WholeBlobs(batch))?.into_any())
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let (Some(batch), State::Running { ready, .. }) = (self.batch.take(), &mut *self.state) {
            *ready = Some(batch);
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
            state: Arc::new(AsyncMutex::new(State::New(Reader {
                hashes: hashes.into(),
                whole_max,
                batch_bytes,
                next: 0,
                bytes: Buffer::default(),
                pool: Pool::default(),
                entries: Vec::new(),
                at: 0,
            }))),
            status: Arc::default(),
        })
    }
}

async fn next(
    mut state: OwnedMutexGuard<State>,
    stream: RecvShared,
    status: Arc<Status>,
) -> Result<Taken, Error> {
    let batch = state.next(&stream).await?;
    if batch.is_none()
        && let State::Ended(end) = &mut *state
    {
        status.tell(end);
        match end {
            End::All | End::Large(..) => {}
            End::Failed(_, failure) => return Err((*failure).into()),
            End::Broken(err) => {
                let told = mem::replace(err, Error::StreamClosed);
                if !matches!(told, Error::StreamClosed) {
                    return Err(told);
                }
                return Err(broken(&stream).await);
            }
        }
    }
    Ok(Taken {
        state,
        batch,
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
