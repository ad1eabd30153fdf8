//! The endpoint: binding, dialling, accepting.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh::{
    RelayMap, RelayMode, TransportAddr, Watcher,
    endpoint::{
        BindError, BindOpts, Builder, ConnectOptions, EndpointClosed, PortmapperConfig, presets,
    },
};
use iroh_metrics::{MetricValue, MetricsGroupSet};
use n0_future::{Stream, StreamExt};
use pyo3::{
    exceptions::{PyStopAsyncIteration, PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyTuple},
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    bridge::{Local, Operation, lock, runtime},
    connection::Connection,
    error::Error,
    identity::{EndpointAddr, EndpointId, RelayConfig, RelayStatus, SecretKey},
    identity::{parse_socket_addr, parse_url},
    incoming::Incoming,
    lease::{Leased, Leases, lease},
    putback::Source,
    transport::{TransportConfig, seconds},
};

/// The time `__aexit__` gives the peers to hear that we are leaving.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The address that may fail to be bound, since a system need not have IPv6.
const ANY_IPV6: &str = "[::]:0";

type IrohEndpoint = Leased<iroh::Endpoint>;

/// How far closing has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    Done,
    Failed,
}

struct Shared {
    /// Gone once closed.
    endpoint: Mutex<Option<Local<IrohEndpoint>>>,
    /// Taken by who closes the endpoint.
    leases: Mutex<Option<Leases>>,
    closing: watch::Sender<Closing>,
}

impl Shared {
    /// The endpoint, if it is not closed.
    fn open(&self) -> Result<Option<IrohEndpoint>, Error> {
        runtime()?;
        let endpoint = lock(&self.endpoint);
        Ok(endpoint.as_ref().map(Local::get).transpose()?.cloned())
    }

    fn iroh(&self) -> Result<IrohEndpoint, Error> {
        self.open()?.ok_or(Error::EndpointClosed)
    }

