//! The sending half of a stream.

use std::sync::Arc;

use bytes::Bytes;
use iroh::endpoint::{ConnectionError, SendStream as IrohSend, StoppedError, VarInt, WriteError};
use n0_future::future::now_or_never;
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use tokio::sync::{Mutex, OwnedMutexGuard, TryLockError, watch};

use crate::{
    bridge::{Local, Operation, runtime},
    endpoint::none,
    error::{Error, reason_at_end},
    lease::{Lease, Leased, Member},
    pump::send::{Blob, BytesOrFd, PumpProgress, Whole, WholeBlob, send_blob, send_whole},
    transport::varint,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Finished,
    Reset,
}

/// What noq says about the peer: the code it stopped the stream with, or that it has everything.
type Stopped = Result<Option<VarInt>, StoppedError>;

enum Stream {
    Open(Leased<IrohSend>),
    /// The endpoint was closed; the last answers of the stream.
    Released {
        lost: ConnectionError,
        stopped: Stopped,
    },
}

/// The stream itself, held by one operation at a time.
pub struct SendHalf {
    stream: Stream,
    end: End,
}

impl SendHalf {
    pub async fn write_all(&mut self, data: &mut [Bytes]) -> Result<(), Error> {
        Ok(self.iroh()?.write_all_chunks(data).await?)
    }

    fn iroh(&mut self) -> Result<&mut IrohSend, Error> {
        match &mut self.stream {
            Stream::Open(stream) => Ok(stream),
            Stream::Released { lost, .. } => Err(Error::Lost(lost.clone())),
        }
    }

    /// Waits for what noq says about the peer, without keeping this half.
    fn stopped(&self) -> impl Future<Output = Stopped> + use<> {
        let answer = match &self.stream {
            Stream::Open(stream) => Ok(stream.lease.with(stream.stopped())),
            Stream::Released { stopped, .. } => Err(stopped.clone()),
        };
        async move {
            match answer {
                Ok(waiting) => {
                    // Held until the future, which holds the connection, is dropped.
                    let _lease = waiting.lease.clone();
                    waiting.into_value().await
                }
                Err(stopped) => stopped,
            }
        }
    }

    /// Parts with the stream of a closed endpoint.
    fn release(&mut self) {
        let Stream::Open(stream) = &mut self.stream else {
            return;
        };
        let lost = match now_or_never(stream.write(&[])) {
            Some(Err(WriteError::ConnectionLost(lost))) => Some(lost),
            _ => None,
        };
        let lost = reason_at_end(lost);
        let stopped = match now_or_never(stream.stopped()) {
            Some(Ok(stopped)) => Ok(stopped),
            _ => Err(lost.clone().into()),
        };
        self.stream = Stream::Released { lost, stopped };
    }

    fn reset(&mut self, code: VarInt) {
        self.end = End::Reset;
        if let Stream::Open(stream) = &mut self.stream {
            // Closed already means that the peer has everything, or was told.
            let _ = stream.reset(code);
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        // noq would finish the stream and let a part pass for the whole.
        if self.end == End::Open {
            self.reset(VarInt::from_u32(0));
        }
    }
}

impl Member for Mutex<SendHalf> {
    fn release(self: Arc<Self>) {
        if let Ok(mut half) = self.try_lock() {
            return half.release();
        }
        tokio::spawn(async move { self.lock().await.release() });
    }
}

/// What the operations of a stream share.
#[derive(Clone)]
pub struct SendShared {
    half: Arc<Mutex<SendHalf>>,
    /// Set by `reset`, which must not wait for an operation that is blocked on the peer.
    halted: watch::Sender<bool>,
}

impl SendShared {
    /// Does `work` with the stream, unless it is or becomes ended on this side.
    pub async fn with<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut SendHalf) -> Result<T, Error>,
    {
        let mut halted = self.halted.subscribe();
        tokio::select! {
            biased;
            _ = halted.wait_for(|halted| *halted) => Err(Error::StreamClosed),
            result = async {
                let mut half = self.half.lock().await;
                if half.end != End::Open {
                    return Err(Error::StreamClosed);
                }
                work(&mut half).await
            } => result,
        }
    }

