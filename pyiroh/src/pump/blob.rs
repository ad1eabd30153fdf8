//! Receives the encoding of ranges of one blob into files.

use std::{
    fs::File,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use pybao::{
    decode::{DecodeError, Place, Proven, Verifier},
    io::{dup, write_verified},
    plan::{Item, Plan},
};
use pyo3::prelude::*;
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, watch},
    task::JoinHandle,
};

use super::{
    BUFFER_SIZE, BUFFERS, QUEUE_MAX, check_size, hash_of, panicked, pool::Buffer, ranges_of,
};
use crate::{
    bridge::{Local, Operation, lock},
    endpoint::{boolean, none},
    error::Error,
    recv::{Reading, RecvShared},
};

struct Files {
    data: File,
    outboard: Option<File>,
}

/// What Python may look at at any time.
struct Status {
    /// Verified and written.
    proven: Mutex<Proven>,
    is_done: AtomicBool,
    /// Bytes of the encoding that a thread has and did not write yet.
    pending: watch::Sender<usize>,
    /// Whether a thread may touch the files.
    is_writing: watch::Sender<bool>,
}

/// Between two runs: where the encoding stands. Gone while a run is under way, and for good when
/// a run did not come to its end.
enum Position {
    New(Verifier),
    UnderWay(Transfer),
}

/// Items that are still to be read, and the thread that verifies and writes them.
struct Transfer {
    plan: Plan,
    feeder: Feeder,
    writer: JoinHandle<(Verifier, Result<usize, Error>)>,
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct BlobPump {
    stream: Local<RecvShared>,
    files: Arc<Files>,
    status: Arc<Status>,
    position: Arc<AsyncMutex<Option<Position>>>,
}

impl BlobPump {
    pub fn new(
        stream: RecvShared,
        root: &[u8],
        size: u64,
        ranges: Vec<u64>,
        data_fd: i32,
        outboard_fd: Option<i32>,
    ) -> Result<Self, Error> {
        let root = hash_of(root)?;
        let ranges = ranges_of(ranges)?;
        let plan = Plan::new(check_size(size)?, &ranges);
        let is_done = plan.peek().is_none();
        Ok(Self {
            stream: Local::new(stream),
            files: Arc::new(Files {
                data: dup(data_fd)?,
                outboard: outboard_fd.map(dup).transpose()?,
            }),
            status: Arc::new(Status {
                proven: Mutex::new(Proven::new(size)),
                is_done: AtomicBool::new(is_done),
                pending: watch::Sender::new(0),
                is_writing: watch::Sender::new(false),
            }),
            position: Arc::new(AsyncMutex::new(Some(Position::New(Verifier::new(
                root, plan,
            ))))),
        })
    }
}

/// Hands buffers of whole items, or at the end of the stream of what came, to the writing thread;
/// a part of one also when the reader is cancelled.
struct Feeder {
    full: mpsc::Sender<Buffer>,
    current: Buffer,
    status: Arc<Status>,
}

impl Feeder {
    /// Reads `len` bytes and hands them over. False at the end of the stream, with what came
    /// handed over. Ok too when the thread has given up, which its own result will tell.
    async fn feed(&mut self, reading: &mut Reading, len: usize) -> Result<bool, Error> {
        let buffer = &mut self.current;
        let result = loop {
            let missing = len - buffer.len();
            if missing == 0 {
                break Ok(true);
            }
            match reading.fill(buffer.room(missing)).await {
                Ok(0) => break Ok(false),
                Ok(more) => buffer.advance(more),
                Err(err) => break Err(err),
            }
        };
        // A buffer leaves this place only once there is room for it, so that none is lost between.
        if let Ok(room) = self.full.reserve().await {
            let full = mem::replace(buffer, BUFFERS.take());
            self.status
                .pending
                .send_modify(|bytes| *bytes += full.len());
            room.send(full);
        }
        result
    }

