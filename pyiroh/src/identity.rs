//! Keys and addresses: who an endpoint is and where it may be found.

use std::{cmp::Ordering, collections::BTreeSet, hash::Hash, net::SocketAddr};

use iroh::{RelayConfig as IrohRelayConfig, RelayUrl, Signature, TransportAddr};
use iroh_tickets::endpoint::EndpointTicket as IrohTicket;
use pyo3::{basic::CompareOp, exceptions::PyValueError, prelude::*, types::PyBytes};

/// The points of small order, for which anyone can forge signatures, with the sign bit cleared:
/// the y coordinates 0, 1 and p - 1, the first two again as p and p + 1, and two of order eight.
const WEAK_KEYS: [[u8; 32]; 7] = {
    const fn small(low: u8) -> [u8; 32] {
        let mut key = [0; 32];
        key[0] = low;
        key
    }
    const fn near_p(low: u8) -> [u8; 32] {
        let mut key = [0xff; 32];
        key[0] = low;
        key[31] = 0x7f;
        key
    }
    [
        small(0),
        small(1),
        near_p(0xec),
        near_p(0xed),
        near_p(0xee),
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
    ]
};

fn value_error(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}

fn key_bytes(bytes: &[u8]) -> PyResult<[u8; 32]> {
    bytes
        .try_into()
        .map_err(|_| value_error(format!("a key has 32 bytes, not {}", bytes.len())))
}

/// Hash and all comparisons of a Python object by those of its Rust value.
fn compare<T: PartialEq + PartialOrd>(left: &T, right: &T, op: CompareOp) -> bool {
    left.partial_cmp(right)
        .is_some_and(|order| op.matches(order))
}

fn hash_of(value: &impl Hash) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct SecretKey(pub iroh::SecretKey);

#[pymethods]
impl SecretKey {
    #[staticmethod]
    fn generate() -> Self {
        Self(iroh::SecretKey::generate())
    }

    #[staticmethod]
    #[pyo3(signature = (seed, /))]
    fn from_bytes(seed: &[u8]) -> PyResult<Self> {
        Ok(Self(iroh::SecretKey::from_bytes(&key_bytes(seed)?)))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    fn public(&self) -> EndpointId {
        EndpointId(self.0.public())
    }

    #[pyo3(signature = (message, /))]
    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.sign(message).to_bytes())
    }

    fn __eq__(&self, other: &Self) -> bool {
        // The public keys say the same and can be compared in any time.
        self.0.public() == other.0.public()
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0.public())
    }

    fn __repr__(&self) -> String {
        format!("SecretKey(of {})", self.0.public().fmt_short())
    }
}

#[pyclass(frozen, from_py_object, module = "pyiroh._pyiroh")]
#[derive(Clone)]
pub struct EndpointId(pub iroh::EndpointId);

impl EndpointId {
    /// Refuses what anyone could pretend to be.
    fn checked(key: iroh::EndpointId) -> PyResult<Self> {
        let mut bytes = *key.as_bytes();
        bytes[31] &= 0x7f;
        if WEAK_KEYS.contains(&bytes) {
            return Err(value_error(
                "the key is weak: anyone can forge its signatures",
            ));
        }
        Ok(Self(key))
    }
}

#[pymethods]
impl EndpointId {
    #[staticmethod]
    #[pyo3(signature = (key, /))]
    fn from_bytes(key: &[u8]) -> PyResult<Self> {
        let key = iroh::EndpointId::from_bytes(&key_bytes(key)?)
            .map_err(|_| value_error("the 32 bytes are not an Ed25519 public key"))?;
        Self::checked(key)
    }

    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_text(text: &str) -> PyResult<Self> {
        let key = text
            .parse()
            .map_err(|err| value_error(format!("not an endpoint id: {err}")))?;
        Self::checked(key)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.as_bytes())
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.to_bytes(py)
    }

    fn short(&self) -> String {
        self.0.fmt_short().to_string()
    }

    fn z32(&self) -> String {
        self.0.to_z32()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match <&[u8; Signature::LENGTH]>::try_from(signature) {
            Ok(signature) => self
                .0
                .verify(message, &Signature::from_bytes(signature))
                .is_ok(),
            Err(_) => false,
        }
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp) -> bool {
        compare(&self.0, &other.0, op)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("EndpointId({})", self.0)
    }
}

