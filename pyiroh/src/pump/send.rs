//! Sends encodings, each item checked before it leaves.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use pybao::{
    Hash,
    encode::{EncodeError, Encoder},
    geometry::{GROUP_SIZE, outboard_size},
    hashing::hash,
    io::{ReadAt, Source, dup},
    plan::{Item, Plan},
    ranges::Ranges,
};
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use super::{
    BUFFER_SIZE, BUFFERS, QUEUE_MAX, check_size, hash_of, panicked, pool::Buffer, ranges_of,
};
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

/// Where all of a small blob is.
#[derive(FromPyObject)]
pub enum Whole {
    Bytes(PyBackedBytes),
    /// A path and the size that the file is to have.
    File(PathBuf, u64),
}

/// A small blob to be sent as a whole.
pub struct WholeBlob {
    root: Hash,
    data: Whole,
    outboard: PyBackedBytes,
}

impl WholeBlob {
    pub fn new(root: &[u8], data: Whole, outboard: PyBackedBytes) -> Result<Self, Error> {
        let blob = Self {
            root: hash_of(root)?,
            data,
            outboard,
        };
        check_size(blob.size())
            .map_err(|_| Error::Value("no blob can be that large".to_owned()))?;
        let due = outboard_size(blob.size());
        if blob.outboard.len() as u64 != due {
            return Err(Error::Value(format!(
                "outboard must have {due} bytes, not {}",
                blob.outboard.len()
            )));
        }
        Ok(blob)
    }

    fn size(&self) -> u64 {
        match &self.data {
            Whole::Bytes(data) => data.len() as u64,
            Whole::File(_, size) => *size,
        }
    }

    /// Appends size and encoding. On an error nothing is appended but what was verified before.
    fn append_to(&self, out: &mut Buffer) -> Result<(), EncodeError> {
        let size = self.size();
        match &self.data {
            Whole::Bytes(data) if size <= GROUP_SIZE && hash(data) == self.root => {
                out.push(&size.to_le_bytes());
                out.push(data);
                Ok(())
            }
            Whole::Bytes(data) => self.encode(&data[..], out),
            Whole::File(path, _) => {
                // A named pipe must not hold us up.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
                self.encode(File::from(file), out)
            }
        }
    }

    fn encode<D: ReadAt>(&self, data: D, out: &mut Buffer) -> Result<(), EncodeError> {
        let begin = out.len();
        let outboard = &self.outboard[..];
        let mut encoder =
            Encoder::new(self.root, self.size(), &Ranges::all(), data, outboard, true);
        while !encoder.is_done() {
            let left = encoder.encoded_size() as usize - (out.len() - begin);
            let len = encoder.fill_slice(out.room(left))?;
            out.advance(len);
        }
        Ok(())
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
struct Piece {
    bytes: Buffer,
    payload: u64,
}

/// Hands over what is encoded, piece by piece.
struct Output {
    piece: Piece,
    full: mpsc::Sender<Piece>,
}

impl Output {
    fn new(full: mpsc::Sender<Piece>) -> Self {
        let piece = Piece {
            bytes: BUFFERS.take(),
            payload: 0,
        };
        Self { piece, full }
    }

    /// Hands a piece over. False if nobody wants it.
    fn flush(&mut self) -> bool {
        if self.piece.bytes.is_empty() {
            return true;
        }
        let next = Piece {
            bytes: BUFFERS.take(),
            payload: 0,
        };
        let piece = std::mem::replace(&mut self.piece, next);
        self.full.blocking_send(piece).is_ok()
    }
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

/// Encodes a blob until all of it is through or nobody wants more.
fn encode_blob(blob: Blob, output: &mut Output) -> Result<(), Error> {
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
        let header = blob.size.to_le_bytes();
        output.piece.bytes.push(&header);
    }
    while !encoder.is_done() {
        let piece = &mut output.piece;
        let room = BUFFER_SIZE - piece.bytes.len();
        let result = encoder.fill_slice(piece.bytes.room(room));
        if let Ok(len) = result {
            piece.bytes.advance(len);
            piece.payload += payload(&mut plan, len);
        }
        let is_full = piece.bytes.len() >= BUFFER_SIZE / 8 * 7;
        if (is_full || result.is_err()) && !output.flush() {
            return Ok(());
        }
        result?;
    }
    output.flush();
    Ok(())
}

/// Encodes whole blobs until all are through, nobody wants more, or the file of one is not what it
/// should be: how many are through.
fn encode_whole(blobs: &[WholeBlob], output: &mut Output) -> Result<usize, Error> {
    let mut result = Ok(blobs.len());
    for (index, blob) in blobs.iter().enumerate() {
        let len = output.piece.bytes.len();
        if len as u64 + blob.size() > BUFFER_SIZE as u64 && !output.flush() {
            break;
        }
        let piece = &mut output.piece;
        let begin = piece.bytes.len();
        match blob.append_to(&mut piece.bytes) {
            Ok(()) => piece.payload += blob.size(),
            Err(_) if matches!(blob.data, Whole::File(..)) => {
                // Whoever opens it by itself finds out what is wrong, and may have another copy.
                piece.bytes.truncate(begin);
                result = Ok(index);
                break;
            }
            Err(error) => {
                result = Err(Error::from(error).of_blob(index));
                break;
            }
        }
    }
    output.flush();
    result
}

/// Runs `encode` in a thread and sends what it gives; `sent` counts the bytes of blobs.
async fn send_encoded<T, F>(stream: SendShared, sent: Arc<AtomicU64>, encode: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce(&mut Output) -> Result<T, Error> + Send + 'static,
{
    stream
        .with(async move |half| {
            let (full_in, mut full) = mpsc::channel(QUEUE_MAX);
            let encoder = tokio::task::spawn_blocking(move || encode(&mut Output::new(full_in)));
            while let Some(piece) = full.recv().await {
                half.write_all(&mut [Bytes::from_owner(piece.bytes)])
                    .await?;
                sent.fetch_add(piece.payload, Ordering::Relaxed);
            }
            encoder.await.map_err(panicked)?
        })
        .await
}

/// Sends the encoding of ranges of one blob.
pub async fn send_blob(
    stream: SendShared,
    blob: Blob,
    sent: Arc<AtomicU64>,
) -> Result<Deliver, Error> {
    send_encoded(stream, sent, move |output| encode_blob(blob, output)).await?;
    none()
}

/// Sends whole blobs one after the other.
pub async fn send_whole(
    stream: SendShared,
    blobs: Vec<WholeBlob>,
    sent: Arc<AtomicU64>,
) -> Result<Deliver, Error> {
    let count = send_encoded(stream, sent, move |output| encode_whole(&blobs, output)).await?;
    Ok(Box::new(move |py| {
        Ok(count.into_pyobject(py)?.into_any().unbind())
    }))
}
