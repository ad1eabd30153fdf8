//! `push`: sends a file to a provider that may not want it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use iroh::endpoint::WriteError;
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesSeq, PushRequest};
use serde_json::json;

use crate::{
    endpoint::{Binding, connect},
    output::say,
    provide, target,
};

/// The type byte of a push request.
const PUSH: u8 = 8;

#[derive(Debug, Args)]
pub struct PushArgs {
    /// Ticket or ID@IP:PORT of the peer to push to.
    peer: String,
    file: PathBuf,
}

/// Pushes by hand, to see the one thing a pusher can learn: the code it was stopped with.
pub async fn run(binding: &Binding<'_>, args: PushArgs) -> Result<()> {
    let store = provide::open(None).await?;
    let tag = store
        .blobs()
        .add_path(&args.file)
        .await
        .with_context(|| format!("cannot add {}", args.file.display()))?;
    let body = store
        .blobs()
        .export_bao(tag.hash, ChunkRanges::all())
        .bao_to_vec()
        .await?;
    let request = postcard::to_stdvec(&PushRequest::new(tag.hash, ChunkRangesSeq::root()))?;
    let length = postcard::to_stdvec(&(request.len() as u64))?;
    let bytes = [&[PUSH][..], &length, &request, &body].concat();

    let (endpoint, connection) =
        connect(binding, target::parse_addr(&args.peer)?, iroh_blobs::ALPN).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    recv.stop(0u32.into())?;
    let stopped = match send.write_all(&bytes).await {
        Ok(()) => {
            // A stream that was stopped in the meantime cannot be finished, and says why below.
            send.finish().ok();
            send.stopped().await?
        }
        Err(WriteError::Stopped(code)) => Some(code),
        Err(error) => return Err(error.into()),
    };
    say(&json!({
        "event": "done",
        "hash": tag.hash.to_string(),
        "stopped": stopped.map(|code| code.into_inner()),
    }));
    connection.close(0u32.into(), b"");
    endpoint.close().await;
    Ok(())
}
