//! The private extension of the Python package `pyiroh`: iroh for asyncio, and pumps that move
//! verified bulk data between streams and files.

mod bridge;
mod connection;
mod endpoint;
mod error;
mod identity;
mod incoming;
mod lease;
mod pump;
mod putback;
mod recv;
mod send;
mod transport;

#[pyo3::pymodule]
mod _pyiroh {
    use pyo3::{exceptions::PyRuntimeWarning, prelude::*};

    #[pymodule_export]
    use crate::{
        bridge::Operation,
        connection::{Connection, ConnectionStats, Path, PathWatcher},
        endpoint::{AddrWatcher, Endpoint},
        identity::{EndpointAddr, EndpointId, EndpointTicket, RelayConfig, RelayStatus, SecretKey},
        incoming::Incoming,
        pump::{batch::BatchPump, batch::WholeBlobs, blob::BlobPump, send::PumpProgress},
        recv::RecvStream,
        send::SendStream,
        transport::TransportConfig,
    };

    #[pymodule_export]
    const STREAM_RECEIVE_WINDOW_MAX: u64 = crate::transport::STREAM_RECEIVE_WINDOW_MAX;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        if cfg!(debug_assertions) {
            let category = module.py().get_type::<PyRuntimeWarning>();
            let text = c"this pyiroh is a debug build and slow; build it with --release";
            PyErr::warn(module.py(), &category, text, 1)?;
        }
        Ok(())
    }
}
