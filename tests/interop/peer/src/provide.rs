//! `provide`: serves files, a collection of them, and blobs of which only a part is held.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use iroh::protocol::Router;
use iroh_blobs::{
    BlobFormat, BlobsProtocol, Hash,
    api::{
        Store,
        blobs::{AddPathOptions, ImportMode},
    },
    format::collection::Collection,
    store::{fs::FsStore, mem::MemStore},
    ticket::BlobTicket,
};
use serde_json::{Map, Value, json};

use crate::{
    endpoint::{self, Binding},
    events::{self, Kind, Policy},
    output, target,
};

#[derive(Debug, Args)]
pub struct ProvideArgs {
    /// Files and folders to serve; a folder gives one blob for each regular file in it.
    paths: Vec<PathBuf>,
    /// Keep the blobs in an upstream file store in this folder instead of memory.
    #[arg(long)]
    store: Option<PathBuf>,
    /// Make the ticket name the one file itself, not a collection.
    #[arg(long)]
    raw: bool,
    /// Hold only these chunks of a file: PATH:RANGES. In the collection it is as any other.
    #[arg(long, value_name = "PATH:RANGES")]
    partial: Vec<String>,
    /// Refuse this kind of request as not permitted.
    #[arg(long)]
    refuse: Vec<Kind>,
    /// Refuse this kind of request as too many.
    #[arg(long)]
    limit: Vec<Kind>,
    /// Take pushes.
    #[arg(long)]
    allow_push: bool,
    /// Cut every transfer once this many payload bytes were sent.
    #[arg(long)]
    limit_after: Option<u64>,
}

pub async fn run(binding: &Binding<'_>, args: ProvideArgs) -> Result<()> {
    let store = open(args.store.as_deref()).await?;
    let mut files = Vec::new();
    for path in &args.paths {
        let path = path
            .canonicalize()
            .with_context(|| format!("no such path: {}", path.display()))?;
        let name = path
            .file_name()
            .with_context(|| format!("a path without a name: {}", path.display()))?;
        walk(&path, utf8(name)?, &mut files)?;
    }
    files.sort();
    let mut entries: Vec<(String, Hash)> = Vec::new();
    for (name, path) in files {
        entries.push((name, add(&store, &path).await?));
    }
    let mut partial = Map::new();
    let mut partial_entries: Vec<(String, Hash)> = Vec::new();
    for text in &args.partial {
        let (path, ranges) = target::parse_selection(text)?;
        let hash = add_partial(&store, Path::new(path), ranges).await?;
        let name = Path::new(path).file_name().unwrap_or_default();
        partial_entries.push((utf8(name)?.to_owned(), hash));
        partial.insert(path.to_owned(), json!(hash.to_string()));
    }

    let (hash, format) = if args.raw {
        let hash = match (&entries[..], partial.values().next()) {
            ([(_, hash)], None) => *hash,
            ([], Some(Value::String(text))) if partial.len() == 1 => target::parse_hash(text)?,
            _ => bail!("--raw takes exactly one file"),
        };
        (hash, BlobFormat::Raw)
    } else {
        entries.append(&mut partial_entries);
        entries.sort();
        let tag = Collection::from_iter(entries.clone())
            .store(&store)
            .await
            .map_err(|error| anyhow::anyhow!("cannot store the collection: {error:#}"))?;
        store.tags().create(tag.hash_and_format()).await?;
        (tag.hash(), BlobFormat::HashSeq)
    };

    let endpoint = endpoint::bind(binding, vec![]).await?;
    let events = events::start(Policy {
        refuse: args.refuse,
        limit: args.limit,
        allow_push: args.allow_push,
        limit_after: args.limit_after,
    });
    let router = Router::builder(endpoint.clone())
        .accept(iroh_blobs::ALPN, BlobsProtocol::new(&store, Some(events)))
        .spawn();
    let ticket = BlobTicket::new(endpoint::addr_of(&endpoint), hash, format);
    let mut ready = endpoint::describe(&endpoint);
    ready["event"] = json!("ready");
    ready["ticket"] = json!(ticket.to_string());
    ready["hash"] = json!(hash.to_string());
    ready["blobs"] = entries
        .iter()
        .map(|(name, hash)| (name.clone(), json!(hash.to_string())))
        .collect::<Map<_, _>>()
        .into();
    ready["partial"] = partial.into();
    output::say(&ready);
    output::stdin_closed().await;
    router
        .shutdown()
        .await
        .map_err(|error| anyhow::anyhow!("cannot shut down: {error}"))
}

/// Opens the store in `folder`, or an empty one in memory.
pub async fn open(folder: Option<&Path>) -> Result<Store> {
    Ok(match folder {
        Some(folder) => FsStore::load(folder)
            .await
            .map_err(|error| anyhow::anyhow!("cannot open {}: {error:#}", folder.display()))?
            .into(),
        None => MemStore::new().into(),
    })
}

async fn add(store: &Store, path: &Path) -> Result<Hash> {
    let options = AddPathOptions {
        path: path.to_owned(),
        format: BlobFormat::Raw,
        mode: ImportMode::TryReference,
    };
    let tag = store
        .blobs()
        .add_path_with_opts(options)
        .await
        .with_context(|| format!("cannot add {}", path.display()))?;
    Ok(tag.hash)
}

/// Puts only `ranges` of a file into the store, by way of an encoding from a store of its own.
async fn add_partial(
    store: &Store,
    path: &Path,
    ranges: iroh_blobs::protocol::ChunkRanges,
) -> Result<Hash> {
    let whole = open(None).await?;
    let hash = add(&whole, path).await?;
    ensure!(hash != Hash::EMPTY, "an empty blob has no parts");
    let encoded = whole
        .blobs()
        .export_bao(hash, ranges.clone())
        .bao_to_vec()
        .await?;
    store
        .blobs()
        .import_bao_bytes(hash, ranges, encoded)
        .await?;
    Ok(hash)
}

/// Collects (name, path) of the regular files at and below `path`; links are not followed.
fn walk(path: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_file() {
        files.push((name.to_owned(), path.to_owned()));
    } else if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let child = format!("{name}/{}", utf8(&entry.file_name())?);
            walk(&entry.path(), &child, files)?;
        }
    }
    Ok(())
}

fn utf8(name: &std::ffi::OsStr) -> Result<&str> {
    name.to_str()
        .with_context(|| format!("a name that is not UTF-8: {}", name.display()))
}
