//! A connection to one peer, its streams, datagrams and paths.

use std::sync::Arc;

use bytes::Bytes;
use iroh::endpoint::{PathEventStream, Side, WeakConnectionHandle};
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
    bridge::{Deliver, Local, Operation},
    endpoint::{describe, none},
    error::{Error, connection_lost},
    identity::EndpointId,
    putback::Source,
    recv::RecvStream,
    send::SendStream,
    transport::varint,
};

type BiStream = (iroh::endpoint::SendStream, iroh::endpoint::RecvStream);

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct Connection {
    inner: Local<iroh::endpoint::Connection>,
    bi: Source<(SendStream, RecvStream)>,
    uni: Source<RecvStream>,
    datagrams: Source<Bytes>,
}

impl Connection {
    pub fn new(connection: iroh::endpoint::Connection) -> Self {
        Self {
            inner: Local::new(connection),
            bi: Source::new(),
            uni: Source::new(),
            datagrams: Source::new(),
        }
    }

    pub fn deliver(self) -> Deliver {
        Box::new(move |py| Ok(Py::new(py, self)?.into_any()))
    }

    fn iroh(&self) -> Result<iroh::endpoint::Connection, Error> {
        Ok(self.inner.get()?.clone())
    }
}

fn halves((send, recv): BiStream) -> (SendStream, RecvStream) {
    (SendStream::new(send), RecvStream::new(recv))
}

#[pymethods]
impl Connection {
    #[getter]
    fn remote_id(&self) -> PyResult<EndpointId> {
        Ok(EndpointId(self.inner.get()?.remote_id()))
    }

    #[getter]
    fn alpn<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.inner.get()?.alpn()))
    }

    #[getter]
    fn side(&self) -> PyResult<&'static str> {
        Ok(match self.inner.get()?.side() {
            Side::Client => "client",
            Side::Server => "server",
        })
    }

    #[getter]
    fn stable_id(&self) -> PyResult<usize> {
        Ok(self.inner.get()?.stable_id())
    }

    fn open_bi(&self) -> PyResult<Operation> {
        let connection = self.iroh()?;
        Ok(Operation::new(async move {
            let streams = halves(connection.open_bi().await?);
            Ok(Box::new(move |py: Python<'_>| streams.into_py_any(py)) as _)
        }))
    }

    fn open_uni(&self) -> PyResult<Operation> {
        let connection = self.iroh()?;
        Ok(Operation::new(async move {
            let stream = SendStream::new(connection.open_uni().await?);
            Ok(Box::new(move |py: Python<'_>| stream.into_py_any(py)) as _)
        }))
    }

    fn accept_bi(&self) -> PyResult<Operation> {
        let connection = self.iroh()?;
        let source = self.bi.clone();
        Ok(Operation::new(async move {
            let next = async { Ok(halves(connection.accept_bi().await?)) };
            Ok(source
                .take(next)
                .await?
                .deliver(|py, value| value.into_py_any(py)))
        }))
    }

    fn accept_uni(&self) -> PyResult<Operation> {
        let connection = self.iroh()?;
        let source = self.uni.clone();
        Ok(Operation::new(async move {
            let next = async { Ok(RecvStream::new(connection.accept_uni().await?)) };
            Ok(source
                .take(next)
                .await?
                .deliver(|py, value| value.into_py_any(py)))
        }))
    }

    #[getter]
    fn max_datagram_size(&self) -> PyResult<Option<usize>> {
        Ok(self.inner.get()?.max_datagram_size())
    }

    fn send_datagram(&self, data: PyBackedBytes) -> PyResult<()> {
        let data = Bytes::from_owner(data);
        Ok(self.inner.get()?.send_datagram(data).map_err(Error::from)?)
    }

    fn send_datagram_wait(&self, data: PyBackedBytes) -> PyResult<Operation> {
        let data = Bytes::from_owner(data);
        let connection = self.iroh()?;
        Ok(Operation::new(async move {
            connection.send_datagram_wait(data).await?;
            none()
        }))
    }

    fn read_datagram(&self) -> PyResult<Operation> {
        let connection = self.iroh()?;
        let source = self.datagrams.clone();
        Ok(Operation::new(async move {
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
        self.inner.get()?.close(code, reason);
        Ok(())
    }

    fn closed(&self) -> PyResult<Operation> {
        let connection = self.iroh()?.weak_handle();
        let closed = connection.closed();
        let last = self.inner.get()?.close_reason();
        Ok(Operation::new(async move {
            let reason = match (last, closed.await) {
                (Some(reason), _) => reason,
                (None, Some(closed)) => closed.reason,
                (None, None) => iroh::endpoint::ConnectionError::LocallyClosed,
            };
            Ok(
                Box::new(move |py: Python<'_>| {
                    Ok(connection_lost(reason).into_value(py).into_any())
                }) as _,
            )
        }))
    }

    #[getter]
    fn close_reason(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let reason = self.inner.get()?.close_reason();
        Ok(reason.map(|lost| connection_lost(lost).into_value(py).into_any()))
    }

    fn paths(&self) -> PyResult<Vec<Path>> {
        Ok(paths_of(self.inner.get()?))
    }

    fn watch_paths(&self) -> PyResult<PathWatcher> {
        let connection = self.inner.get()?;
        // Subscribed before the first list is made, so that no change falls between.
        let events = connection.path_events();
        Ok(PathWatcher {
            state: Arc::new(Mutex::new(Watching {
                connection: connection.weak_handle(),
                events,
                is_first: true,
            })),
            source: Source::new(),
        })
    }

    fn stats(&self) -> PyResult<ConnectionStats> {
        let stats = self.inner.get()?.stats();
        Ok(ConnectionStats {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            datagrams_sent: stats.udp_tx.datagrams,
            datagrams_received: stats.udp_rx.datagrams,
            packets_lost: stats.lost_packets,
            bytes_lost: stats.lost_bytes,
        })
    }

    fn rtt(&self) -> PyResult<Option<f64>> {
        let paths = self.inner.get()?.paths();
        let selected = paths.iter().find(iroh::endpoint::Path::is_selected);
        Ok(selected.map(|path| path.rtt().as_secs_f64()))
    }

    #[pyo3(signature = (*, bi=None, uni=None))]
    fn set_max_streams(&self, bi: Option<u64>, uni: Option<u64>) -> PyResult<()> {
        let connection = self.inner.get()?;
        let bi = bi.map(|count| varint("bi", count)).transpose()?;
        let uni = uni.map(|count| varint("uni", count)).transpose()?;
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
        self.inner.get()?.set_receive_window(size);
        Ok(())
    }

    fn __repr__(&self) -> PyResult<String> {
        let connection = self.inner.get()?;
        let alpn = String::from_utf8_lossy(connection.alpn());
        Ok(format!(
            "Connection({}, {alpn:?})",
            connection.remote_id().fmt_short()
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
    state: Arc<Mutex<Watching>>,
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
            let next = async { Ok(state.lock().await.next().await) };
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