    fn try_lock(&self) -> Result<OwnedMutexGuard<SendHalf>, TryLockError> {
        self.half.clone().try_lock_owned()
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct SendStream {
    pub shared: Local<SendShared>,
    id: u64,
}

impl SendStream {
    pub fn new(stream: IrohSend, lease: &Lease) -> Self {
        let id = VarInt::from(stream.id()).into_inner();
        let half = Arc::new(Mutex::new(SendHalf {
            stream: Stream::Open(lease.with(stream)),
            end: End::Open,
        }));
        lease.join(&half);
        let halted = watch::Sender::new(false);
        Self {
            shared: Local::new(SendShared { half, halted }),
            id,
        }
    }
}

#[pymethods]
impl SendStream {
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }

    fn write(&self, data: PyBackedBytes) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        Ok(Operation::new(async move {
            let written = shared
                .with(async |half| Ok(half.iroh()?.write(&data).await?))
                .await?;
            Ok(
                Box::new(move |py: Python<'_>| Ok(written.into_pyobject(py)?.into_any().unbind()))
                    as _,
            )
        }))
    }

    fn write_all(&self, data: PyBackedBytes) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        Ok(Operation::new(async move {
            let mut data = [Bytes::from_owner(data)];
            shared
                .with(async |half| half.write_all(&mut data).await)
                .await?;
            none()
        }))
    }

    fn finish(&self) -> PyResult<()> {
        let mut half = self
            .shared
            .get()?
            .try_lock()
            .map_err(|_| Error::StreamBusy)?;
        if half.end != End::Open {
            return Err(Error::StreamClosed.into());
        }
        // As on any lost connection this is no error; `acked` tells.
        if let Stream::Open(stream) = &mut half.stream {
            stream.finish().map_err(|_| Error::StreamClosed)?;
        }
        half.end = End::Finished;
        Ok(())
    }

    fn acked(&self) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        Ok(Operation::new(async move {
            let stopped = {
                let half = shared.half.lock().await;
                if half.end == End::Reset {
                    return Err(Error::StreamClosed);
                }
                half.stopped()
            };
            match stopped.await? {
                Some(code) => Err(Error::StreamStopped(code.into_inner())),
                None if *shared.halted.borrow() => Err(Error::StreamClosed),
                None => none(),
            }
        }))
    }

    fn stopped(&self) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        Ok(Operation::new(async move {
            let stopped = shared.half.lock().await.stopped();
            let code = stopped.await?.map(VarInt::into_inner);
            Ok(
                Box::new(move |py: Python<'_>| Ok(code.into_pyobject(py)?.into_any().unbind()))
                    as _,
            )
        }))
    }

    #[pyo3(signature = (code=0))]
    fn reset(&self, code: u64) -> PyResult<()> {
        let code = varint("code", code)?;
        let shared = self.shared.get()?.clone();
        shared.halted.send_replace(true);
        match shared.try_lock() {
            Ok(mut half) => half.reset(code),
            Err(_) => {
                runtime()?.spawn(async move { shared.half.lock().await.reset(code) });
            }
        }
        Ok(())
    }

    #[getter]
    fn get_priority(&self) -> PyResult<i32> {
        let mut half = self
            .shared
            .get()?
            .try_lock()
            .map_err(|_| Error::StreamBusy)?;
        Ok(half.iroh()?.priority().map_err(|_| Error::StreamClosed)?)
    }

    #[setter]
    fn set_priority(&self, value: i32) -> PyResult<()> {
        let mut half = self
            .shared
            .get()?
            .try_lock()
            .map_err(|_| Error::StreamBusy)?;
        Ok(half
            .iroh()?
            .set_priority(value)
            .map_err(|_| Error::StreamClosed)?)
    }

    #[pyo3(signature = (root, size, ranges, data, outboard, *, header=true, progress=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they say what to send, each by itself"
    )]
    fn pump_blob(
        &self,
        root: &[u8],
        size: u64,
        ranges: Vec<u64>,
        data: BytesOrFd,
        outboard: BytesOrFd,
        header: bool,
        progress: Option<PyRef<'_, PumpProgress>>,
    ) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        let sent = progress
            .map(|progress| progress.counter())
            .unwrap_or_default();
        let blob = Blob::new(root, size, ranges, data, outboard, header)?;
        Ok(Operation::new(send_blob(shared, blob, sent)))
    }

    #[pyo3(signature = (blobs, *, progress=None))]
    fn pump_many(
        &self,
        blobs: Vec<(PyBackedBytes, Whole, PyBackedBytes)>,
        progress: Option<PyRef<'_, PumpProgress>>,
    ) -> PyResult<Operation> {
        let shared = self.shared.get()?.clone();
        let sent = progress
            .map(|progress| progress.counter())
            .unwrap_or_default();
        let blobs = blobs
            .into_iter()
            .map(|(root, data, outboard)| WholeBlob::new(&root, data, outboard))
            .collect::<Result<_, _>>()?;
        Ok(Operation::new(send_whole(shared, blobs, sent)))
    }

    fn __repr__(&self) -> String {
        format!("SendStream({})", self.id)
    }
}
