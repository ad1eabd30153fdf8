//! A bare stream: what iroh itself can carry, with nothing hashed, read or written.

use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use iroh::endpoint::Connection;
use iroh_tickets::endpoint::EndpointTicket;
use serde_json::json;

use crate::{
    endpoint::{self, connect},
    output::{say, stdin_closed},
    target,
};

const ALPN: &[u8] = b"blobsync-peer/raw-stream/0";

const BUFFER_SIZE: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Bytes to send on every stream.
    size: u64,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// Endpoint ticket or ID@IP:PORT of the other side.
    peer: String,
}

pub async fn serve(secret: Option<&str>, args: ServeArgs) -> Result<()> {
    let endpoint = endpoint::bind(secret, vec![ALPN.to_vec()]).await?;
    let mut ready = endpoint::describe(&endpoint);
    ready["event"] = json!("ready");
    ready["ticket"] = json!(EndpointTicket::new(endpoint::addr_of(&endpoint)).to_string());
    say(&ready);
    let accept = async {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let sent = match incoming.await {
                    Ok(connection) => fill(&connection, args.size).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = sent {
                    say(&json!({"event": "error", "message": format!("{error:#}")}));
                }
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

async fn fill(connection: &Connection, size: u64) -> Result<()> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    recv.read_to_end(0).await?;
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
    connection.closed().await;
    Ok(())
}

pub async fn get(secret: Option<&str>, args: GetArgs) -> Result<()> {
    let (endpoint, connection) = connect(secret, target::parse_addr(&args.peer)?, ALPN).await?;
    let reading = connection.clone();
    // A spawned task: the thread of the main future is slower to wake.
    let (bytes, seconds) = tokio::spawn(async move {
        let (mut send, mut recv) = reading.open_bi().await?;
        let start = Instant::now();
        send.finish()?;
        let mut bytes = 0;
        while let Some(chunk) = recv.read_chunk(BUFFER_SIZE).await? {
            bytes += chunk.len() as u64;
        }
        anyhow::Ok((bytes, start.elapsed().as_secs_f64()))
    })
    .await??;
    say(&json!({"event": "done", "bytes": bytes, "seconds": seconds}));
    connection.close(0u32.into(), b"");
    endpoint.close().await;
    Ok(())
}
