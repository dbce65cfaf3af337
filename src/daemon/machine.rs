//! What only the operating system knows: time, dice, the machine's names.
//!
//! Invariant: the one place of the program that reads the clock for the node. Called by all of `daemon`, and by `cli`.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::DaemonError;
use crate::node::Now;

/// The time: monotonic since the first call of this process, wall since 1970 (0 before it).
pub fn clock_now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = |length: std::time::Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    Now { mono_ms: ms(mono), wall_ms: ms(wall) }
}

/// 32 bytes that nobody can guess.
pub(super) fn random() -> Result<[u8; 32], DaemonError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| DaemonError::NoRandomness)?;
    Ok(bytes)
}

/// The machine's host name, or "node".
pub fn host_name() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| first_line(path))
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "node".to_string())
}

/// Tells this machine from others, without giving away its own id.
pub(super) fn machine_id() -> String {
    let id = ["/etc/machine-id", "/var/lib/dbus/machine-id"].iter().find_map(|path| first_line(path));
    let id = id.unwrap_or_else(host_name);
    blake3::Hasher::new_derive_key("litemesh 1 machine").update(id.as_bytes()).finalize().to_hex()[..32].to_string()
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_string())
}
