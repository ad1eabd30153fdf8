//! Receives the encoding of ranges of one blob into files.

use std::{
    fs::File,
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
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use super::{QUEUE_MAX, check_size, hash_of, panicked, ranges_of};
use crate::{
    bridge::{Local, Operation, lock},
    endpoint::{boolean, none},
    error::Error,
    recv::{Reading, RecvShared},
};

/// Bytes that are read, verified and written at one time. A fetch has many of these pumps at once,
/// so it is less than what a sender takes: four times this is what one may hold.
const BUFFER_SIZE: usize = 256 << 10;

struct Files {
    data: File,
    outboard: Option<File>,
}

/// What Python may look at at any time.
struct Status {
    /// Verified and written.
    proven: Mutex<Proven>,
    is_done: AtomicBool,
    /// Whether a thread may touch the files.
    is_writing: watch::Sender<bool>,
}

/// Between two runs: where the encoding stands. Gone while a run is under way, and for good when
/// a run did not come to its end.
struct Position {
    /// Items that are still to be read.
    plan: Plan,
    verifier: Verifier,
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
                is_writing: watch::Sender::new(false),
            }),
            position: Arc::new(AsyncMutex::new(Some(Position {
                verifier: Verifier::new(root, plan.clone()),
                plan,
            }))),
        })
    }
}

/// Bytes of whole items, or at the end of the stream of what came.
struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

/// Hands buffers to the writing thread; a part of one also when the reader is cancelled.
struct Feeder {
    full: mpsc::Sender<Buffer>,
    empty: mpsc::Receiver<Vec<u8>>,
    current: Buffer,
}

impl Feeder {
    /// Reads `len` bytes and hands them over. False at the end of the stream, with what came
    /// handed over. Ok too when the thread has given up, which its own result will tell.
    async fn feed(&mut self, reading: &mut Reading, len: usize) -> Result<bool, Error> {
        let buffer = &mut self.current;
        if buffer.bytes.len() < len {
            buffer.bytes.resize(len, 0);
        }
        let result = loop {
            if buffer.len == len {
                break Ok(true);
            }
            match reading.fill(&mut buffer.bytes[buffer.len..len]).await {
                Ok(0) => break Ok(false),
                Ok(more) => buffer.len += more,
                Err(err) => break Err(err),
            }
        };
        // A buffer leaves this place only once there is room for it, so that none is lost between.
        if let Ok(room) = self.full.reserve().await {
            let next = self.empty.try_recv().unwrap_or_default();
            let full = std::mem::replace(
                &mut self.current,
                Buffer {
                    bytes: next,
                    len: 0,
                },
            );
            room.send(full);
        }
        result
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        if self.current.len > 0 {
            let buffer = std::mem::replace(
                &mut self.current,
                Buffer {
                    bytes: Vec::new(),
                    len: 0,
                },
            );
            // Without room the thread is busy with enough that is proven.
            let _ = self.full.try_send(buffer);
        }
    }
}

/// Says that no thread touches the files any more, however the thread ends.
struct Settle(Arc<Status>);

impl Drop for Settle {
    fn drop(&mut self) {
        self.0.is_writing.send_replace(false);
    }
}

/// Verifies and writes buffers until no more come; gives the bytes that were no whole item.
fn write_buffers(
    verifier: &mut Verifier,
    files: &Files,
    status: &Status,
    mut full: mpsc::Receiver<Buffer>,
    empty: &mpsc::Sender<Vec<u8>>,
) -> Result<usize, Error> {
    let mut verified = Vec::new();
    let mut left_over = 0;
    while let Some(buffer) = full.blocking_recv() {
        let bytes = &buffer.bytes[..buffer.len];
        verified.clear();
        let result = verifier.verify(bytes, &mut verified);
        write_verified(bytes, &verified, Some(&files.data), files.outboard.as_ref())?;
        lock(&status.proven).record(&verified);
        left_over = buffer.len - result?;
        // A reader that is gone needs no buffer.
        let _ = empty.try_send(buffer.bytes);
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

async fn run(
    position: Position,
    stream: RecvShared,
    files: Arc<Files>,
    status: Arc<Status>,
    mut budget: usize,
) -> Result<Position, Error> {
    let Position { mut plan, verifier } = position;
    let mut reading = stream.reading().await?;
    let (full_in, full) = mpsc::channel(QUEUE_MAX);
    let (empty, empty_out) = mpsc::channel(QUEUE_MAX + 2);
    status.is_writing.send_replace(true);
    let settle = Settle(status.clone());
    let writer = tokio::task::spawn_blocking(move || {
        let mut verifier = verifier;
        let result = write_buffers(&mut verifier, &files, &settle.0, full, &empty);
        (verifier, result)
    });
    let mut feeder = Feeder {
        full: full_in,
        empty: empty_out,
        current: Buffer {
            bytes: Vec::new(),
            len: 0,
        },
    };
    let mut ended = Ok(true);
    while plan.peek().is_some() && budget > 0 && !feeder.full.is_closed() {
        let len = plan.skip_batch(budget.min(BUFFER_SIZE));
        budget = budget.saturating_sub(len);
        ended = feeder.feed(&mut reading, len).await;
        if !matches!(ended, Ok(true)) {
            break;
        }
    }
    drop(feeder);
    let (verifier, result) = writer.await.map_err(panicked)?;
    let left_over = result?;
    if !ended? {
        return Err(ended_early(verifier.upcoming(), left_over));
    }
    Ok(Position { plan, verifier })
}

#[pymethods]
impl BlobPump {
    #[pyo3(signature = (max_bytes=None))]
    fn run(&self, max_bytes: Option<usize>) -> PyResult<Operation> {
        if max_bytes == Some(0) {
            return Err(Error::Value("max_bytes must be 1 or more".to_owned()).into());
        }
        let stream = self.stream.get()?.clone();
        let files = self.files.clone();
        let status = self.status.clone();
        let held = self.position.clone();
        Ok(Operation::new(async move {
            let mut held = held.lock().await;
            let position = held.take().ok_or(Error::Pump(
                "the pump ended early and cannot go on; ask for what is missing on another stream",
            ))?;
            let position = if status.is_done.load(Ordering::Acquire) {
                position
            } else {
                let budget = max_bytes.unwrap_or(usize::MAX);
                run(position, stream, files, status.clone(), budget).await?
            };
            let is_done = position.verifier.upcoming().is_none();
            status.is_done.store(is_done, Ordering::Release);
            *held = Some(position);
            boolean(is_done)
        }))
    }

    fn settled(&self) -> PyResult<Operation> {
        self.stream.get()?;
        let mut is_writing = self.status.is_writing.subscribe();
        let held = self.position.clone();
        Ok(Operation::new(async move {
            // A cancelled run that is still at it could start the thread only now.
            drop(held.lock().await);
            // The sender lives in the status, which a thread that writes holds too.
            let _ = is_writing.wait_for(|is_writing| !is_writing).await;
            none()
        }))
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
