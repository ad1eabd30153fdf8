//! A connection to one peer, its streams, datagrams and paths.

use std::sync::{Arc, Mutex as SyncMutex};

use bytes::Bytes;
use iroh::endpoint::{
    ConnectionError, ConnectionStats as IrohStats, PathEventStream, Side, WeakConnectionHandle,
};
use n0_future::{StreamExt, future::poll_once};
use pyo3::{
    IntoPyObjectExt,
    exceptions::PyStopAsyncIteration,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyList},
};
use tokio::sync::Mutex;

use crate::{
    bridge::{Deliver, Local, Operation, lock},
    endpoint::{describe, none},
    error::{Error, connection_lost, reason_at_end},
    identity::EndpointId,
    lease::{Lease, Leased, Member},
    putback::Source,
    recv::RecvStream,
    send::SendStream,
    transport::varint,
};

type BiStream = (iroh::endpoint::SendStream, iroh::endpoint::RecvStream);

type IrohConnection = Leased<iroh::endpoint::Connection>;

enum State {
    Open(IrohConnection),
    /// The endpoint was closed; what is still known.
    Released {
        reason: ConnectionError,
        stats: Box<IrohStats>,
    },
}

struct Shared {
    state: SyncMutex<State>,
    remote_id: EndpointId,
    alpn: Vec<u8>,
    side: Side,
    stable_id: usize,
}

impl Shared {
    fn iroh(&self) -> Result<IrohConnection, Error> {
        match &*lock(&self.state) {
            State::Open(connection) => Ok(connection.clone()),
            State::Released { reason, .. } => Err(Error::Lost(reason.clone())),
        }
    }
}

