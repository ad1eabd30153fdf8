//! Bare streams: what iroh itself can carry, with nothing hashed, read or written.

use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use iroh::endpoint::{Connection, ConnectionError, RecvStream, SendStream};
use iroh_tickets::endpoint::EndpointTicket;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    endpoint::{self, Binding},
    output::{say, stdin_closed},
    target,
};

const ALPN: &[u8] = b"blobsync-peer/raw-stream/0";

const BUFFER_SIZE: usize = 1 << 20;

/// Streams of one connection.
const STREAMS_MAX: u64 = 100;

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Bytes to send in all to each getter.
    size: u64,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// Endpoint ticket or ID@IP:PORT of the other side.
    peer: String,
    /// Streams that share the bytes, on each connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=STREAMS_MAX))]
    streams: u64,
    /// Connections, each from an endpoint of its own, that share the bytes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    connections: u64,
    /// Take all connections from one endpoint.
    #[arg(long)]
    one_endpoint: bool,
}

pub async fn serve(binding: &Binding<'_>, args: ServeArgs) -> Result<()> {
    let endpoint = endpoint::bind(binding, vec![ALPN.to_vec()]).await?;
    let mut ready = endpoint::describe(&endpoint);
    ready["event"] = json!("ready");
    ready["ticket"] = json!(EndpointTicket::new(endpoint::addr_of(&endpoint)).to_string());
    say(&ready);
    let accept = async {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let served = match incoming.await {
                    Ok(connection) => serve_streams(&connection, args.size).await,
                    Err(error) => Err(error.into()),
                };
                report(served);
            });
        }
    };
    tokio::select! {
        () = accept => {},
        () = stdin_closed() => {},
    }
    endpoint.close().await;
    Ok(())
}

fn report(result: Result<()>) {
    if let Err(error) = result {
        say(&json!({"event": "error", "message": format!("{error:#}")}));
    }
}

async fn serve_streams(connection: &Connection, size: u64) -> Result<()> {
    loop {
        match connection.accept_bi().await {
            Ok((send, recv)) => {
                tokio::spawn(async move { report(fill(send, recv, size).await) });
            }
            Err(ConnectionError::ApplicationClosed(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A request is how many streams share the bytes, in 8 bytes, little endian.
async fn fill(mut send: SendStream, mut recv: RecvStream, size: u64) -> Result<()> {
    let request = recv.read_to_end(8).await?;
    let shared_by = u64::from_le_bytes(request.as_slice().try_into()?);
    let size = size.checked_div(shared_by).context("shared by nobody")?;
    let buffer = Bytes::from(vec![0x5a; BUFFER_SIZE]);
    let start = Instant::now();
    let mut left = size;
    while left > 0 {
        let length = left.min(BUFFER_SIZE as u64);
        send.write_chunk(buffer.slice(..usize::try_from(length)?))
            .await?;
        left -= length;
    }
    send.finish()?;
    send.stopped().await?;
    let seconds = start.elapsed().as_secs_f64();
    say(&json!({"event": "sent", "bytes": size, "seconds": seconds}));
    Ok(())
}

pub async fn get(binding: &Binding<'_>, args: GetArgs) -> Result<()> {
    let addr = target::parse_addr(&args.peer)?;
    let mut endpoints = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..args.connections {
        if endpoints.is_empty() || !args.one_endpoint {
            endpoints.push(endpoint::bind(binding, vec![]).await?);
        }
        let last = endpoints.last().context("one was bound")?;
        connections.push(last.connect(addr.clone(), ALPN).await?);
    }
    let shared_by = args.streams * args.connections;
    let start = Instant::now();
    let mut reading = JoinSet::new();
    for connection in &connections {
        for _ in 0..args.streams {
            // Spawned tasks: the thread of the main future is slower to wake.
            reading.spawn(drain(connection.clone(), shared_by));
        }
    }
    let mut bytes = 0;
    while let Some(read) = reading.join_next().await {
        bytes += read??;
    }
    let seconds = start.elapsed().as_secs_f64();
    say(&json!({"event": "done", "bytes": bytes, "seconds": seconds}));
    for connection in connections {
        connection.close(0u32.into(), b"");
    }
    for endpoint in endpoints {
        endpoint.close().await;
    }
    Ok(())
}

async fn drain(connection: Connection, shared_by: u64) -> Result<u64> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&shared_by.to_le_bytes()).await?;
    send.finish()?;
    let mut bytes = 0;
    while let Some(chunk) = recv.read_chunk(BUFFER_SIZE).await? {
        bytes += chunk.len() as u64;
    }
    Ok(bytes)
}
