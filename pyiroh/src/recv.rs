//! The receiving half of a stream.
//!
//! Bytes that an operation took from the network go back in front of the stream unless Python
//! gets them: a read may be cancelled at any moment and loses nothing.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use iroh::endpoint::{ConnectionError, ReadError, RecvStream as IrohRecv, VarInt};
use n0_future::future::now_or_never;
use pyo3::{exceptions::PyValueError, prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::{
    bridge::{Deliver, Local, Operation, runtime},
    error::{Error, reason_at_end},
    lease::{Lease, Leased, Member},
    pump::{batch::BatchPump, blob::BlobPump, hash_of},
    transport::varint,
};

/// Most packets' worth of data taken at one time.
const CHUNKS_MAX: usize = 1024;

/// Blob bytes in a batch of small blobs, unless asked otherwise.
const BATCH_BYTES: usize = 1 << 20;

/// Shorter pieces are copied together: each would keep the whole packet it came in alive.
const SHORT_CHUNK: usize = 1024;

/// About the bytes taken at a time from the stream of a closed endpoint.
const RELEASE_STEP: usize = 256 << 10;

/// Why no more bytes will come. Kept, because noq tells it once and then says "end".
#[derive(Clone)]
enum End {
    Finished,
    Reset(u64),
    Lost(ConnectionError),
    Stopped,
}

impl From<&ReadError> for End {
    fn from(err: &ReadError) -> Self {
        match err {
            ReadError::Reset(code) => Self::Reset(code.into_inner()),
            ReadError::ConnectionLost(lost) => Self::Lost(lost.clone()),
            ReadError::ClosedStream | ReadError::ZeroRttRejected => Self::Stopped,
        }
    }
}

/// The stream itself, held by one operation at a time.
pub struct RecvHalf {
    /// Gone once the endpoint is closed; there is an `end` then.
    stream: Option<Leased<IrohRecv>>,
    /// Bytes that were taken and put back.
    front: VecDeque<Bytes>,
    end: Option<End>,
    scratch: Vec<Bytes>,
}

impl RecvHalf {
    /// Appends at least one and at most `max` bytes; none at the end. Safe to cancel.
    async fn read_some(&mut self, max: usize, into: &mut Pieces) -> Result<usize, Error> {
        if self.front.is_empty() {
            self.receive(max).await?;
        }
        let mut taken = 0;
        while taken < max {
            let Some(mut chunk) = self.front.pop_front() else {
                break;
            };
            if chunk.len() > max - taken {
                self.front.push_front(chunk.split_off(max - taken));
            }
            taken += chunk.len();
            into.push(chunk);
        }
        Ok(taken)
    }

    /// Moves what has arrived, about `max` bytes of it, to the front; waits if there is nothing.
    async fn receive(&mut self, max: usize) -> Result<(), Error> {
        let (None, Some(stream)) = (&self.end, &mut self.stream) else {
            return self.check_end();
        };
        let count = (max / SHORT_CHUNK + 1).min(CHUNKS_MAX);
        if self.scratch.len() < count {
            self.scratch.resize(count, Bytes::new());
        }
        match stream.read_many_chunks(&mut self.scratch[..count]).await {
            Ok(Some(filled)) => {
                let chunks = self.scratch[..filled].iter_mut().map(mem::take);
                self.front.extend(chunks);
                Ok(())
            }
            Ok(None) => {
                self.end = Some(End::Finished);
                Ok(())
            }
            Err(err) => {
                self.end = Some(End::from(&err));
                Err(err.into())
            }
        }
    }

    /// Fills the beginning of a buffer that is not empty; 0 bytes at the end. Safe to cancel.
    async fn read_into(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.front.is_empty()
            && self.end.is_none()
            && let Some(stream) = &mut self.stream
        {
            match stream.read(buffer).await {
                Ok(Some(len)) => return Ok(len),
                Ok(None) => self.end = Some(End::Finished),
                Err(err) => self.end = Some(End::from(&err)),
            }
        }
        self.check_end()?;
        let mut len = 0;
        while let Some(chunk) = self.front.front_mut() {
            let part = chunk.split_to(chunk.len().min(buffer.len() - len));
            buffer[len..len + part.len()].copy_from_slice(&part);
            len += part.len();
            if !chunk.is_empty() {
                break;
            }
            self.front.pop_front();
        }
        Ok(len)
    }

    /// The error that any further read meets, unless bytes were put back.
    fn check_end(&self) -> Result<(), Error> {
        match &self.end {
            Some(End::Stopped) => Err(Error::StreamClosed),
            _ if !self.front.is_empty() => Ok(()),
            None | Some(End::Finished) => Ok(()),
            Some(End::Reset(code)) => Err(Error::StreamReset(*code)),
            Some(End::Lost(lost)) => Err(Error::Lost(lost.clone())),
        }
    }

    fn stop(&mut self, code: VarInt) {
        self.end = Some(End::Stopped);
        self.front.clear();
        if let Some(stream) = &mut self.stream {
            // Closed already means that all has been received.
            let _ = stream.stop(code);
        }
    }

    /// Parts with the stream of a closed endpoint. What has arrived can still be read.
    fn release(&mut self) {
        while self.end.is_none() {
            // An error is the end, and kept as that.
            if now_or_never(self.receive(RELEASE_STEP)).is_none() {
                self.end = Some(End::Lost(ConnectionError::LocallyClosed));
            }
        }
        if let Some(End::Lost(lost)) = &mut self.end {
            *lost = reason_at_end(Some(lost.clone()));
        }
        self.stream = None;
    }
}

impl Member for Mutex<RecvHalf> {
    fn release(self: Arc<Self>) {
        if let Ok(mut half) = self.try_lock() {
            return half.release();
        }
        tokio::spawn(async move { self.lock().await.release() });
    }
}

/// Bytes in order, not yet in one piece.
#[derive(Default)]
pub struct Pieces {
    chunks: Vec<Bytes>,
    tail: Vec<u8>,
    len: usize,
}

impl Pieces {
    fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        if chunk.len() < SHORT_CHUNK {
            self.tail.extend_from_slice(&chunk);
        } else {
            self.flush();
            self.chunks.push(chunk);
        }
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(mem::take(&mut self.tail).into());
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// All bytes in a buffer of exactly their length.
    pub fn copy_to(&self, mut buffer: &mut [u8]) {
        let tail = std::iter::once(self.tail.as_slice());
        for piece in self.chunks.iter().map(AsRef::as_ref).chain(tail) {
            let (head, rest) = buffer.split_at_mut(piece.len());
            head.copy_from_slice(piece);
            buffer = rest;
        }
    }
}

/// The right to read a stream, and bytes read that nobody has yet.
pub struct Reading {
    half: OwnedMutexGuard<RecvHalf>,
    halted: watch::Receiver<bool>,
    pieces: Pieces,
}

impl Reading {
    /// Waits for more, at most `max` bytes; 0 at the end. Ends with an error when the stream is
    /// stopped meanwhile. Safe to cancel.
    pub async fn more(&mut self, max: usize) -> Result<usize, Error> {
        tokio::select! {
            biased;
            _ = self.halted.wait_for(|halted| *halted) => Err(Error::StreamClosed),
            result = self.half.read_some(max, &mut self.pieces) => result,
        }
    }

    /// Waits until `len` bytes are there. False if the stream ended before.
    pub async fn until(&mut self, len: usize) -> Result<bool, Error> {
        while self.pieces.len < len {
            if self.more(len - self.pieces.len).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the bytes so far the caller's.
    pub fn take(&mut self) -> Pieces {
        mem::take(&mut self.pieces)
    }

    /// Like `more`, but straight into a buffer that is not empty: what is in it is the caller's.
    pub async fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        tokio::select! {
            biased;
            _ = self.halted.wait_for(|halted| *halted) => Err(Error::StreamClosed),
            result = self.half.read_into(buffer) => result,
        }
    }

    /// Bytes that were read too far go back in front of the stream.
    pub fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.half.front.push_front(bytes);
        }
    }

    fn deliver(mut self) -> Deliver {
        Box::new(move |py| {
            let bytes = PyBytes::new_with(py, self.pieces.len, |buffer| {
                self.pieces.copy_to(buffer);
                Ok(())
            })?;
            self.take();
            Ok(bytes.into_any().unbind())
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut pieces = self.take();
        pieces.flush();
        for chunk in pieces.chunks.into_iter().rev() {
            self.half.front.push_front(chunk);
        }
    }
}

/// What the operations of a stream share.
#[derive(Clone)]
pub struct RecvShared {
    half: Arc<Mutex<RecvHalf>>,
    /// Set by `stop`, which must not wait for an operation that is blocked on the peer.
    halted: watch::Sender<bool>,
}

impl RecvShared {
    pub async fn reading(&self) -> Result<Reading, Error> {
        let mut halted = self.halted.subscribe();
        let half = tokio::select! {
            biased;
            _ = halted.wait_for(|halted| *halted) => return Err(Error::StreamClosed),
            half = self.half.clone().lock_owned() => half,
        };
        Ok(Reading {
            half,
            halted,
            pieces: Pieces::default(),
        })
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct RecvStream {
    pub shared: Local<RecvShared>,
    id: u64,
}

impl RecvStream {
    pub fn new(stream: IrohRecv, lease: &Lease) -> Self {
        let id = VarInt::from(stream.id()).into_inner();
        let half = Arc::new(Mutex::new(RecvHalf {
            stream: Some(lease.with(stream)),
            front: VecDeque::new(),
            end: None,
            scratch: Vec::new(),
        }));
        lease.join(&half);
        let halted = watch::Sender::new(false);
        Self {
            shared: Local::new(RecvShared { half, halted }),
            id,
        }
    }
}

#[pymethods]
impl RecvStream {
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }

    fn read(&self, n: usize) -> PyResult<Operation> {
        if n == 0 {
            return Err(PyValueError::new_err("n must be 1 or more"));
        }
        let shared = self.shared.get()?.clone();
        Ok(Operation::new(async move {
            let mut reading = shared.reading().await?;
            reading.more(n).await?;
            Ok(reading.deliver())
        }))
    }

    fn read_exact(&self, n: usize) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        Ok(Operation::new(async move {
            let mut reading = shared.reading().await?;
            if reading.until(n).await? {
                return Ok(reading.deliver());
            }
            let partial = reading.take();
            let mut bytes = vec![0; partial.len()];
            partial.copy_to(&mut bytes);
            Err(Error::IncompleteRead(bytes))
        }))
    }

    fn read_to_end(&self, limit: usize) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        Ok(Operation::new(async move {
            let mut reading = shared.reading().await?;
            // One byte beyond the limit tells a stream of just that length from a longer one.
            if reading.until(limit.saturating_add(1)).await? {
                return Err(Error::StreamTooLong { limit });
            }
            Ok(reading.deliver())
        }))
    }

    #[pyo3(signature = (code=0))]
    fn stop(&self, code: u64) -> PyResult<()> {
        let code = varint("code", code)?;
        let shared = self.shared.get()?.clone();
        shared.halted.send_replace(true);
        match shared.half.clone().try_lock_owned() {
            Ok(mut half) => half.stop(code),
            Err(_) => {
                runtime()?.spawn(async move { shared.half.lock().await.stop(code) });
            }
        }
        Ok(())
    }

    #[pyo3(signature = (root, size, ranges, data_fd, outboard_fd=None))]
    fn blob_pump(
        &self,
        root: &[u8],
        size: u64,
        ranges: Vec<u64>,
        data_fd: i32,
        outboard_fd: Option<i32>,
    ) -> PyResult<BlobPump> {
        let stream = self.shared.get()?.clone();
        Ok(BlobPump::new(
            stream,
            root,
            size,
            ranges,
            data_fd,
            outboard_fd,
        )?)
    }

    #[pyo3(signature = (hashes, whole_max, batch_bytes=BATCH_BYTES))]
    fn batch_pump(
        &self,
        hashes: Vec<PyBackedBytes>,
        whole_max: u64,
        batch_bytes: usize,
    ) -> PyResult<BatchPump> {
        let stream = self.shared.get()?.clone();
        let hashes = hashes.iter().map(|hash| hash_of(hash));
        let hashes = hashes.collect::<Result<_, _>>()?;
        Ok(BatchPump::new(stream, hashes, whole_max, batch_bytes)?)
    }

    fn __repr__(&self) -> String {
        format!("RecvStream({})", self.id)
    }
}