impl Member for Shared {
    fn release(self: Arc<Self>) {
        let mut state = lock(&self.state);
        if let State::Open(connection) = &*state {
            *state = State::Released {
                reason: reason_at_end(connection.close_reason()),
                stats: Box::new(connection.stats()),
            };
        }
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct Connection {
    shared: Local<Arc<Shared>>,
    bi: Source<(SendStream, RecvStream)>,
    uni: Source<RecvStream>,
    datagrams: Source<Bytes>,
}

impl Connection {
    pub fn new(connection: iroh::endpoint::Connection, lease: &Lease) -> Self {
        let shared = Arc::new(Shared {
            remote_id: EndpointId(connection.remote_id()),
            alpn: connection.alpn().to_vec(),
            side: connection.side(),
            stable_id: connection.stable_id(),
            state: SyncMutex::new(State::Open(lease.with(connection))),
        });
        lease.join(&shared);
        Self {
            shared: Local::new(shared),
            bi: Source::new(),
            uni: Source::new(),
            datagrams: Source::new(),
        }
    }

    pub fn deliver(self) -> Deliver {
        Box::new(move |py| Ok(Py::new(py, self)?.into_any()))
    }

    /// For an operation, which looks for the connection only when it starts: one that nobody
    /// starts must not keep it.
    fn shared(&self) -> Result<Arc<Shared>, Error> {
        Ok(self.shared.get()?.clone())
    }

    fn iroh(&self) -> Result<IrohConnection, Error> {
        self.shared.get()?.iroh()
    }
}

fn halves((send, recv): BiStream, lease: &Lease) -> (SendStream, RecvStream) {
    (SendStream::new(send, lease), RecvStream::new(recv, lease))
}

#[pymethods]
impl Connection {
    #[getter]
    fn remote_id(&self) -> PyResult<EndpointId> {
        Ok(self.shared.get()?.remote_id.clone())
    }

    #[getter]
    fn alpn<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.shared.get()?.alpn))
    }

    #[getter]
    fn side(&self) -> PyResult<&'static str> {
        Ok(match self.shared.get()?.side {
            Side::Client => "client",
            Side::Server => "server",
        })
    }

    #[getter]
    fn stable_id(&self) -> PyResult<usize> {
        Ok(self.shared.get()?.stable_id)
    }

    fn open_bi(&self) -> PyResult<Operation> {
        let shared = self.shared()?;
        Ok(Operation::new(async move {
            let connection = shared.iroh()?;
            let streams = halves(connection.open_bi().await?, &connection.lease);
            Ok(Box::new(move |py: Python<'_>| streams.into_py_any(py)) as _)
        }))
    }

    fn open_uni(&self) -> PyResult<Operation> {
        let shared = self.shared()?;
        Ok(Operation::new(async move {
            let connection = shared.iroh()?;
            let stream = SendStream::new(connection.open_uni().await?, &connection.lease);
            Ok(Box::new(move |py: Python<'_>| stream.into_py_any(py)) as _)
        }))
    }

    fn accept_bi(&self) -> PyResult<Operation> {
        let shared = self.shared()?;
        let source = self.bi.clone();
        Ok(Operation::new(async move {
            let connection = shared.iroh()?;
            let next = async { Ok(halves(connection.accept_bi().await?, &connection.lease)) };
            Ok(source
                .take(next)
                .await?
                .deliver(|py, value| value.into_py_any(py)))
        }))
    }

    fn accept_uni(&self) -> PyResult<Operation> {
        let shared = self.shared()?;
        let source = self.uni.clone();
        Ok(Operation::new(async move {
            let connection = shared.iroh()?;
            let next = async {
                Ok(RecvStream::new(
                    connection.accept_uni().await?,
                    &connection.lease,
                ))
            };
            Ok(source
                .take(next)
                .await?
                .deliver(|py, value| value.into_py_any(py)))
        }))
    }

    #[getter]
    fn max_datagram_size(&self) -> PyResult<Option<usize>> {
        Ok(self.iroh().ok().and_then(|it| it.max_datagram_size()))
    }

    fn send_datagram(&self, data: PyBackedBytes) -> PyResult<()> {
        let data = Bytes::from_owner(data);
        Ok(self.iroh()?.send_datagram(data).map_err(Error::from)?)
    }

    fn send_datagram_wait(&self, data: PyBackedBytes) -> PyResult<Operation> {
        let data = Bytes::from_owner(data);
        let shared = self.shared()?;
        Ok(Operation::new(async move {
            let connection = shared.iroh()?;
            connection.send_datagram_wait(data).await?;
            none()
        }))
    }

    fn read_datagram(&self) -> PyResult<Operation> {
        let shared = self.shared()?;
        let source = self.datagrams.clone();
        Ok(Operation::new(async move {
            let connection = shared.iroh()?;
            let next = async { Ok(connection.read_datagram().await?) };
            let taken = source.take(next).await?;
            Ok(taken.deliver(|py, data| Ok(PyBytes::new(py, &data).into_any().unbind())))
        }))
    }

    #[pyo3(
        signature = (code=0, reason=b"".as_slice()),
        text_signature = "(self, code=0, reason=b'')"
    )]
    fn close(&self, code: u64, reason: &[u8]) -> PyResult<()> {
        let code = varint("code", code)?;
        if let State::Open(connection) = &*lock(&self.shared.get()?.state) {
            connection.close(code, reason);
        }
        Ok(())
    }

    fn closed(&self) -> PyResult<Operation> {
        let (last, closed) = match &*lock(&self.shared.get()?.state) {
            State::Open(connection) => (
                connection.close_reason(),
                Some(connection.weak_handle().closed()),
            ),
            State::Released { reason, .. } => (Some(reason.clone()), None),
        };
        Ok(Operation::new(async move {
            let closed = match closed {
                Some(closed) => closed.await,
                None => None,
            };
            let told = closed.map(|closed| closed.reason);
            let reason = last.or(told).unwrap_or(ConnectionError::LocallyClosed);
            Ok(
                Box::new(move |py: Python<'_>| {
                    Ok(connection_lost(reason).into_value(py).into_any())
                }) as _,
            )
        }))
    }

    #[getter]
    fn close_reason(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let reason = match &*lock(&self.shared.get()?.state) {
            State::Open(connection) => connection.close_reason(),
            State::Released { reason, .. } => Some(reason.clone()),
        };
        Ok(reason.map(|lost| connection_lost(lost).into_value(py).into_any()))
    }

    fn paths(&self, py: Python<'_>) -> PyResult<Vec<Path>> {
        let shared = self.shared.get()?;
        // The connection may be busy, and that must not hold up the other threads of Python.
        Ok(py.detach(|| match &*lock(&shared.state) {
            State::Open(connection) => paths_of(connection),
            State::Released { .. } => Vec::new(),
        }))
    }

    fn watch_paths(&self) -> PyResult<PathWatcher> {
        let watching = match &*lock(&self.shared.get()?.state) {
            State::Open(connection) => Some(Watching {
                // Subscribed before the first list is made, so that no change falls between.
                events: connection.path_events(),
                connection: connection.weak_handle(),
                is_first: true,
            }),
            State::Released { .. } => None,
        };
        Ok(PathWatcher {
            state: Arc::new(Mutex::new(watching)),
            source: Source::new(),
        })
    }

    fn stats(&self) -> PyResult<ConnectionStats> {
        let stats = match &*lock(&self.shared.get()?.state) {
            State::Open(connection) => connection.stats(),
            State::Released { stats, .. } => (**stats).clone(),
        };
        Ok(ConnectionStats {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            datagrams_sent: stats.udp_tx.datagrams,
            datagrams_received: stats.udp_rx.datagrams,
            packets_lost: stats.lost_packets,
            bytes_lost: stats.lost_bytes,
        })
    }

    fn rtt(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let paths = self.paths(py)?;
        Ok(paths
            .iter()
            .find(|path| path.is_selected)
            .map(|path| path.rtt_s))
    }

    #[pyo3(signature = (*, bi=None, uni=None))]
    fn set_max_streams(&self, bi: Option<u64>, uni: Option<u64>) -> PyResult<()> {
        let bi = bi.map(|count| varint("bi", count)).transpose()?;
        let uni = uni.map(|count| varint("uni", count)).transpose()?;
        let State::Open(connection) = &*lock(&self.shared.get()?.state) else {
            return Ok(());
        };
        if let Some(count) = bi {
            connection.set_max_concurrent_bi_streams(count);
        }
        if let Some(count) = uni {
            connection.set_max_concurrent_uni_streams(count);
        }
        Ok(())
    }

    fn set_receive_window(&self, size: u64) -> PyResult<()> {
        let size = varint("size", size)?;
        if let State::Open(connection) = &*lock(&self.shared.get()?.state) {
            connection.set_receive_window(size);
        }
        Ok(())
    }

    fn __repr__(&self) -> PyResult<String> {
        let shared = self.shared.get()?;
        let alpn = String::from_utf8_lossy(&shared.alpn);
        Ok(format!(
            "Connection({}, {alpn:?})",
            shared.remote_id.0.fmt_short()
        ))
    }
}

