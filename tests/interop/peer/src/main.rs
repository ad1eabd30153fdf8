//! A peer over the iroh and iroh-blobs crates for blobsync's interop tests.
//!
//! One process does one command. It prints one JSON object a line on standard output; what
//! serves prints a line with `"event": "ready"` first and runs until standard input is closed.
//! A command that fails prints `"event": "error"` and ends with status 1. It binds 127.0.0.1
//! only, with relays and discovery off.

mod codes;
mod echo;
mod endpoint;
mod events;
mod get;
mod output;
mod provide;
mod push;
mod raw;
mod stream;
mod target;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::json;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Secret key of the endpoint in hex or base32; random when not given.
    #[arg(long, global = true, env = "IROH_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Give up after this many seconds; commands that serve have no limit.
    #[arg(long, global = true, default_value_t = 120.0)]
    timeout_s: f64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve files and a collection of them.
    Provide(provide::ProvideArgs),
    /// Fetch a blob or a collection and export it.
    Get(get::GetArgs),
    /// Fetch chunk ranges of one blob.
    GetRanges(get::GetRangesArgs),
    /// Fetch some children of a hash seq.
    GetChildren(get::GetChildrenArgs),
    /// Fetch a list of blobs in one request.
    GetMany(get::GetManyArgs),
    /// Watch the bitfield of a blob at its provider.
    Observe(get::ObserveArgs),
    /// Push a file.
    Push(push::PushArgs),
    /// Send any bytes on a stream and report what comes back.
    RawRequest(raw::RawRequestArgs),
    /// Run the echo listener of the iroh documentation.
    EchoServe,
    /// Say something to an echo listener.
    EchoConnect(echo::EchoConnectArgs),
    /// Send bytes on a bare stream to whoever connects.
    RawStreamServe(stream::ServeArgs),
    /// Time a bare stream.
    RawStreamGet(stream::GetArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = codes::code_of(&error);
            let message = format!("{error:#}");
            output::say(&json!({"event": "error", "message": message, "code": code}));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let secret = cli.secret.as_deref();
    let serves = matches!(
        cli.command,
        Command::Provide(_) | Command::Observe(_) | Command::EchoServe | Command::RawStreamServe(_)
    );
    let limit = if serves {
        Duration::MAX
    } else {
        Duration::try_from_secs_f64(cli.timeout_s).context("bad time limit")?
    };
    let command = async {
        match cli.command {
            Command::Provide(args) => provide::run(secret, args).await,
            Command::Get(args) => get::get(secret, args).await,
            Command::GetRanges(args) => get::get_ranges(secret, args).await,
            Command::GetChildren(args) => get::get_children(secret, args).await,
            Command::GetMany(args) => get::get_many(secret, args).await,
            Command::Observe(args) => get::observe(secret, args).await,
            Command::Push(args) => push::run(secret, args).await,
            Command::RawRequest(args) => raw::run(secret, args).await,
            Command::EchoServe => echo::serve(secret).await,
            Command::EchoConnect(args) => echo::talk(secret, args).await,
            Command::RawStreamServe(args) => stream::serve(secret, args).await,
            Command::RawStreamGet(args) => stream::get(secret, args).await,
        }
    };
    match tokio::time::timeout(limit, command).await {
        Ok(done) => done,
        Err(_) => anyhow::bail!("not done after {} s", cli.timeout_s),
    }
}
