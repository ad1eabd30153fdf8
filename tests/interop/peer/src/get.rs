//! The getter's commands: whole tickets through a store, and single requests straight to files.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use bao_tree::io::BaoContentItem;
use clap::Args;
use iroh_blobs::{
    BlobFormat, Hash,
    format::collection::Collection,
    get::{
        Stats,
        fsm::{self, AtBlobHeader, AtEndBlob, BlobContentNext, ConnectedNext, EndBlobNext},
    },
    hashseq::HashSeq,
    protocol::{ChunkRanges, ChunkRangesSeq, GetManyRequest, GetRequest, ObserveRequest},
    ticket::BlobTicket,
};
use n0_future::StreamExt;
use serde_json::{Value, json};

use crate::{
    endpoint::{Binding, connect},
    output::{say, stdin_closed},
    provide, target,
};

#[derive(Debug, Args)]
pub struct GetArgs {
    ticket: BlobTicket,
    /// Folder that the files are exported to.
    out: PathBuf,
    /// Keep the blobs in an upstream file store in this folder instead of memory.
    #[arg(long)]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GetRangesArgs {
    ticket: BlobTicket,
    /// Chunk ranges: `0..16,64..`, `5`, `last`, `all`.
    ranges: String,
    /// File that the verified bytes are written to, each at its place.
    out: PathBuf,
}

#[derive(Debug, Args)]
pub struct GetChildrenArgs {
    ticket: BlobTicket,
    /// Folder for one file a child, named by its index.
    out: PathBuf,
    /// INDEX or INDEX:RANGES; index 0 is the first hash of the hash seq.
    children: Vec<String>,
}