#[pyclass(frozen, get_all, module = "pyiroh._pyiroh")]
pub struct ConnectionStats {
    bytes_sent: u64,
    bytes_received: u64,
    datagrams_sent: u64,
    datagrams_received: u64,
    packets_lost: u64,
    bytes_lost: u64,
}

#[pymethods]
impl ConnectionStats {
    fn __repr__(&self) -> String {
        format!(
            "ConnectionStats(bytes_sent={}, bytes_received={}, packets_lost={})",
            self.bytes_sent, self.bytes_received, self.packets_lost
        )
    }
}

#[pyclass(frozen, get_all, module = "pyiroh._pyiroh")]
pub struct Path {
    id: u64,
    kind: &'static str,
    remote_addr: String,
    is_selected: bool,
    rtt_s: f64,
    bytes_sent: u64,
    bytes_received: u64,
    packets_lost: u64,
    congestion_window: u64,
    mtu: u16,
}

#[pymethods]
impl Path {
    fn __repr__(&self) -> String {
        let selected = if self.is_selected { ", selected" } else { "" };
        format!("Path({}:{}{selected})", self.kind, self.remote_addr)
    }
}

fn paths_of(connection: &iroh::endpoint::Connection) -> Vec<Path> {
    let paths = connection.paths();
    let describe_path = |path: iroh::endpoint::Path<'_>| {
        let stats = path.stats();
        let (kind, remote_addr) = describe(path.remote_addr());
        Path {
            // The number has no other way out.
            id: path.id().to_string().parse().unwrap_or(u64::MAX),
            kind,
            remote_addr,
            is_selected: path.is_selected(),
            rtt_s: stats.rtt.as_secs_f64(),
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_lost: stats.lost_packets,
            congestion_window: stats.cwnd,
            mtu: stats.current_mtu,
        }
    };
    paths.iter().map(describe_path).collect()
}

struct Watching {
    /// Weak, so that watching does not keep a connection open.
    connection: WeakConnectionHandle,
    events: PathEventStream,
    is_first: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Vec<Path>> {
        if !self.is_first {
            self.events.next().await?;
            // What else has happened is part of the same list.
            while let Some(Some(_)) = poll_once(self.events.next()).await {}
        }
        self.is_first = false;
        Some(paths_of(&self.connection.upgrade()?))
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct PathWatcher {
    /// None if there was no connection any more.
    state: Arc<Mutex<Option<Watching>>>,
    source: Source<Option<Vec<Path>>>,
}

#[pymethods]
impl PathWatcher {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> Operation {
        let state = self.state.clone();
        let source = self.source.clone();
        Operation::new(async move {
            let next = async {
                match state.lock().await.as_mut() {
                    Some(watching) => Ok(watching.next().await),
                    None => Ok(None),
                }
            };
            let taken = source.take(next).await?;
            Ok(taken.deliver(|py, paths| match paths {
                Some(paths) => Ok(PyList::new(py, wrap(py, paths)?)?.into_any().unbind()),
                None => Err(PyStopAsyncIteration::new_err(())),
            }))
        })
    }
}

fn wrap(py: Python<'_>, paths: Vec<Path>) -> PyResult<Vec<Py<Path>>> {
    paths.into_iter().map(|path| Py::new(py, path)).collect()
}
