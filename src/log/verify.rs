//! Checks a whole log: every hash, every link, every signature.
//!
//! Invariant: reads only; a fault is reported and the check goes on, so that one damaged event does not hide another.
//! What it does not prove: that the last events of an origin are all there (only peers know longer chains).
//! Callers: node (`log verify`).

use ed25519_dalek::{Signature, VerifyingKey};
use redb::ReadableTable;

use super::stored::{StoredEvent, split_key};
use super::{LogError, LogRead};
use crate::model::{Event, Head, Origin, OriginId, counted};
use crate::wire::{decode_event, head_signature_message};

/// Faults listed at most; the count goes on.
const FAULTS_LISTED_MAX: usize = 1_000;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Events read.
    pub events: u64,
    /// Origins read.
    pub origins: u64,
    /// Bytes of the events read.
    pub bytes: u64,
    /// Signatures checked.
    pub signatures: u64,
    /// Faults found.
    pub fault_count: u64,
    /// The first of them, in words; empty when all is well.
    pub faults: Vec<String>,
}

impl VerifyReport {
    fn fault(&mut self, text: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_LISTED_MAX {
            self.faults.push(text);
        }
    }
}

/// Checks every event of a snapshot. `may_write` says whether an origin belongs to the
/// cluster; `progress` is told (events,
/// bytes) after each event. Fails only when storage cannot be read.
pub fn verify(
    log: &LogRead,
    cluster: &[u8; 32],
    may_write: &dyn Fn(&Origin) -> bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, LogError> {
    // What is in memory says nothing of the disk.
    log.archive.home().forget();
    let mut report = VerifyReport::default();
    let heads = log.heads()?;
    for (&origin, head) in &heads {
        report.origins += 1;
        if origin != head.origin.id() {
            report.fault(format!("head of {origin}: it names another origin"));
        }
        if !may_write(&head.origin) {
            report.fault(format!("origin {origin}: its node {} is not a member", head.origin.node));
        }
        verify_chain(log, cluster, origin, head, &mut report, progress)?;
    }
    let tails = log.tails()?;
    let mut strays = 0u64;
    for entry in log.events.iter()? {
        let (origin, seq) = split_key(entry?.0.value());
        let in_tail = tails.get(&origin).is_some_and(|tail| (tail.base.seq + 1..=tail.last.seq).contains(&seq));
        strays += u64::from(!in_tail && heads.get(&origin).is_none_or(|head| seq == 0 || seq > head.seq));
    }
    if strays > 0 {
        report.fault(format!("{} outside every chain", counted(strays, "event")));
    }
    Ok(report)
}

fn verify_chain(
    log: &LogRead,
    cluster: &[u8; 32],
    origin: OriginId,
    head: &Head,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), LogError> {
    let mut previous = Some([0; 32]);
    for seq in 1..=head.seq {
        let stored = match log.find(origin, seq) {
            Ok(stored) => stored,
            Err(LogError::CorruptEvent { .. }) => {
                report.fault(format!("event {seq} of {origin}: its bytes are not what was stored"));
                previous = None;
                continue;
            }
            Err(error @ LogError::Archived { .. }) => {
                report.fault(error.to_string());
                previous = None;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(stored) = stored else {
            report.fault(format!("event {seq} of {origin}: missing"));
            previous = None;
            continue;
        };
        report.events += 1;
        report.bytes += stored.bytes.len() as u64;
        match decode_event(&stored.bytes) {
            Ok(event) => verify_event(cluster, head, seq, &event, previous, &mut |text| {
                report.fault(format!("event {seq} of {origin}: {text}"));
            }),
            Err(error) => report.fault(format!("event {seq} of {origin}: {error}")),
        }
        verify_signature(cluster, head, &stored, report);
        previous = Some(stored.hash);
        progress(report.events, report.bytes);
    }
    if previous.is_some_and(|hash| hash != head.hash) {
        report.fault(format!("origin {origin}: its chain does not end in its head"));
    }
    Ok(())
}

/// What the event says of itself, against its place. `previous`: unknown behind a damaged event.
fn verify_event(
    cluster: &[u8; 32],
    head: &Head,
    seq: u64,
    event: &Event,
    previous: Option<[u8; 32]>,
    fault: &mut dyn FnMut(&str),
) {
    if event.header.cluster != *cluster {
        fault("it belongs to another cluster");
    }
    if event.header.origin != head.origin || event.header.seq != seq {
        fault("it names another place");
    }
    if previous.is_some_and(|previous| event.header.previous != previous) {
        fault("it does not follow the event before it");
    }
}

fn verify_signature(cluster: &[u8; 32], head: &Head, stored: &StoredEvent, report: &mut VerifyReport) {
    let (origin, seq) = (head.origin.id(), stored.seq);
    let Some(signature) = &stored.signature else {
        if seq == head.seq {
            report.fault(format!("event {seq} of {origin}: the last event is not signed"));
        }
        return;
    };
    report.signatures += 1;
    let message = head_signature_message(cluster, &stored.hash);
    let verified = VerifyingKey::from_bytes(&head.origin.node.0)
        .and_then(|key| key.verify_strict(&message, &Signature::from_bytes(signature)));
    if verified.is_err() {
        report.fault(format!("event {seq} of {origin}: its signature is not its author's"));
    }
}
