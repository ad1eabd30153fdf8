//! Endpoints that reach loopback and nothing else: no relay, no discovery, no port mapping.

use anyhow::{Context, Result};
use iroh::{
    Endpoint, EndpointAddr, RelayMode, SecretKey,
    endpoint::{Connection, presets},
};
use serde_json::{Value, json};

/// Binds an endpoint on a free port of 127.0.0.1.
pub async fn bind(secret: Option<&str>, alpns: Vec<Vec<u8>>) -> Result<Endpoint> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .alpns(alpns);
    if let Some(secret) = secret {
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
    secret: Option<&str>,
    addr: EndpointAddr,
    alpn: &[u8],
) -> Result<(Endpoint, Connection)> {
    let endpoint = bind(secret, vec![]).await?;
    let connection = endpoint.connect(addr, alpn).await?;
    Ok((endpoint, connection))
}
