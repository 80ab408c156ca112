//! Asks a process of ours whether it is ready.

use std::{net::SocketAddr, path::Path, time::Duration};

use daemon::net;
use tokio::time::sleep;

use crate::http;

/// How often a file is looked at that somebody is waiting for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Asks the process `pid`, which writes where it listens to the file `addresses`.
///
/// # Errors
///
/// Why it is not ready, for a person.
pub(super) async fn ask(addresses: &Path, pid: Option<u32>) -> Result<(), String> {
    let text = tokio::fs::read_to_string(addresses).await;
    let text = text.map_err(|_| "it has not said yet where it listens".to_owned())?;
    let admin = admin_address(&text, pid).ok_or("it has not said yet where it listens")?;
    match http::get(net::loopback(admin), "/readyz").await {
        Ok((200, _)) => Ok(()),
        Ok((_, body)) => Err(body.trim().replace('\n', "; ")),
        Err(error) => Err(format!("its admin port {admin} does not answer: {error}")),
    }
}

/// Waits until a process has written its addresses, all of which it has then bound.
pub(super) async fn listens(addresses: &Path) {
    while !is_complete(&tokio::fs::read_to_string(addresses).await.unwrap_or_default()) {
        sleep(LOOK_INTERVAL).await;
    }
}

/// Whether the addresses are those of a process that serves clients: it says so last.
fn is_complete(text: &str) -> bool {
    let value = serde_json::from_str::<serde_json::Value>(text);
    value.is_ok_and(|value| value.get("client").is_some())
}

/// The admin address that the process `pid` has written.
fn admin_address(text: &str, pid: Option<u32>) -> Option<SocketAddr> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let written_by = value.get("pid")?.as_u64()?;
    if pid.is_some_and(|pid| u64::from(pid) != written_by) {
        return None;
    }
    value.get("admin")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_life_is_believed() {
        let text = r#"{"name":"chat-1","pid":12,"admin":"127.0.0.1:4"}"#;
        assert_eq!(admin_address(text, Some(12)), Some(([127, 0, 0, 1], 4).into()));
        assert_eq!(admin_address(text, Some(13)), None);
        for bad in
            ["", "{}", r#"{"pid":12}"#, r#"{"pid":12,"admin":"x"}"#, r#"{"pid":-1,"admin":1}"#]
        {
            assert_eq!(admin_address(bad, Some(12)), None, "{bad}");
        }
    }
}
