//! Endpoints that reach given addresses and nothing else: no relay, no discovery, no port mapping.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use iroh::{
    Endpoint, EndpointAddr, RelayMode, SecretKey,
    endpoint::{Connection, presets},
};
use serde_json::{Value, json};

/// Who an endpoint is and where.
pub struct Binding<'a> {
    /// Secret key in hex or base32; random when not given.
    pub secret: Option<&'a str>,
    pub addr: SocketAddr,
}

/// Binds an endpoint.
pub async fn bind(binding: &Binding<'_>, alpns: Vec<Vec<u8>>) -> Result<Endpoint> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(binding.addr)?
        .alpns(alpns);
    if let Some(secret) = binding.secret {
        builder = builder.secret_key(secret.parse::<SecretKey>().context("bad secret key")?);
    }
    builder.bind().await.context("cannot bind an endpoint")
}

/// The endpoint's address, from its sockets: known as soon as they are bound.
pub fn addr_of(endpoint: &Endpoint) -> EndpointAddr {
    endpoint
        .bound_sockets()
        .into_iter()
        .fold(EndpointAddr::new(endpoint.id()), EndpointAddr::with_ip_addr)
}

/// The fields `id` and `addr` that every `ready` line has.
pub fn describe(endpoint: &Endpoint) -> Value {
    let sockets: Vec<String> = endpoint
        .bound_sockets()
        .iter()
        .map(ToString::to_string)
        .collect();
    json!({"id": endpoint.id().to_string(), "addr": sockets})
}

/// Connects to `addr` from a new endpoint.
pub async fn connect(
    binding: &Binding<'_>,
    addr: EndpointAddr,
    alpn: &[u8],
) -> Result<(Endpoint, Connection)> {
    let endpoint = bind(binding, vec![]).await?;
    let connection = endpoint.connect(addr, alpn).await?;
    Ok((endpoint, connection))
}
