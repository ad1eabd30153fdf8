//! A peer over the iroh and iroh-blobs crates for blobsync's interop tests.
//!
//! One process does one command. It prints one JSON object a line on standard output; what
//! serves prints a line with `"event": "ready"` first and runs until standard input is closed.
//! A command that fails prints `"event": "error"` and ends with status 1. It binds 127.0.0.1
//! unless told otherwise, with relays and discovery off.

mod codes;
mod echo;
mod endpoint;
mod events;
mod get;
mod link;
mod output;
mod provide;
mod push;
mod raw;
mod stream;
mod target;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

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
    /// Local address of the endpoint.
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
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
    /// Time bare streams.
    RawStreamGet(stream::GetArgs),
    /// Join two TUN devices by a link with delay, loss and rate.
    Link(link::LinkArgs),
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
    let binding = endpoint::Binding {
        secret: cli.secret.as_deref(),
        addr: cli.bind,
    };
    let binding = &binding;
    let serves = matches!(
        cli.command,
        Command::Provide(_)
            | Command::Observe(_)
            | Command::EchoServe
            | Command::RawStreamServe(_)
            | Command::Link(_)
    );
    let limit = if serves {
        Duration::MAX
    } else {
        Duration::try_from_secs_f64(cli.timeout_s).context("bad time limit")?
    };
    let command = async {
        match cli.command {
            Command::Provide(args) => provide::run(binding, args).await,
            Command::Get(args) => get::get(binding, args).await,
            Command::GetRanges(args) => get::get_ranges(binding, args).await,
            Command::GetChildren(args) => get::get_children(binding, args).await,
            Command::GetMany(args) => get::get_many(binding, args).await,
            Command::Observe(args) => get::observe(binding, args).await,
            Command::Push(args) => push::run(binding, args).await,
            Command::RawRequest(args) => raw::run(binding, args).await,
            Command::EchoServe => echo::serve(binding).await,
            Command::EchoConnect(args) => echo::talk(binding, args).await,
            Command::RawStreamServe(args) => stream::serve(binding, args).await,
            Command::RawStreamGet(args) => stream::get(binding, args).await,
            Command::Link(args) => link::run(args).await,
        }
    };
    match tokio::time::timeout(limit, command).await {
        Ok(done) => done,
        Err(_) => anyhow::bail!("not done after {} s", cli.timeout_s),
    }
}
