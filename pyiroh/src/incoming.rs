//! A peer that dials us, before the handshake.

use std::{
    mem,
    sync::{Arc, Mutex},
};

use iroh::endpoint::IncomingAddr;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyTuple},
};

use crate::{
    bridge::{Local, Operation, lock, runtime},
    connection::Connection,
    endpoint::describe,
    error::Error,
    identity::EndpointId,
    lease::{Lease, Leased, Member},
};

type IrohIncoming = Leased<iroh::endpoint::Incoming>;

enum Decision {
    Open(Box<Local<IrohIncoming>>),
    Made,
    /// The endpoint was closed before.
    TooLate,
}

impl Member for Mutex<Decision> {
    fn release(self: Arc<Self>) {
        let mut decision = lock(&self);
        if let Decision::Open(_) = *decision {
            *decision = Decision::TooLate;
        }
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct Incoming {
    decision: Arc<Mutex<Decision>>,
    kind: &'static str,
    addr: String,
    id: Option<EndpointId>,
    is_validated: bool,
    alpns: Vec<Vec<u8>>,
}

impl Incoming {
    pub fn new(incoming: iroh::endpoint::Incoming, lease: &Lease) -> Self {
        let remote = incoming.remote_addr();
        let id = match &remote {
            IncomingAddr::Relay { endpoint_id, .. } => Some(EndpointId(*endpoint_id)),
            _ => None,
        };
        let (kind, addr) = describe(&remote.into());
        let offered = incoming.decrypt().and_then(|hello| hello.alpns());
        let alpns = offered.into_iter().flatten().map_while(Result::ok);
        let alpns = alpns.map(|alpn| alpn.to_vec()).collect();
        let is_validated = incoming.remote_addr_validated();
        let decision = Decision::Open(Box::new(Local::new(lease.with(incoming))));
        let decision = Arc::new(Mutex::new(decision));
        lease.join(&decision);
        Self {
            decision,
            kind,
            addr,
            id,
            is_validated,
            alpns,
        }
    }

    /// Takes what can be decided on once.
    fn decide(&self) -> Result<IrohIncoming, Error> {
        decide(&self.decision)
    }
}

fn decide(decision: &Mutex<Decision>) -> Result<IrohIncoming, Error> {
    runtime()?;
    let mut decision = lock(decision);
    if let Decision::TooLate = *decision {
        return Err(Error::EndpointClosed);
    }
    match mem::replace(&mut *decision, Decision::Made) {
        Decision::Open(incoming) => incoming.into_inner(),
        Decision::Made | Decision::TooLate => Err(Error::Decided),
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
        let lease = incoming.lease.clone();
        let decided = Arc::new(Mutex::new(Decision::Open(Box::new(Local::new(incoming)))));
        // An operation that nobody starts must not keep the endpoint.
        lease.join(&decided);
        drop(lease);
        Ok(Operation::new(async move {
            let incoming = decide(&decided)?;
            let lease = incoming.lease.clone();
            let connection = incoming.into_value().await?;
            Ok(Connection::new(connection, &lease).deliver())
        }))
    }

    fn refuse(&self) -> PyResult<()> {
        self.decide()?.into_value().refuse();
        Ok(())
    }

    fn ignore(&self) -> PyResult<()> {
        self.decide()?.into_value().ignore();
        Ok(())
    }

    fn retry(&self) -> PyResult<()> {
        let incoming = self.decide()?;
        let lease = incoming.lease.clone();
        if let Err(err) = incoming.into_value().retry() {
            // Proven already: nothing to do, and the peer may still be decided on.
            let incoming = lease.with(err.into_incoming());
            *lock(&self.decision) = Decision::Open(Box::new(Local::new(incoming)));
            lease.join(&self.decision);
            return Err(Error::Value("the address is proven already".to_owned()).into());
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("Incoming({}:{})", self.kind, self.addr)
    }
}
