//! The echo of the iroh documentation: what is sent on a stream comes back on it.

use anyhow::{Context, Result};
use clap::Args;
use iroh::endpoint::Connection;
use iroh_tickets::endpoint::EndpointTicket;
use serde_json::json;

use crate::{
    endpoint::{self, Binding, connect},
    output::{say, stdin_closed},
    target,
};

const ALPN: &[u8] = b"iroh-example/echo/0";

/// The connector of the documentation reads no more than this.
const ECHO_MAX: usize = 1000;

#[derive(Debug, Args)]
pub struct EchoConnectArgs {
    /// Endpoint ticket or ID@IP:PORT of the listener.
    listener: String,
    text: String,
}

pub async fn serve(binding: &Binding<'_>) -> Result<()> {
    let endpoint = endpoint::bind(binding, vec![ALPN.to_vec()]).await?;
    let mut ready = endpoint::describe(&endpoint);
    ready["event"] = json!("ready");
    ready["ticket"] = json!(EndpointTicket::new(endpoint::addr_of(&endpoint)).to_string());
    say(&ready);
    let accept = async {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let echoed = match incoming.await {
                    Ok(connection) => echo(&connection).await,
                    Err(error) => Err(error.into()),
                };
                match echoed {
                    Ok((id, bytes)) => say(&json!({"event": "echoed", "id": id, "bytes": bytes})),
                    Err(error) => say(&json!({"event": "error", "message": format!("{error:#}")})),
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

async fn echo(connection: &Connection) -> Result<(String, u64)> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    let bytes = tokio::io::copy(&mut recv, &mut send).await?;
    send.finish()?;
    connection.closed().await;
    Ok((connection.remote_id().to_string(), bytes))
}

pub async fn talk(binding: &Binding<'_>, args: EchoConnectArgs) -> Result<()> {
    let (endpoint, connection) =
        connect(binding, target::parse_addr(&args.listener)?, ALPN).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(args.text.as_bytes()).await?;
    send.finish()?;
    let echoed = recv.read_to_end(ECHO_MAX).await?;
    let text = String::from_utf8(echoed).context("the echo is not the text that was sent")?;
    say(&json!({"event": "done", "text": text}));
    connection.close(0u32.into(), b"bye!");
    endpoint.close().await;
    Ok(())
}
