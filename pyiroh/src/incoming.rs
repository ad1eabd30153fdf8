//! A peer that dials us, before the handshake.

use std::sync::Mutex;

use iroh::endpoint::IncomingAddr;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyTuple},
};

use crate::{
    bridge::{Local, Operation, lock},
    connection::Connection,
    endpoint::describe,
    error::Error,
    identity::EndpointId,
};

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct Incoming {
    undecided: Mutex<Option<Local<iroh::endpoint::Incoming>>>,
    kind: &'static str,
    addr: String,
    id: Option<EndpointId>,
    is_validated: bool,
    alpns: Vec<Vec<u8>>,
}

impl Incoming {
    pub fn new(incoming: iroh::endpoint::Incoming) -> Self {
        let remote = incoming.remote_addr();
        let id = match &remote {
            IncomingAddr::Relay { endpoint_id, .. } => Some(EndpointId(*endpoint_id)),
            _ => None,
        };
        let (kind, addr) = describe(&remote.into());
        let offered = incoming.decrypt().and_then(|hello| hello.alpns());
        let alpns = offered.into_iter().flatten().map_while(Result::ok);
        Self {
            kind,
            addr,
            id,
            is_validated: incoming.remote_addr_validated(),
            alpns: alpns.map(|alpn| alpn.to_vec()).collect(),
            undecided: Mutex::new(Some(Local::new(incoming))),
        }
    }

    /// Takes what can be decided on once.
    fn decide(&self) -> Result<iroh::endpoint::Incoming, Error> {
        let incoming = lock(&self.undecided).take().ok_or(Error::Decided)?;
        incoming.into_inner()
    }
}

#[pymethods]
impl Incoming {
    #[getter]
    fn remote_kind(&self) -> &'static str {
        self.kind
    }

    #[getter]
    fn remote_addr(&self) -> &str {
        &self.addr
    }

    #[getter]
    fn remote_id(&self) -> Option<EndpointId> {
        self.id.clone()
    }

    #[getter]
    fn is_validated(&self) -> bool {
        self.is_validated
    }

    #[getter]
    fn alpns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.alpns.iter().map(|alpn| PyBytes::new(py, alpn)))
    }

    fn accept(&self) -> PyResult<Operation> {
        let incoming = self.decide()?;
        Ok(Operation::new(async move {
            Ok(Connection::new(incoming.await?).deliver())
        }))
    }

    fn refuse(&self) -> PyResult<()> {
        self.decide()?.refuse();
        Ok(())
    }

    fn ignore(&self) -> PyResult<()> {
        self.decide()?.ignore();
        Ok(())
    }

    fn retry(&self) -> PyResult<()> {
        let incoming = self.decide()?;
        if let Err(err) = incoming.retry() {
            // Proven already: nothing to do, and the peer may still be decided on.
            *lock(&self.undecided) = Some(Local::new(err.into_incoming()));
            return Err(Error::Value("the address is proven already".to_owned()).into());
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("Incoming({}:{})", self.kind, self.addr)
    }
}
