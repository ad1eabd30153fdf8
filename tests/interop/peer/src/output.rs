//! What this program says: one JSON object a line on standard output.

use std::io::Write;

use serde_json::Value;

/// Prints one line and flushes it, so that a test that waits for it sees it at once.
///
/// A reader that has gone away is not an error: the process is about to end as well.
pub fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{value}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Waits until standard input is closed: the sign to stop serving.
pub async fn stdin_closed() {
    let (tx, rx) = tokio::sync::oneshot::channel();
    // A thread of its own: a blocking read of tokio's pool would hold up the runtime's shutdown.
    std::thread::spawn(move || {
        let copied = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        tx.send(copied).ok();
    });
    rx.await.ok();
}
