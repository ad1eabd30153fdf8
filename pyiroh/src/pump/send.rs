//! Sends encodings, each item checked before it leaves.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use pybao::{
    Hash,
    encode::Encoder,
    geometry::outboard_size,
    io::{Source, dup},
    plan::{Item, Plan},
    ranges::Ranges,
};
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use tokio::sync::mpsc;

use super::{BUFFER_SIZE, QUEUE_MAX, check_size, hash_of, panicked, ranges_of};
use crate::{bridge::Deliver, endpoint::none, error::Error, send::SendShared};

#[derive(FromPyObject)]
pub enum BytesOrFd {
    Bytes(PyBackedBytes),
    Fd(i32),
}

impl BytesOrFd {
    fn into_source(self, name: &str, len: u64) -> Result<Source<PyBackedBytes>, Error> {
        match self {
            Self::Bytes(bytes) if bytes.len() as u64 == len => Ok(Source::Bytes(bytes)),
            Self::Bytes(bytes) => Err(Error::Value(format!(
                "{name} must have {len} bytes, not {}",
                bytes.len()
            ))),
            Self::Fd(fd) => Ok(Source::File(dup(fd)?)),
        }
    }
}

/// Ranges of a blob to be sent.
pub struct Blob {
    root: Hash,
    size: u64,
    ranges: Ranges,
    data: Source<PyBackedBytes>,
    outboard: Source<PyBackedBytes>,
    header: bool,
}

impl Blob {
    pub fn new(
        root: &[u8],
        size: u64,
        ranges: Vec<u64>,
        data: BytesOrFd,
        outboard: BytesOrFd,
        header: bool,
    ) -> Result<Self, Error> {
        check_size(size).map_err(|_| Error::Value("no blob can be that large".to_owned()))?;
        Ok(Self {
            root: hash_of(root)?,
            size,
            ranges: ranges_of(ranges)?,
            data: data.into_source("data", size)?,
            outboard: outboard.into_source("outboard", outboard_size(size))?,
            header,
        })
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct PumpProgress(Arc<AtomicU64>);

impl PumpProgress {
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.0.clone()
    }
}

#[pymethods]
impl PumpProgress {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes of an encoding, and how many of them are of the blob.
struct Buffer {
    bytes: Vec<u8>,
    payload: u64,
}

impl Buffer {
    fn empty() -> Self {
        Self {
            bytes: Vec::with_capacity(BUFFER_SIZE),
            payload: 0,
        }
    }
}

/// Hands a buffer over. False if nobody wants it.
fn flush(buffer: &mut Buffer, full: &mpsc::Sender<Buffer>) -> bool {
    if buffer.bytes.is_empty() {
        return true;
    }
    let next = std::mem::replace(buffer, Buffer::empty());
    full.blocking_send(next).is_ok()
}

/// Blob bytes among the next `len` bytes of an encoding.
fn payload(plan: &mut Plan, mut len: usize) -> u64 {
    let mut bytes = 0;
    while len > 0 {
        let Some(item) = plan.next() else {
            break;
        };
        len = len.saturating_sub(item.encoded_len());
        if let Item::Leaf(leaf) = item {
            bytes += leaf.len as u64;
        }
    }
    bytes
}

/// Encodes blobs into buffers until all are through or nobody wants more.
fn encode_blobs(blobs: Vec<Blob>, full: &mpsc::Sender<Buffer>) -> Result<(), Error> {
    let mut buffer = Buffer::empty();
    for blob in blobs {
        let mut plan = Plan::new(blob.size, &blob.ranges);
        let mut encoder = Encoder::new(
            blob.root,
            blob.size,
            &blob.ranges,
            blob.data,
            blob.outboard,
            false,
        );
        if blob.header {
            buffer.bytes.extend_from_slice(&blob.size.to_le_bytes());
        }
        while !encoder.is_done() {
            let len = buffer.bytes.len();
            let result = encoder.fill(&mut buffer.bytes, BUFFER_SIZE.saturating_sub(len));
            buffer.payload += payload(&mut plan, buffer.bytes.len() - len);
            let is_full = buffer.bytes.len() >= BUFFER_SIZE / 8 * 7;
            if (is_full || result.is_err()) && !flush(&mut buffer, full) {
                return Ok(());
            }
            result?;
        }
    }
    flush(&mut buffer, full);
    Ok(())
}

/// Sends the encodings of blobs one after the other; `sent` counts their bytes.
pub async fn send_blobs(
    stream: SendShared,
    blobs: Vec<Blob>,
    sent: Arc<AtomicU64>,
) -> Result<Deliver, Error> {
    stream
        .with(async move |half| {
            let (full_in, mut full) = mpsc::channel::<Buffer>(QUEUE_MAX);
            let encoder = tokio::task::spawn_blocking(move || encode_blobs(blobs, &full_in));
            while let Some(buffer) = full.recv().await {
                half.write_all(&mut [Bytes::from(buffer.bytes)]).await?;
                sent.fetch_add(buffer.payload, Ordering::Relaxed);
            }
            encoder.await.map_err(panicked)?
        })
        .await?;
    none()
}