    /// Closes the endpoint and its sockets. Those are free when this returns.
    async fn close(&self, leases: Leases) -> Result<(), Error> {
        if let Some(endpoint) = self.open()? {
            endpoint.close().await;
        }
        let Some(last) = lock(&self.endpoint).take() else {
            return Ok(());
        };
        let last = last.into_inner()?.into_value();
        leases.end().await;
        // Within the runtime's context iroh would leave closing a socket to another thread, and
        // nobody could tell when that is done.
        let (dropped, is_dropped) = oneshot::channel();
        let dropping = std::thread::Builder::new()
            .name("pyiroh-close".to_owned())
            .spawn(move || {
                drop(last);
                // Nobody waits any more if the process is ending.
                let _ = dropped.send(());
            });
        // Without a thread it was dropped here, and the port becomes free a moment later.
        if dropping.is_ok() {
            is_dropped.await.map_err(|_| panicked())?;
        }
        Ok(())
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct Endpoint {
    id: EndpointId,
    shared: Arc<Shared>,
    incoming: Source<Option<Incoming>>,
}

impl Endpoint {
    fn new(endpoint: iroh::Endpoint) -> Self {
        let id = EndpointId(endpoint.id());
        let (lease, leases) = lease();
        Self {
            id,
            shared: Arc::new(Shared {
                endpoint: Mutex::new(Some(Local::new(lease.with(endpoint)))),
                leases: Mutex::new(Some(leases)),
                closing: watch::Sender::new(Closing::No),
            }),
            incoming: Source::new(),
        }
    }

    fn open(&self) -> Result<Option<IrohEndpoint>, Error> {
        self.shared.open()
    }

    /// For an operation, which takes the endpoint only when it starts: one that nobody starts
    /// must not keep it.
    fn unless_closed(&self) -> Result<Arc<Shared>, Error> {
        self.shared.iroh()?;
        Ok(self.shared.clone())
    }
}

fn bind_error(err: &BindError) -> Error {
    let cause = match err {
        BindError::Sockets { source, .. }
        | BindError::CreateQuicEndpoint { source, .. }
        | BindError::InvalidCaRootConfig { source, .. } => Some(source.to_string()),
        _ => None,
    };
    Error::Bind(match cause {
        Some(cause) => format!("{err}: {cause}"),
        None => err.to_string(),
    })
}

fn bind_socket(builder: Builder, text: &str, is_v4: bool) -> PyResult<Builder> {
    let addr = parse_socket_addr(text)?;
    if addr.is_ipv4() != is_v4 {
        let family = if is_v4 { "IPv4" } else { "IPv6" };
        return Err(PyValueError::new_err(format!(
            "not an {family} address: {text}"
        )));
    }
    let options = BindOpts::default().set_is_required(text != ANY_IPV6);
    builder
        .bind_addr_with_opts(addr, options)
        .map_err(|err| PyValueError::new_err(err.to_string()))
}

fn relay_mode(relays: &Bound<'_, PyAny>) -> PyResult<RelayMode> {
    if let Ok(name) = relays.extract::<String>() {
        return match name.as_str() {
            "disabled" => Ok(RelayMode::Disabled),
            "default" => Ok(RelayMode::Default),
            "staging" => Ok(RelayMode::Staging),
            _ => Err(PyValueError::new_err(
                "relays must be disabled, default, staging or a sequence of RelayConfig",
            )),
        };
    }
    let configs: Vec<RelayConfig> = relays.extract()?;
    Ok(RelayMode::Custom(RelayMap::from_iter(
        configs.into_iter().map(|config| config.0),
    )))
}

#[pymethods]
impl Endpoint {
    #[staticmethod]
    #[pyo3(signature = (
        *,
        secret_key=None,
        alpns=Vec::new(),
        bind_ipv4=Some("0.0.0.0:0".to_owned()),
        bind_ipv6=Some(ANY_IPV6.to_owned()),
        relays=None,
        discovery="none",
        port_mapping=false,
        external_addrs=Vec::new(),
        transport=None,
    ), text_signature = "(*, secret_key=None, alpns=(), bind_ipv4='0.0.0.0:0', bind_ipv6='[::]:0', \
        relays='disabled', discovery='none', port_mapping=False, external_addrs=(), \
        transport=None)")]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of its own")]
    fn bind(
        secret_key: Option<PyRef<'_, SecretKey>>,
        alpns: Vec<Vec<u8>>,
        bind_ipv4: Option<String>,
        bind_ipv6: Option<String>,
        relays: Option<&Bound<'_, PyAny>>,
        discovery: &str,
        port_mapping: bool,
        external_addrs: Vec<String>,
        transport: Option<TransportConfig>,
    ) -> PyResult<Operation> {
        let mut builder = match discovery {
            "none" => Builder::new(presets::Minimal),
            "n0" => Builder::new(presets::N0),
            _ => return Err(PyValueError::new_err("discovery must be none or n0")),
        };
        let mode = relays.map_or(Ok(RelayMode::Disabled), relay_mode)?;
        builder = builder.relay_mode(mode).clear_ip_transports().alpns(alpns);
        if let Some(text) = bind_ipv4 {
            builder = bind_socket(builder, &text, true)?;
        }
        if let Some(text) = bind_ipv6 {
            builder = bind_socket(builder, &text, false)?;
        }
        if let Some(key) = secret_key {
            builder = builder.secret_key(key.0.clone());
        }
        if !port_mapping {
            builder = builder.portmapper_config(PortmapperConfig::Disabled);
        }
        for addr in &external_addrs {
            builder = builder.external_addr(parse_socket_addr(addr)?);
        }
        if let Some(config) = transport {
            builder = builder.transport_config(config.0);
        }
        Ok(Operation::new(async move {
            // A task of its own: given up half-way, iroh would leave its sockets open.
            let bind = async move { builder.bind().await.map(|made| Unclaimed(Some(made))) };
            let endpoint = tokio::spawn(bind).await.map_err(|_| panicked())?;
            let endpoint = endpoint.map_err(|err| bind_error(&err))?;
            Ok(Box::new(move |py: Python<'_>| {
                Ok(Py::new(py, Endpoint::new(endpoint.claim()))?.into_any())
            }) as _)
        }))
    }

    #[getter]
    fn id(&self) -> PyResult<EndpointId> {
        runtime()?;
        Ok(self.id.clone())
    }

    #[getter]
    fn is_closed(&self) -> PyResult<bool> {
        Ok(self.open()?.is_none_or(|endpoint| endpoint.is_closed()))
    }

    fn addr(&self) -> PyResult<EndpointAddr> {
        Ok(EndpointAddr(match self.open()? {
            Some(endpoint) => endpoint.addr(),
            None => iroh::EndpointAddr::new(self.id.0),
        }))
    }

    fn watch_addr(&self) -> PyResult<AddrWatcher> {
        let watching = self.open()?.map(|endpoint| {
            let addrs: Addrs = Box::pin(endpoint.watch_addr().stream());
            (addrs, Box::pin(endpoint.closed()))
        });
        Ok(AddrWatcher {
            addrs: Arc::new(tokio::sync::Mutex::new(watching)),
            source: Source::new(),
        })
    }

    fn bound_sockets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let sockets = self
            .open()?
            .map(|endpoint| endpoint.bound_sockets())
            .unwrap_or_default();
        PyTuple::new(py, sockets.iter().map(SocketAddr::to_string))
    }

    fn online(&self, timeout_s: f64) -> PyResult<Operation> {
        let limit = seconds("timeout_s", timeout_s)?;
        let shared = self.unless_closed()?;
        Ok(Operation::new(async move {
            let endpoint = shared.iroh()?;
            let is_online = tokio::select! {
                biased;
                () = endpoint.closed() => return Err(Error::EndpointClosed),
                result = timeout(limit, endpoint.online()) => result.is_ok(),
            };
            if is_online {
                return none();
            }
            let mut relays = endpoint.home_relay_status().get().into_iter();
            Err(Error::NotOnline {
                denied: relays.find_map(|relay| relay.auth_denied_reason().map(str::to_owned)),
            })
        }))
    }

    fn home_relays(&self) -> PyResult<Vec<RelayStatus>> {
        let relays = self
            .open()?
            .map(|endpoint| endpoint.home_relay_status().get())
            .unwrap_or_default();
        Ok(relays.into_iter().map(RelayStatus::from).collect())
    }

    fn insert_relay(&self, relay: RelayConfig) -> PyResult<Operation> {
        let shared = self.unless_closed()?;
        Ok(Operation::new(async move {
            let endpoint = shared.iroh()?;
            let url = relay.0.url.clone();
            endpoint.insert_relay(url, Arc::new(relay.0)).await;
            none()
        }))
    }

    fn remove_relay(&self, url: &str) -> PyResult<Operation> {
        let url = parse_url(url)?;
        let shared = self.unless_closed()?;
        Ok(Operation::new(async move {
            let endpoint = shared.iroh()?;
            boolean(endpoint.remove_relay(&url).await.is_some())
        }))
    }

    fn add_external_addr(&self, addr: &str) -> PyResult<Operation> {
        let addr = parse_socket_addr(addr)?;
        let shared = self.unless_closed()?;
        Ok(Operation::new(async move {
            let endpoint = shared.iroh()?;
            endpoint.add_external_addr(addr).await;
            none()
        }))
    }

    fn remove_external_addr(&self, addr: &str) -> PyResult<Operation> {
        let addr = parse_socket_addr(addr)?;
        let shared = self.unless_closed()?;
        Ok(Operation::new(async move {
            let endpoint = shared.iroh()?;
            boolean(endpoint.remove_external_addr(&addr).await)
        }))
    }

    fn set_alpns(&self, alpns: Vec<Vec<u8>>) -> PyResult<()> {
        self.shared.iroh()?.set_alpns(alpns);
        Ok(())
    }

    fn network_change(&self) -> PyResult<Operation> {
        let shared = self.unless_closed()?;
        Ok(Operation::new(async move {
            let endpoint = shared.iroh()?;
            endpoint.network_change().await;
            none()
        }))
    }

    #[pyo3(signature = (addr, alpn, *, timeout_s=None, transport=None))]
    fn connect(
        &self,
        addr: &Bound<'_, PyAny>,
        alpn: Vec<u8>,
        timeout_s: Option<f64>,
        transport: Option<TransportConfig>,
    ) -> PyResult<Operation> {
        let addr = if let Ok(id) = addr.extract::<EndpointId>() {
            iroh::EndpointAddr::new(id.0)
        } else if let Ok(addr) = addr.extract::<EndpointAddr>() {
            addr.0
        } else {
            return Err(PyTypeError::new_err(
                "addr must be an EndpointAddr or an EndpointId",
            ));
        };
        let limit = timeout_s.map(|value| seconds("timeout_s", value));
        let limit = limit.transpose()?;
        let shared = self.unless_closed()?;
        Ok(Operation::new(async move {
            let endpoint = shared.iroh()?;
            let mut options = ConnectOptions::new();
            if let Some(config) = transport {
                options = options.with_transport_config(config.0);
            }
            let dial = async {
                let connecting = endpoint
                    .connect_with_opts(addr, &alpn, options)
                    .await
                    .map_err(iroh::endpoint::ConnectError::from)?;
                Ok::<_, Error>(connecting.await?)
            };
            let dial = async {
                match limit {
                    None => dial.await,
                    Some(limit) => timeout(limit, dial)
                        .await
                        .map_err(|_| Error::ConnectTimedOut)?,
                }
            };
            let connection = tokio::select! {
                biased;
                () = endpoint.closed() => return Err(Error::EndpointClosed),
                connection = dial => connection?,
            };
            Ok(Connection::new(connection, &endpoint.lease).deliver())
        }))
    }

    fn accept(&self) -> PyResult<Operation> {
        runtime()?;
        let shared = self.shared.clone();
        let source = self.incoming.clone();
        Ok(Operation::new(async move {
            let next = async {
                let Some(endpoint) = shared.open()? else {
                    return Ok(None);
                };
                let incoming = endpoint.accept().await;
                Ok(incoming.map(|incoming| Incoming::new(incoming, &endpoint.lease)))
            };
            let taken = source.take(next).await?;
            Ok(taken.deliver(|py, incoming| match incoming {
                Some(incoming) => Ok(Py::new(py, incoming)?.into_any()),
                None => Ok(py.None()),
            }))
        }))
    }

    #[pyo3(
        signature = (timeout_s=CLOSE_TIMEOUT.as_secs_f64()),
        text_signature = "(self, timeout_s=5.0)"
    )]
    fn close(&self, timeout_s: f64) -> PyResult<Operation> {
        self.close_within(seconds("timeout_s", timeout_s)?)
    }

    fn closed(&self) -> PyResult<Operation> {
        let Some(closed) = self.open()?.map(|endpoint| endpoint.closed()) else {
            return Ok(Operation::ready(|py| Ok(py.None())));
        };
        Ok(Operation::new(async move {
            closed.await;
            none()
        }))
    }

    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        let endpoint = self.open()?;
        let metrics = endpoint.as_ref().map(|endpoint| endpoint.metrics().iter());
        for (group, item) in metrics.into_iter().flatten() {
            let name = format!("{group}:{}", item.name());
            match item.value() {
                MetricValue::Counter(value) => counters.set_item(name, value)?,
                MetricValue::Gauge(value) => counters.set_item(name, value)?,
                _ => {}
            }
        }
        Ok(counters)
    }

    fn __aenter__(slf: Py<Self>) -> Operation {
        Operation::ready(move |_py| Ok(slf.into_any()))
    }

    #[pyo3(signature = (exc_type, exc, tb, /))]
    fn __aexit__(
        &self,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        tb: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let _ = (exc_type, exc, tb);
        self.close_within(CLOSE_TIMEOUT)
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("Endpoint({})", self.id.0.fmt_short()))
    }
}

