//! What travels, for people: progress per peer, bandwidth and quiet hours.
//!
//! Invariant: nothing here changes anything. Callers: [`super::query`].

use super::exchange::Peer;
use super::view::{PaceView, PullView};
use super::{Node, Now};

impl Node {
    /// What a peer brings, while something that it has is missing here.
    pub(super) fn pull_view(&self, peer: &Peer) -> Option<PullView> {
        let lacks = |(origin, head): (&crate::model::OriginId, &crate::model::Head)| {
            head.seq.saturating_sub(self.heads.get(origin).map_or(0, |mine| mine.seq))
        };
        let left: u64 = peer.heads.iter().map(lacks).sum();
        let (events_per_s, bytes_per_s) = peer.meter.rate;
        (peer.connected && left > 0).then(|| PullView {
            received: peer.meter.events,
            wanted: peer.meter.events + left,
            received_bytes: peer.meter.bytes,
            events_per_s,
            bytes_per_s,
            left_s: (events_per_s > 0).then(|| left.div_ceil(events_per_s)),
        })
    }

    /// How much may travel, and whether it does.
    pub(super) fn pace_view(&self, now: Now) -> PaceView {
        let pace = &self.exchange.pace;
        PaceView {
            bandwidth: pace.settings.bandwidth,
            quiet_hours: pace.settings.quiet_hours.iter().map(ToString::to_string).collect(),
            quiet_now: pace.is_quiet(now),
            waiting_peers: self.exchange.waiting() as u64,
        }
    }
}

/// A score in a word.
pub(super) fn band(score: f64) -> &'static str {
    match score {
        0.9.. => "excellent",
        0.7.. => "good",
        0.5.. => "fair",
        _ => "poor",
    }
}
