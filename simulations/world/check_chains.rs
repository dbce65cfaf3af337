//! One history per chain: an event's place (origin, number) holds the same event on every server, at any time.
//!
//! Checked at every look, so that two writers under one identity are seen when they part, not when the cluster fails to
//! settle. Does not verify: places below the heads (chains are hashed, so equal heads have equal pasts), servers that are
//! down. Caller: `run::play`.

use litemesh::log::{LogError, LogRead};

use super::World;

/// Compares every head of every server with the event that the others hold in that place.
pub fn one_history(world: &World) -> Result<(), String> {
    let words = |error: LogError| error.to_string();
    let mut logs: Vec<(usize, LogRead)> = Vec::new();
    for (position, server) in world.servers.iter().enumerate() {
        let Some(node) = server.node.as_ref() else { continue };
        logs.push((position, node.log().read().map_err(words)?));
    }
    for (position, log) in &logs {
        for (origin, head) in log.heads().map_err(words)? {
            for (other, theirs) in logs.iter().filter(|(other, _)| other != position) {
                let Some(event) = theirs.event(&origin, head.seq).map_err(words)? else { continue };
                if event.hash != head.hash {
                    let seq = head.seq;
                    return Err(format!(
                        "event {seq} of {origin} is one on server {position}, another on server {other}"
                    ));
                }
            }
        }
    }
    Ok(())
}