impl Endpoint {
    fn close_within(&self, limit: Duration) -> PyResult<Operation> {
        runtime()?;
        let shared = self.shared.clone();
        Ok(Operation::new(async move {
            if let Some(leases) = lock(&shared.leases).take() {
                let shared = shared.clone();
                // A task of its own, which goes on when nobody waits any longer.
                tokio::spawn(async move {
                    let closing = shared.clone();
                    let closed = tokio::spawn(async move { closing.close(leases).await }).await;
                    shared.closing.send_replace(match closed {
                        Ok(Ok(())) => Closing::Done,
                        _ => Closing::Failed,
                    });
                });
            }
            let mut closing = shared.closing.subscribe();
            let ended = timeout(limit, closing.wait_for(|&now| now != Closing::No));
            match ended.await {
                Ok(Ok(end)) if *end == Closing::Failed => Err(panicked()),
                _ => none(),
            }
        }))
    }
}

fn panicked() -> Error {
    Error::Failed("a part of iroh panicked; please report this".to_owned())
}

/// An endpoint that nobody has yet. If nobody ever takes it, it is closed.
struct Unclaimed(Option<iroh::Endpoint>);

impl Unclaimed {
    fn claim(mut self) -> iroh::Endpoint {
        self.0.take().expect("claimed once")
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let (Some(endpoint), Ok(runtime)) = (self.0.take(), runtime()) {
            runtime.spawn(async move { endpoint.close().await });
        }
    }
}

