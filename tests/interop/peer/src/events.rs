//! What a provider says of its requests, and what it refuses when told to.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use clap::ValueEnum;
use iroh_blobs::provider::events::{
    AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage, RequestMode,
    RequestUpdate, ThrottleMode,
};
use irpc::channel::mpsc;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use crate::output::say;

/// A kind of request that a provider can refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Connect,
    Get,
    GetMany,
    Observe,
    Push,
}

/// What the provider allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Kinds refused as not permitted: code 1.
    pub refuse: Vec<Kind>,
    /// Kinds refused as too many: code 2.
    pub limit: Vec<Kind>,
    /// Push is off unless asked for, as it is upstream.
    pub allow_push: bool,
    /// Payload bytes after which every transfer is cut with code 2.
    pub limit_after: Option<u64>,
}

impl Policy {
    fn answer(&self, kind: Kind) -> Result<(), AbortReason> {
        if self.refuse.contains(&kind) {
            Err(AbortReason::Permission)
        } else if self.limit.contains(&kind) {
            Err(AbortReason::RateLimited)
        } else {
            Ok(())
        }
    }
}

/// Starts the task that answers and prints the provider's events.
pub fn start(policy: Policy) -> EventSender {
    let mask = EventMask {
        connected: ConnectMode::Intercept,
        get: RequestMode::InterceptLog,
        get_many: RequestMode::InterceptLog,
        push: if policy.allow_push {
            RequestMode::InterceptLog
        } else {
            RequestMode::Disabled
        },
        observe: ObserveMode::Intercept,
        throttle: if policy.limit_after.is_some() {
            ThrottleMode::Intercept
        } else {
            ThrottleMode::None
        },
    };
    let (sender, receiver) = EventSender::channel(64, mask);
    tokio::spawn(answer_all(policy, receiver));
    sender
}

async fn answer_all(policy: Policy, mut receiver: Receiver<ProviderMessage>) {
    let sent = Arc::new(AtomicU64::new(0));
    while let Some(message) = receiver.recv().await {
        match message {
            ProviderMessage::ClientConnected(msg) => {
                let id = msg.endpoint_id.map(|id| id.to_string());
                say(&json!({"event": "connected", "connection": msg.connection_id, "id": id}));
                msg.tx.send(policy.answer(Kind::Connect)).await.ok();
            }
            ProviderMessage::ConnectionClosed(msg) => {
                say(&json!({"event": "disconnected", "connection": msg.connection_id}));
            }
            ProviderMessage::GetRequestReceived(msg) => {
                let request = &msg.inner.request;
                let about = json!({
                    "kind": "get",
                    "hash": request.hash.to_string(),
                    "blob": request.ranges.is_blob(),
                });
                report(about, msg.inner.connection_id, msg.inner.request_id, msg.rx);
                msg.tx.send(policy.answer(Kind::Get)).await.ok();
            }
            ProviderMessage::GetManyRequestReceived(msg) => {
                let hashes: Vec<String> = msg
                    .inner
                    .request
                    .hashes
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let about = json!({"kind": "get_many", "hashes": hashes});
                report(about, msg.inner.connection_id, msg.inner.request_id, msg.rx);
                msg.tx.send(policy.answer(Kind::GetMany)).await.ok();
            }
            ProviderMessage::PushRequestReceived(msg) => {
                let about = json!({"kind": "push", "hash": msg.inner.request.hash.to_string()});
                report(about, msg.inner.connection_id, msg.inner.request_id, msg.rx);
                msg.tx.send(policy.answer(Kind::Push)).await.ok();
            }
            ProviderMessage::ObserveRequestReceived(msg) => {
                let about = json!({"kind": "observe", "hash": msg.inner.request.hash.to_string()});
                report(about, msg.inner.connection_id, msg.inner.request_id, msg.rx);
                msg.tx.send(policy.answer(Kind::Observe)).await.ok();
            }
            ProviderMessage::Throttle(msg) => {
                let total = sent.fetch_add(msg.size, Ordering::Relaxed) + msg.size;
                let over = policy.limit_after.is_some_and(|limit| total > limit);
                let answer = if over {
                    Err(AbortReason::RateLimited)
                } else {
                    Ok(())
                };
                msg.tx.send(answer).await.ok();
            }
            // The mask asks for no plain notifications.
            ProviderMessage::ClientConnectedNotify(_)
            | ProviderMessage::GetRequestReceivedNotify(_)
            | ProviderMessage::GetManyRequestReceivedNotify(_)
            | ProviderMessage::PushRequestReceivedNotify(_)
            | ProviderMessage::ObserveRequestReceivedNotify(_) => {}
        }
    }
}

/// Prints the request, then in a task of its own what becomes of it.
fn report(
    mut about: Value,
    connection: u64,
    request: u64,
    mut updates: mpsc::Receiver<RequestUpdate>,
) {
    about["event"] = json!("request");
    about["connection"] = json!(connection);
    about["request"] = json!(request);
    say(&about);
    tokio::spawn(async move {
        while let Ok(Some(update)) = updates.recv().await {
            let (event, stats) = match update {
                RequestUpdate::Started(started) => {
                    say(&json!({
                        "event": "blob",
                        "request": request,
                        "index": started.index,
                        "hash": started.hash.to_string(),
                        "size": started.size,
                    }));
                    continue;
                }
                RequestUpdate::Progress(_) => continue,
                RequestUpdate::Completed(completed) => ("completed", completed.stats),
                RequestUpdate::Aborted(aborted) => ("aborted", aborted.stats),
            };
            say(&json!({
                "event": event,
                "request": request,
                "payload_bytes_sent": stats.payload_bytes_sent,
                "other_bytes_sent": stats.other_bytes_sent,
            }));
        }
    });
}
