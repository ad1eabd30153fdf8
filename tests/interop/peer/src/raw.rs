//! `raw-request`: any bytes on a stream, and exactly what comes back.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use iroh::endpoint::{
    Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, WriteError,
};
use serde_json::{Value, json};

use crate::{
    endpoint::{Binding, connect},
    output::say,
    target,
};

/// More than this is not kept, only counted and hashed.
const HEX_MAX: usize = 64 * 1024;

/// How long to wait for a STOP_SENDING after the answer has ended.
const STOP_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct RawRequestArgs {
    /// Ticket or ID@IP:PORT of the provider.
    provider: String,
    /// ALPN to connect with.
    alpn: String,
    /// The bytes to send as hex, or @FILE.
    bytes: String,
    /// Leave our side of the stream open.
    #[arg(long)]
    no_finish: bool,
    /// Stop waiting for the end of the answer after this many seconds.
    #[arg(long, default_value_t = 10.0)]
    wait_s: f64,
}

/// What was read of the answer before it ended.
struct Answer {
    length: usize,
    hasher: blake3::Hasher,
    head: Vec<u8>,
}

pub async fn run(binding: &Binding<'_>, args: RawRequestArgs) -> Result<()> {
    let bytes = target::parse_bytes(&args.bytes)?;
    let (endpoint, connection) = connect(
        binding,
        target::parse_addr(&args.provider)?,
        args.alpn.as_bytes(),
    )
    .await?;
    let mut line = match connection.open_bi().await {
        Ok((send, recv)) => exchange(send, recv, &bytes, &args).await,
        Err(error) => json!({"data_len": 0, "stopped": null, "end": closed(&error)}),
    };
    line["event"] = json!("done");
    say(&line);
    hang_up(&connection);
    endpoint.close().await;
    Ok(())
}

async fn exchange(
    mut send: SendStream,
    mut recv: RecvStream,
    bytes: &[u8],
    args: &RawRequestArgs,
) -> Value {
    let mut answer = Answer {
        length: 0,
        hasher: blake3::Hasher::new(),
        head: Vec::new(),
    };
    let write = async {
        let written = send.write_all(bytes).await;
        if written.is_ok() && !args.no_finish {
            // Fails only when the peer stopped the stream, which `stopped` reports below.
            send.finish().ok();
        }
        written
    };
    let read = async {
        let limit = Duration::from_secs_f64(args.wait_s);
        match tokio::time::timeout(limit, answer.read(&mut recv)).await {
            Ok(Ok(())) => json!("fin"),
            Ok(Err(ReadError::Reset(code))) => json!({"reset": code.into_inner()}),
            Ok(Err(ReadError::ConnectionLost(error))) => closed(&error),
            Ok(Err(error)) => json!({"error": error.to_string()}),
            Err(_) => json!("open"),
        }
    };
    let (written, end) = tokio::join!(write, read);
    let stopped = match written {
        Err(WriteError::Stopped(code)) => Some(code),
        _ => match tokio::time::timeout(STOP_WAIT, send.stopped()).await {
            Ok(Ok(code)) => code,
            Ok(Err(StoppedError::ConnectionLost(_) | StoppedError::ZeroRttRejected)) | Err(_) => {
                None
            }
        },
    };
    json!({
        "data_len": answer.length,
        "data_blake3": answer.hasher.finalize().to_hex().as_str(),
        "data_hex": (answer.length <= HEX_MAX)
            .then(|| data_encoding::HEXLOWER.encode(&answer.head)),
        "end": end,
        "stopped": stopped.map(|code| code.into_inner()),
    })
}

impl Answer {
    async fn read(&mut self, recv: &mut RecvStream) -> Result<(), ReadError> {
        while let Some(chunk) = recv.read_chunk(1 << 20).await? {
            self.length += chunk.len();
            self.hasher.update(&chunk);
            if self.length <= HEX_MAX {
                self.head.extend_from_slice(&chunk);
            }
        }
        Ok(())
    }
}

fn closed(error: &ConnectionError) -> Value {
    match error {
        ConnectionError::ApplicationClosed(close) => json!({"closed": {
            "code": close.error_code.into_inner(),
            "reason": String::from_utf8_lossy(&close.reason),
        }}),
        other => json!({"lost": other.to_string()}),
    }
}

fn hang_up(connection: &Connection) {
    connection.close(0u32.into(), b"");
}