#[derive(Debug, Args)]
pub struct GetManyArgs {
    /// Ticket or ID@IP:PORT of the provider.
    provider: String,
    /// Folder for one file a hash, named by its place in the list.
    out: PathBuf,
    /// HASH or HASH:RANGES, sent in this order.
    hashes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ObserveArgs {
    /// Ticket of the blob to watch.
    ticket: BlobTicket,
    /// End after this many frames instead of at the end of standard input.
    #[arg(long)]
    count: Option<u64>,
}

/// Fetches what the store lacks of a ticket and exports it.
pub async fn get(binding: &Binding<'_>, args: GetArgs) -> Result<()> {
    let store = provide::open(args.store.as_deref()).await?;
    let (endpoint, connection) =
        connect(binding, args.ticket.addr().clone(), iroh_blobs::ALPN).await?;
    let fetched = store
        .remote()
        .fetch(connection, args.ticket.hash_and_format())
        .await;
    let done = async {
        let stats = fetched?;
        let entries = match args.ticket.format() {
            BlobFormat::Raw => vec![(args.ticket.hash().to_string(), args.ticket.hash())],
            BlobFormat::HashSeq => Collection::load(args.ticket.hash(), &store)
                .await
                .map_err(|error| anyhow::anyhow!("not a collection: {error:#}"))?
                .into_iter()
                .collect(),
        };
        for (name, hash) in &entries {
            let path = args.out.join(checked(name)?);
            ensure!(!path.exists(), "{} exists already", path.display());
            fs::create_dir_all(path.parent().unwrap_or(&args.out))?;
            store.blobs().export(*hash, path).await?;
        }
        let names: Vec<&String> = entries.iter().map(|(name, _)| name).collect();
        let mut line = describe(&stats);
        line["files"] = json!(names);
        say(&line);
        Ok(())
    }
    .await;
    endpoint.close().await;
    store.shutdown().await?;
    done
}

/// Fetches chunk ranges of one blob.
pub async fn get_ranges(binding: &Binding<'_>, args: GetRangesArgs) -> Result<()> {
    let ranges = target::parse_ranges(&args.ranges)?;
    let request = GetRequest::blob_ranges(args.ticket.hash(), ranges);
    let (endpoint, connection) =
        connect(binding, args.ticket.addr().clone(), iroh_blobs::ALPN).await?;
    let connected = fsm::start(connection, request, Default::default())
        .next()
        .await?;
    let (closing, blob) = match connected.next().await? {
        ConnectedNext::StartRoot(root) => {
            let (end, blob) = receive(root.next(), &args.out).await?;
            match end.next() {
                EndBlobNext::Closing(closing) => (closing, Some(blob)),
                EndBlobNext::MoreChildren(_) => bail!("a blob has no children"),
            }
        }
        ConnectedNext::Closing(closing) => (closing, None),
        ConnectedNext::StartChild(_) => bail!("a blob has no children"),
    };
    let mut line = describe(&closing.next().await?);
    line["blob"] = json!(blob);
    say(&line);
    endpoint.close().await;
    Ok(())
}

/// Fetches the root of a hash seq and some of its children.
pub async fn get_children(binding: &Binding<'_>, args: GetChildrenArgs) -> Result<()> {
    let mut builder = GetRequest::builder().root(ChunkRanges::all());
    for text in &args.children {
        let (index, ranges) = target::parse_selection(text)?;
        builder = builder.child(index.parse()?, ranges);
    }
    let request = builder.build(args.ticket.hash());
    fs::create_dir_all(&args.out)?;
    let (endpoint, connection) =
        connect(binding, args.ticket.addr().clone(), iroh_blobs::ALPN).await?;
    let connected = fsm::start(connection, request, Default::default())
        .next()
        .await?;
    let ConnectedNext::StartRoot(root) = connected.next().await? else {
        bail!("the request begins with the root");
    };
    let (end, data) = root.next().concatenate_into_vec().await?;
    let hashes = HashSeq::new(data.into()).context("the root is not a hash seq")?;
    let mut next = end.next();
    let mut children = Vec::new();
    let closing = loop {
        match next {
            EndBlobNext::MoreChildren(child) => {
                let index = child.offset() - 1;
                let Some(hash) = hashes.get(usize::try_from(index)?) else {
                    break child.finish();
                };
                let path = args.out.join(index.to_string());
                let (end, mut blob) = receive(child.next(hash), &path).await?;
                blob["index"] = json!(index);
                children.push(blob);
                next = end.next();
            }
            EndBlobNext::Closing(closing) => break closing,
        }
    };
    let mut line = describe(&closing.next().await?);
    line["children"] = json!(children);
    line["count"] = json!(hashes.len());
    say(&line);
    endpoint.close().await;
    Ok(())
}

/// Fetches a list of blobs in one request.
pub async fn get_many(binding: &Binding<'_>, args: GetManyArgs) -> Result<()> {
    let mut hashes: Vec<Hash> = Vec::new();
    let mut ranges = Vec::new();
    for text in &args.hashes {
        let (hash, selected) = target::parse_selection(text)?;
        hashes.push(target::parse_hash(hash)?);
        ranges.push(selected);
    }
    let request = GetManyRequest::new(hashes.clone(), ChunkRangesSeq::from_ranges(ranges));
    fs::create_dir_all(&args.out)?;
    let (endpoint, connection) = connect(
        binding,
        target::parse_addr(&args.provider)?,
        iroh_blobs::ALPN,
    )
    .await?;
    let mut blobs = Vec::new();
    let closing = match fsm::start_get_many(connection, request, Default::default()).await? {
        Err(closing) => closing,
        Ok(first) => {
            let mut child = first;
            loop {
                let index = child.offset();
                let Some(hash) = hashes.get(usize::try_from(index)?) else {
                    break child.finish();
                };
                let path = args.out.join(index.to_string());
                let (end, mut blob) = receive(child.next(*hash), &path).await?;
                blob["index"] = json!(index);
                blobs.push(blob);
                match end.next() {
                    EndBlobNext::MoreChildren(more) => child = more,
                    EndBlobNext::Closing(closing) => break closing,
                }
            }
        }
    };
    let mut line = describe(&closing.next().await?);
    line["blobs"] = json!(blobs);
    say(&line);
    endpoint.close().await;
    Ok(())
}

/// Prints the bitfield of a blob at its provider as it changes.
pub async fn observe(binding: &Binding<'_>, args: ObserveArgs) -> Result<()> {
    let store = provide::open(None).await?;
    let (endpoint, connection) =
        connect(binding, args.ticket.addr().clone(), iroh_blobs::ALPN).await?;
    let frames = async {
        let mut left = args.count.unwrap_or(u64::MAX);
        let mut stream = std::pin::pin!(
            store
                .remote()
                .observe(connection, ObserveRequest::new(args.ticket.hash()))
        );
        while left > 0 {
            let Some(frame) = stream.next().await else {
                bail!("the provider ended the stream");
            };
            let frame = frame?;
            say(&json!({
                "event": "bitfield",
                "size": frame.size(),
                "ranges": target::boundaries(&frame.ranges),
            }));
            left -= 1;
        }
        Ok(())
    };
    let ended = if args.count.is_some() {
        frames.await
    } else {
        tokio::select! {
            ended = frames => ended,
            () = stdin_closed() => Ok(()),
        }
    };
    endpoint.close().await;
    ended
}

/// Verifies one blob of a response and writes what came of it, each byte at its place.
async fn receive(header: AtBlobHeader, path: &Path) -> Result<(AtEndBlob, Value)> {
    let (mut content, size) = header.next().await?;
    let mut file =
        fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut received: Vec<(u64, u64)> = Vec::new();
    let end = loop {
        match content.next().await {
            BlobContentNext::More((next, item)) => {
                if let BaoContentItem::Leaf(leaf) = item? {
                    file.seek(SeekFrom::Start(leaf.offset))?;
                    file.write_all(&leaf.data)?;
                    let stop = leaf.offset + leaf.data.len() as u64;
                    match received.last_mut() {
                        Some(last) if last.1 == leaf.offset => last.1 = stop,
                        _ => received.push((leaf.offset, stop)),
                    }
                }
                content = next;
            }
            BlobContentNext::Done(end) => break end,
        }
    };
    Ok((end, json!({"size": size, "received": received})))
}

fn describe(stats: &Stats) -> Value {
    json!({
        "event": "done",
        "payload_bytes_read": stats.payload_bytes_read,
        "other_bytes_read": stats.other_bytes_read,
        "seconds": stats.elapsed.as_secs_f64(),
    })
}

/// A collection's name as a relative path that stays inside its folder.
fn checked(name: &str) -> Result<&Path> {
    let path = Path::new(name);
    ensure!(
        !name.is_empty()
            && path
                .components()
                .all(|part| matches!(part, Component::Normal(_))),
        "a name that leaves its folder: {name}"
    );
    Ok(path)
}
