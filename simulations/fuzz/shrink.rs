//! Makes a failing input small: parts dropped, then bytes made plain, as long as it fails.
//!
//! Invariant: what is returned failed when it was tried. Callers: the driver (panics), the supervisor (deaths).

use std::time::{Duration, Instant};

/// Time for one input that was just found.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The smallest form found of `input` for which `fails` holds.
pub fn shrink(input: &[u8], patience: Duration, mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let started = Instant::now();
    let mut best = input.to_vec();
    let mut part = best.len().div_ceil(2);
    while part > 0 && started.elapsed() < patience {
        let mut at = 0;
        while at < best.len() && started.elapsed() < patience {
            let mut shorter = best.clone();
            shorter.drain(at..(at + part).min(best.len()));
            if fails(&shorter) {
                best = shorter;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    for at in 0..best.len() {
        for plain in [0, b'a', b'0'] {
            if started.elapsed() >= patience || best[at] == plain {
                break;
            }
            let mut plainer = best.clone();
            plainer[at] = plain;
            if fails(&plainer) {
                best = plainer;
                break;
            }
        }
    }
    best
}