pub fn parse_url(text: &str) -> PyResult<RelayUrl> {
    let url: RelayUrl = text
        .parse()
        .map_err(|_| value_error(format!("not a relay URL: {text}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(value_error(format!("not a relay URL: {text}")));
    }
    Ok(url)
}

pub fn parse_socket_addr(text: &str) -> PyResult<SocketAddr> {
    text.parse()
        .map_err(|_| value_error(format!("not an ip:port address: {text}")))
}

#[pyclass(frozen, from_py_object, module = "pyiroh._pyiroh")]
#[derive(Clone)]
pub struct EndpointAddr(pub iroh::EndpointAddr);

#[pymethods]
impl EndpointAddr {
    #[new]
    #[pyo3(
        signature = (id, relay_urls=Vec::new(), ip_addrs=Vec::new()),
        text_signature = "(id, relay_urls=(), ip_addrs=())"
    )]
    fn new(id: EndpointId, relay_urls: Vec<String>, ip_addrs: Vec<String>) -> PyResult<Self> {
        let mut addrs = BTreeSet::new();
        for url in &relay_urls {
            addrs.insert(TransportAddr::Relay(parse_url(url)?));
        }
        for addr in &ip_addrs {
            addrs.insert(TransportAddr::Ip(parse_socket_addr(addr)?));
        }
        Ok(Self(iroh::EndpointAddr { id: id.0, addrs }))
    }

    #[getter]
    fn id(&self) -> EndpointId {
        EndpointId(self.0.id)
    }

    #[getter]
    fn relay_urls<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let urls: Vec<_> = self.0.relay_urls().map(ToString::to_string).collect();
        Ok(pyo3::types::PyTuple::new(py, urls)?.into_any())
    }

    #[getter]
    fn ip_addrs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let addrs: Vec<_> = self.0.ip_addrs().map(ToString::to_string).collect();
        Ok(pyo3::types::PyTuple::new(py, addrs)?.into_any())
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0.cmp(&other.0) == Ordering::Equal
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __repr__(&self) -> String {
        let addrs: Vec<_> = self.0.addrs.iter().map(ToString::to_string).collect();
        format!(
            "EndpointAddr({}, {})",
            self.0.id.fmt_short(),
            addrs.join(", ")
        )
    }
}

#[pyclass(frozen, module = "pyiroh._pyiroh")]
pub struct EndpointTicket(IrohTicket);

#[pymethods]
impl EndpointTicket {
    #[new]
    fn new(addr: EndpointAddr) -> Self {
        Self(IrohTicket::new(addr.0))
    }

    #[staticmethod]
    #[pyo3(signature = (text, /))]
    fn from_text(text: &str) -> PyResult<Self> {
        let ticket: IrohTicket = text
            .parse()
            .map_err(|err| value_error(format!("not an endpoint ticket: {err}")))?;
        EndpointId::checked(ticket.endpoint_addr().id)?;
        Ok(Self(ticket))
    }

    #[getter]
    fn addr(&self) -> EndpointAddr {
        EndpointAddr(self.0.endpoint_addr().clone())
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __hash__(&self) -> u64 {
        hash_of(self.0.endpoint_addr())
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("EndpointTicket({})", self.0)
    }
}

#[pyclass(frozen, from_py_object, module = "pyiroh._pyiroh")]
#[derive(Clone)]
pub struct RelayConfig(pub IrohRelayConfig);

#[pymethods]
impl RelayConfig {
    #[new]
    #[pyo3(signature = (url, *, token=None, quic_port=None))]
    fn new(url: &str, token: Option<String>, quic_port: Option<u16>) -> PyResult<Self> {
        let url = parse_url(url)?;
        let is_https = url.scheme() == "https";
        let mut config = IrohRelayConfig::from(url);
        match (quic_port, &mut config.quic) {
            (Some(0), quic) => *quic = None,
            (Some(port), Some(quic)) => quic.port = port,
            (None, quic) if !is_https => *quic = None,
            (_, _) => {}
        }
        config.auth_token = token;
        Ok(Self(config))
    }

    #[getter]
    fn url(&self) -> String {
        self.0.url.to_string()
    }

    fn __repr__(&self) -> String {
        format!("RelayConfig({})", self.0.url)
    }
}

#[pyclass(frozen, get_all, module = "pyiroh._pyiroh")]
pub struct RelayStatus {
    url: String,
    is_connected: bool,
    denied: Option<String>,
}

impl From<iroh::endpoint::RelayStatus> for RelayStatus {
    fn from(status: iroh::endpoint::RelayStatus) -> Self {
        Self {
            url: status.url().to_string(),
            is_connected: status.is_connected(),
            denied: status.auth_denied_reason().map(ToOwned::to_owned),
        }
    }
}

#[pymethods]
impl RelayStatus {
    fn __repr__(&self) -> String {
        let state = match (&self.denied, self.is_connected) {
            (Some(words), _) => format!("denied: {words}"),
            (None, true) => "connected".to_owned(),
            (None, false) => "not connected".to_owned(),
        };
        format!("RelayStatus({}, {state})", self.url)
    }
}