    /// Waits until all that was handed over is written, or the thread has given up.
    async fn flush(&self) {
        let mut pending = self.status.pending.subscribe();
        tokio::select! {
            _ = pending.wait_for(|bytes| *bytes == 0) => {}
            () = self.full.closed() => {}
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // Without room the thread is busy with enough that is proven.
        if !self.current.is_empty()
            && let Ok(room) = self.full.try_reserve()
        {
            room.send(mem::take(&mut self.current));
        }
    }
}

/// Says that no thread touches the files any more, however the thread ends.
struct Settle(Arc<Status>);

impl Drop for Settle {
    fn drop(&mut self) {
        self.0.pending.send_replace(0);
        self.0.is_writing.send_replace(false);
    }
}

/// Verifies and writes buffers until no more come; gives the bytes that were no whole item.
fn write_buffers(
    verifier: &mut Verifier,
    files: &Files,
    status: &Status,
    mut full: mpsc::Receiver<Buffer>,
) -> Result<usize, Error> {
    let mut verified = Vec::new();
    let mut left_over = 0;
    while let Some(buffer) = full.blocking_recv() {
        verified.clear();
        let result = verifier.verify(&buffer, &mut verified);
        write_verified(
            &buffer,
            &verified,
            Some(&files.data),
            files.outboard.as_ref(),
        )?;
        lock(&status.proven).record(&verified);
        left_over = buffer.len() - result?;
        // What a cancelled reader left behind was not counted.
        let done = |bytes: &mut usize| *bytes = bytes.saturating_sub(buffer.len());
        status.pending.send_modify(done);
    }
    Ok(left_over)
}

/// What is missing when the stream ends before the encoding does.
fn ended_early(upcoming: Option<&Item>, left_over: usize) -> Error {
    match upcoming.map(Place::of) {
        Some(place) if left_over > 0 => DecodeError::Truncated(Some(place)),
        Some(Place::Node(node)) => DecodeError::ParentNotFound { node },
        Some(Place::Chunk(chunk)) => DecodeError::LeafNotFound { chunk },
        None => DecodeError::Truncated(None),
    }
    .into()
}

impl Transfer {
    fn start(verifier: Verifier, files: Arc<Files>, status: Arc<Status>) -> Self {
        let (full_in, full) = mpsc::channel(QUEUE_MAX);
        status.is_writing.send_replace(true);
        let settle = Settle(status.clone());
        let plan = verifier.plan().clone();
        let writer = tokio::task::spawn_blocking(move || {
            let mut verifier = verifier;
            let result = write_buffers(&mut verifier, &files, &settle.0, full);
            (verifier, result)
        });
        let feeder = Feeder {
            full: full_in,
            current: BUFFERS.take(),
            status,
        };
        Self {
            plan,
            feeder,
            writer,
        }
    }

    /// Reads about `budget` bytes; with `ahead` the last of them may not be written yet.
    /// Gives back what it takes to go on, nothing when all is written.
    async fn run(
        mut self,
        stream: RecvShared,
        mut budget: usize,
        ahead: bool,
    ) -> Result<Option<Self>, Error> {
        let mut reading = stream.reading().await?;
        let mut ended = Ok(true);
        while self.plan.peek().is_some() && budget > 0 && !self.feeder.full.is_closed() {
            let len = self.plan.skip_batch(budget.min(BUFFER_SIZE));
            budget = budget.saturating_sub(len);
            ended = self.feeder.feed(&mut reading, len).await;
            if !matches!(ended, Ok(true)) {
                break;
            }
        }
        if matches!(ended, Ok(true)) && self.plan.peek().is_some() {
            if !ahead {
                self.feeder.flush().await;
            }
            if !self.feeder.full.is_closed() {
                return Ok(Some(self));
            }
        }
        drop(self.feeder);
        let (verifier, result) = self.writer.await.map_err(panicked)?;
        let left_over = result?;
        if !ended? {
            return Err(ended_early(verifier.upcoming(), left_over));
        }
        Ok(None)
    }
}

#[pymethods]
impl BlobPump {
    #[pyo3(signature = (max_bytes=None, *, ahead=false))]
    fn run(&self, max_bytes: Option<usize>, ahead: bool) -> PyResult<Operation> {
        if max_bytes == Some(0) {
            return Err(Error::Value("max_bytes must be 1 or more".to_owned()).into());
        }
        let stream = self.stream.get()?.clone();
        let files = self.files.clone();
        let status = self.status.clone();
        let held = self.position.clone();
        Ok(Operation::new(async move {
            let mut held = held.lock().await;
            if status.is_done.load(Ordering::Acquire) {
                return boolean(true);
            }
            let position = held.take().ok_or(Error::Pump(
                "the pump ended early and cannot go on; ask for what is missing on another stream",
            ))?;
            let transfer = match position {
                Position::New(verifier) => Transfer::start(verifier, files, status.clone()),
                Position::UnderWay(transfer) => transfer,
            };
            let budget = max_bytes.unwrap_or(usize::MAX);
            *held = transfer
                .run(stream, budget, ahead)
                .await?
                .map(Position::UnderWay);
            let is_done = held.is_none();
            status.is_done.store(is_done, Ordering::Release);
            boolean(is_done)
        }))
    }

    fn settled(&self) -> PyResult<Operation> {
        self.stream.get()?;
        let mut is_writing = self.status.is_writing.subscribe();
        let held = self.position.clone();
        Ok(Operation::new(async move {
            // A cancelled run that is still at it could start the thread only now. One that waits
            // for the next run ends, since nobody feeds it any more.
            held.lock().await.take();
            // The sender lives in the status, which a thread that writes holds too.
            let _ = is_writing.wait_for(|is_writing| !is_writing).await;
            none()
        }))
    }

    #[getter]
    fn pending(&self) -> usize {
        *self.status.pending.borrow()
    }

    #[getter]
    fn bytes(&self) -> u64 {
        lock(&self.status.proven).bytes()
    }

    #[getter]
    fn proven(&self) -> Vec<u64> {
        lock(&self.status.proven).boundaries().to_vec()
    }

    #[getter]
    fn size_proven(&self) -> bool {
        lock(&self.status.proven).size_proven()
    }

    #[getter]
    fn is_done(&self) -> bool {
        self.status.is_done.load(Ordering::Acquire)
    }
}