type Addrs = Pin<Box<dyn Stream<Item = iroh::EndpointAddr> + Send>>;
/// Changes of an address until the endpoint closes; `None` from then on.
type Watching = Option<(Addrs, Pin<Box<EndpointClosed>>)>;

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct AddrWatcher {
    addrs: Arc<tokio::sync::Mutex<Watching>>,
    source: Source<Option<EndpointAddr>>,
}

#[pymethods]
impl AddrWatcher {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> Operation {
        let addrs = self.addrs.clone();
        let source = self.source.clone();
        Operation::new(async move {
            let next = async {
                let mut held = addrs.lock().await;
                let Some((stream, closed)) = held.as_mut() else {
                    return Ok(None);
                };
                let addr = tokio::select! {
                    biased;
                    () = closed => None,
                    addr = stream.next() => addr.map(EndpointAddr),
                };
                if addr.is_none() {
                    *held = None;
                }
                Ok(addr)
            };
            let taken = source.take(next).await?;
            Ok(taken.deliver(|py, addr| match addr {
                Some(addr) => Ok(Py::new(py, addr)?.into_any()),
                None => Err(PyStopAsyncIteration::new_err(())),
            }))
        })
    }
}

/// The result of an operation that has none.
pub fn none() -> Result<crate::bridge::Deliver, Error> {
    Ok(Box::new(|py| Ok(py.None())))
}

pub fn boolean(value: bool) -> Result<crate::bridge::Deliver, Error> {
    Ok(Box::new(move |py| {
        Ok(pyo3::types::PyBool::new(py, value)
            .to_owned()
            .into_any()
            .unbind())
    }))
}

/// What a transport address is, and its text.
pub fn describe(addr: &TransportAddr) -> (&'static str, String) {
    match addr {
        TransportAddr::Relay(url) => ("relay", url.to_string()),
        TransportAddr::Ip(addr) => ("ip", addr.to_string()),
        other => ("custom", other.to_string()),
    }
}
