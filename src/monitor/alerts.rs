//! What a person must know: conditions, and when they are told.
//!
//! States of a condition, by its key: seen once → raised (seen twice in a row) → over (twice not seen). Raised and over are
//! told, once each; a condition that comes and goes is told again only after [`QUIET_MS`], and never more than
//! [`NOTICES_PER_HOUR`] things are told in an hour: what exceeds that is in the list and in the log all the same, and one
//! notice says so. What was raised before a restart is not raised anew.
//! Invariant: pure but for the clock that is handed in; a recovery is told only of what was told. Callers: daemon.

use std::collections::{BTreeMap, VecDeque};

use super::errors;
use super::view::KindView;
use crate::node::view::{PeerView, Status};

/// Looks in a row that say the same before it counts.
const LOOKS: u32 = 2;

/// A condition is not raised aloud again within this.
const QUIET_MS: u64 = 15 * 60_000;

/// Notices in an hour, at most.
const NOTICES_PER_HOUR: usize = 30;

/// By the node's own estimate: a peer that left several questions in a row without an answer.
const SCORE_STUCK: f64 = 0.34;

/// After a start, peers get this long to come.
const START_S: u64 = 120;

/// Kinds of runs whose failures are told by what they lead to.
const OTHERWISE_TOLD: &[&str] = &[
    "capture",
    "apply",
    "announce",
    "pull",
    "receive",
    "serve",
    "reconcile",
    "connection",
    "sync",
    "bundle",
    "rebuild",
    "verify_log",
    "legacy_send",
    "legacy_receive",
];

/// A shelf that grew counts as growing for so long.
const SHELF_MS: u64 = 3_600_000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody should look before long.
    Warning,
    /// Somebody must look now.
    Critical,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        if self == Severity::Critical { "critical" } else { "warning" }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The same for the same trouble, whatever its figures are.
    pub key: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong, in words.
    pub message: String,
    /// What to do.
    pub next: String,
}

/// When what counts as wrong. 0 turns a rule off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRules {
    /// A peer that was not seen for so long, ms.
    pub peer_unseen_ms: u64,
    /// A clock that is off by so much, ms.
    pub clock_skew_ms: u64,
    /// Less free bytes than this on a disk that holds a database or the log.
    pub disk_free_bytes: u64,
}

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The node.
    pub status: Status,
    /// How every kind of run stands.
    pub kinds: Vec<KindView>,
    /// Rows that differ and were not put right.
    pub drift: u64,
    /// (directory, free bytes).
    pub disks: Vec<(String, u64)>,
    /// When, ms since 1970.
    pub now_ms: u64,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// About what.
    pub condition: Condition,
    /// It is over.
    pub recovered: bool,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// In the list and in the log only: enough was told.
    pub silent: bool,
}

#[derive(Clone, Debug)]
struct Known {
    condition: Condition,
    seen: u32,
    missed: u32,
    raised: bool,
    told: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Alerts {
    rules: AlertRules,
    known: BTreeMap<String, Known>,
    /// When a key was last told as raised.
    told_ms: BTreeMap<String, u64>,
    recent: VecDeque<u64>,
    shelves: BTreeMap<String, (u64, Option<u64>)>,
}

impl Alerts {
    /// `raised`: what was raised and not over when the program ended.
    pub fn new(rules: AlertRules, raised: Vec<Condition>) -> Alerts {
        let known = |condition: Condition| Known { condition, seen: LOOKS, missed: 0, raised: true, told: true };
        let known = raised.into_iter().map(|condition| (condition.key.clone(), known(condition))).collect();
        Alerts { rules, known, told_ms: BTreeMap::new(), recent: VecDeque::new(), shelves: BTreeMap::new() }
    }

    /// All that is raised.
    pub fn raised(&self) -> Vec<&Condition> {
        self.known.values().filter(|known| known.raised).map(|known| &known.condition).collect()
    }

    /// Takes a look; what is to be told.
    pub fn look(&mut self, observed: &Observed) -> Vec<Notice> {
        let now_ms = observed.now_ms;
        let conditions = self.conditions(observed);
        let mut notices = Vec::new();
        for condition in &conditions {
            let known = self.known.entry(condition.key.clone()).or_insert_with(|| Known {
                condition: condition.clone(),
                seen: 0,
                missed: 0,
                raised: false,
                told: false,
            });
            known.condition = condition.clone();
            known.missed = 0;
            known.seen = known.seen.saturating_add(1);
            if !known.raised && known.seen >= LOOKS {
                known.raised = true;
                notices.push((condition.clone(), false));
            }
        }
        for known in self.known.values_mut() {
            if conditions.iter().any(|condition| condition.key == known.condition.key) {
                continue;
            }
            known.seen = 0;
            known.missed += 1;
            if known.raised && known.missed >= LOOKS {
                known.raised = false;
                notices.push((known.condition.clone(), true));
            }
        }
        let told = notices.into_iter().map(|(condition, recovered)| self.tell(condition, recovered, now_ms)).collect();
        self.known.retain(|_, known| known.raised || known.missed == 0);
        told
    }

    /// Decides how loud it is told.
    fn tell(&mut self, condition: Condition, recovered: bool, at_ms: u64) -> Notice {
        while self.recent.front().is_some_and(|first| first + 3_600_000 <= at_ms) {
            self.recent.pop_front();
        }
        let key = condition.key.clone();
        let again = self.told_ms.get(&key).is_some_and(|last| at_ms < last + QUIET_MS);
        let known = self.known.get_mut(&key);
        let silent = match &known {
            Some(known) if recovered => !known.told,
            _ => again || self.recent.len() >= NOTICES_PER_HOUR,
        };
        if let Some(known) = known {
            known.told = !recovered && !silent;
        }
        if !silent {
            self.recent.push_back(at_ms);
            if !recovered {
                self.told_ms.insert(key, at_ms);
            }
        }
        self.told_ms.retain(|_, last| at_ms < *last + QUIET_MS);
        Notice { condition, recovered, at_ms, silent }
    }

    fn conditions(&mut self, observed: &Observed) -> Vec<Condition> {
        let status = &observed.status;
        let mut found: Vec<Condition> = Vec::new();
        for alert in &status.alerts {
            found.push(of_node(alert));
        }
        for database in status.databases.iter().filter(|one| !one.state.starts_with("ok")) {
            found.push(Condition {
                key: format!("database:{}", database.name),
                severity: Severity::Critical,
                message: format!("database {}: {}", database.name, database.state),
                next: "see litemesh doctor".into(),
            });
        }
        found.extend(status.peers.iter().filter_map(|peer| self.unseen(peer, observed)));
        found.extend(status.peers.iter().filter_map(not_syncing));
        found.extend(self.clock(status));
        found.extend(observed.kinds.iter().filter_map(failing));
        found.extend(self.disks(observed));
        for database in &status.databases {
            found.extend(self.shelf(&database.name, database.shelved, observed.now_ms));
        }
        if observed.drift > 0 {
            found.push(Condition {
                key: "drift".into(),
                severity: Severity::Critical,
                message: format!("{} rows differ between servers and were not put right yet", observed.drift),
                next: "see litemesh verify".into(),
            });
        }
        // Two troubles with one key are one.
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        found
    }

    fn unseen(&self, peer: &PeerView, observed: &Observed) -> Option<Condition> {
        let seen = humantime::parse_rfc3339_weak(&peer.last_seen).ok()?;
        let seen_ms = seen.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis() as u64;
        let away_ms = observed.now_ms.saturating_sub(seen_ms);
        let started = observed.status.node.uptime_s >= START_S.min(self.rules.peer_unseen_ms / 1000);
        let late = started
            && self.rules.peer_unseen_ms > 0
            && peer.state != "connected"
            && away_ms >= self.rules.peer_unseen_ms;
        late.then(|| Condition {
            key: format!("peer_unseen:{}", peer.id),
            severity: Severity::Warning,
            message: format!("{} was last seen at {}", peer.name, peer.last_seen),
            next: format!("see whether {} runs and is on the network: litemesh doctor", peer.name),
        })
    }

    /// Names the machine that is wrong: this one, when most peers disagree with it by about the same.
    fn clock(&self, status: &Status) -> Vec<Condition> {
        let limit = i64::try_from(self.rules.clock_skew_ms).unwrap_or(i64::MAX);
        let connected: Vec<(&PeerView, i64)> = status
            .peers
            .iter()
            .filter(|peer| peer.state == "connected")
            .filter_map(|peer| Some((peer, peer.clock_skew_ms?)))
            .collect();
        let off: Vec<&(&PeerView, i64)> =
            connected.iter().filter(|(_, skew)| limit > 0 && skew.abs() >= limit).collect();
        if off.len() > 1 && 2 * off.len() > connected.len() {
            let mean = off.iter().map(|(_, skew)| skew).sum::<i64>() / off.len() as i64;
            return vec![Condition {
                key: "clock:self".into(),
                severity: Severity::Warning,
                message: format!(
                    "the clock of {} is wrong: {} of {} peers are {} s {} it",
                    status.node.name,
                    off.len(),
                    connected.len(),
                    mean.abs() / 1000,
                    if mean > 0 { "ahead of" } else { "behind" },
                ),
                next: "set this machine's clock".into(),
            }];
        }
        let wrong = |(peer, skew): &&(&PeerView, i64)| Condition {
            key: format!("clock:{}", peer.id),
            severity: Severity::Warning,
            message: format!(
                "the clock of {} is {} s {} this machine's",
                peer.name,
                skew.abs() / 1000,
                if *skew > 0 { "ahead of" } else { "behind" },
            ),
            next: format!("set the clock of {}, or of this machine if this one is wrong", peer.name),
        };
        off.iter().map(wrong).collect()
    }

    fn disks(&self, observed: &Observed) -> Vec<Condition> {
        let limit = self.rules.disk_free_bytes;
        let low = observed.disks.iter().filter(|(_, free)| *free < limit);
        low.map(|(path, free)| Condition {
            key: format!("disk:{path}"),
            severity: if *free < limit / 4 { Severity::Critical } else { Severity::Warning },
            message: format!("{} MB are free on the disk of {path}", free / 1_000_000),
            next: "make room on that disk".into(),
        })
        .collect()
    }

    fn shelf(&mut self, database: &str, shelved: u64, now_ms: u64) -> Option<Condition> {
        let (count, grew) = self.shelves.entry(database.to_string()).or_insert((shelved, None));
        if shelved > *count {
            *grew = Some(now_ms);
        }
        *count = shelved;
        let growing = shelved > 0 && grew.is_some_and(|at| now_ms < at + SHELF_MS);
        growing.then(|| Condition {
            key: format!("shelf:{database}"),
            severity: Severity::Warning,
            message: match shelved {
                1 => format!("the shelf of {database} grows: 1 row cannot be shown"),
                _ => format!("the shelf of {database} grows: {shelved} rows cannot be shown"),
            },
            next: "see why: litemesh shelf list".into(),
        })
    }
}

/// What the node itself says, by what is alike in it.
fn of_node(alert: &str) -> Condition {
    let critical =
        ["two histories", "damaged", "corrupt", "copied or restored"].iter().any(|word| alert.contains(word));
    Condition {
        key: format!("node:{}", errors::pattern(alert)),
        severity: if critical { Severity::Critical } else { Severity::Warning },
        message: alert.to_string(),
        next: "see litemesh doctor".into(),
    }
}

/// A job whose last run failed: one of the user's, or one that runs by itself at its times. What the node does all the time,
/// and what a person orders, is told by what it leads to: a file in trouble, a peer that brings nothing.
fn failing(kind: &KindView) -> Option<Condition> {
    let told = kind.last_sync_status == "error" && !OTHERWISE_TOLD.contains(&kind.sync_type.as_str());
    told.then(|| {
        let of = if kind.subject.is_empty() { String::new() } else { format!(" of {}", kind.subject) };
        Condition {
            key: format!("failing:{}:{}", kind.sync_type, kind.subject),
            severity: Severity::Warning,
            message: format!(
                "{}{of} fails: {}",
                kind.sync_type,
                kind.last_error_message.as_deref().unwrap_or("nobody said why"),
            ),
            next: format!("see litemesh track status {}", kind.sync_type),
        }
    })
}

/// A peer that is here, has what this node lacks, and does not bring it.
fn not_syncing(peer: &PeerView) -> Option<Condition> {
    let stuck = peer.state == "connected" && peer.behind > 0 && peer.score < SCORE_STUCK;
    stuck.then(|| Condition {
        key: format!("sync_failing:{}", peer.id),
        severity: Severity::Warning,
        message: format!("{} is connected and has {} events that do not arrive", peer.name, peer.behind),
        next: format!("see litemesh reliability {}", peer.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::view::DatabaseView;

    const RULES: AlertRules =
        AlertRules { peer_unseen_ms: 600_000, clock_skew_ms: 60_000, disk_free_bytes: 1_000_000_000 };

    fn peer(name: &str, state: &str, skew_ms: i64) -> PeerView {
        PeerView {
            name: name.into(),
            id: format!("id-{name}"),
            state: state.into(),
            last_seen: "2025-03-06T09:00:00Z".into(),
            clock_skew_ms: Some(skew_ms),
            ..PeerView::default()
        }
    }

    fn seen_at(minutes: u64, peers: Vec<PeerView>) -> Observed {
        let nine = 1_741_251_600_000;
        let node = crate::node::view::NodeView { uptime_s: 3_600, ..Default::default() };
        Observed {
            status: Status { node, peers, ..Status::default() },
            now_ms: nine + minutes * 60_000,
            ..Observed::default()
        }
    }

    fn told(notices: &[Notice]) -> Vec<(&str, bool, bool)> {
        notices.iter().map(|one| (one.condition.key.as_str(), one.recovered, one.silent)).collect()
    }

    #[test]
    fn raised_once_over_once_and_a_flapping_one_is_not_shouted_about() {
        let mut alerts = Alerts::new(RULES, Vec::new());
        let (away, here) = (vec![peer("stand", "away", 0)], vec![peer("stand", "connected", 0)]);
        assert_eq!(alerts.look(&seen_at(5, away.clone())), []);
        assert_eq!(alerts.look(&seen_at(10, away.clone())), []);
        assert_eq!(told(&alerts.look(&seen_at(11, away.clone()))), [("peer_unseen:id-stand", false, false)]);
        assert_eq!(alerts.look(&seen_at(12, away.clone())), []);
        assert_eq!(alerts.raised().len(), 1);
        assert_eq!(alerts.look(&seen_at(13, here.clone())), []);
        assert_eq!(told(&alerts.look(&seen_at(14, here.clone()))), [("peer_unseen:id-stand", true, false)]);
        assert!(alerts.raised().is_empty());
        // Again, within a quarter of an hour: it stands in the list, nobody is called.
        alerts.look(&seen_at(15, away.clone()));
        assert_eq!(told(&alerts.look(&seen_at(16, away.clone()))), [("peer_unseen:id-stand", false, true)]);
        alerts.look(&seen_at(17, here.clone()));
        assert_eq!(told(&alerts.look(&seen_at(18, here))), [("peer_unseen:id-stand", true, true)]);
        alerts.look(&seen_at(40, away.clone()));
        assert_eq!(told(&alerts.look(&seen_at(41, away))), [("peer_unseen:id-stand", false, false)]);
    }

    #[test]
    fn what_was_raised_before_a_restart_is_not_raised_anew_but_recovers_aloud() {
        let condition = Condition {
            key: "peer_unseen:id-stand".into(),
            severity: Severity::Warning,
            message: "x".into(),
            next: "y".into(),
        };
        let mut alerts = Alerts::new(RULES, vec![condition]);
        for minute in 20..25 {
            assert_eq!(alerts.look(&seen_at(minute, vec![peer("stand", "away", 0)])), []);
        }
        alerts.look(&seen_at(26, vec![peer("stand", "connected", 0)]));
        let over = alerts.look(&seen_at(27, vec![peer("stand", "connected", 0)]));
        assert_eq!(told(&over), [("peer_unseen:id-stand", true, false)]);
    }

    #[test]
    fn the_wrong_clock_is_named() {
        let alerts = Alerts::new(RULES, Vec::new());
        let of = |skews: &[i64]| {
            let peers = skews.iter().map(|skew| peer("p", "connected", *skew)).collect();
            let named: Vec<String> =
                alerts.clock(&Status { peers, ..Status::default() }).into_iter().map(|one| one.key).collect();
            named
        };
        assert_eq!(of(&[0, 100, -59_000]), Vec::<String>::new());
        assert_eq!(of(&[0, 100, 90_000]), ["clock:id-p"]);
        assert_eq!(of(&[90_000, 91_000, 0]), ["clock:self"]);
    }

    #[test]
    fn every_rule_has_its_condition() {
        let mut alerts = Alerts::new(RULES, Vec::new());
        let database = |shelved| DatabaseView {
            name: "scouting".into(),
            state: "the disk is full".into(),
            shelved,
            ..DatabaseView::default()
        };
        let mut observed = seen_at(0, Vec::new());
        observed.status.databases = vec![database(0)];
        alerts.look(&observed);
        observed.status.databases = vec![database(2)];
        observed.status.alerts = vec!["two histories of one node: origin 0a1b2c3d4e wrote event 5 twice".into()];
        observed.disks = vec![("/data".into(), 5_000_000)];
        observed.drift = 3;
        let kind = |name: &str| KindView {
            sync_type: name.into(),
            last_sync_status: "error".into(),
            last_error_message: Some("HTTP 503".into()),
            ..KindView::default()
        };
        observed.kinds = vec![kind("import"), kind("connection")];
        let stuck = PeerView { behind: 9, score: 0.25, ..peer("stand", "connected", 0) };
        observed.status.peers = vec![stuck];
        alerts.look(&observed);
        alerts.look(&observed);
        let keys: Vec<&str> = alerts.raised().iter().map(|one| one.key.as_str()).collect();
        let node = "node:two histories of one node: origin H wrote event N twice";
        assert_eq!(
            keys,
            [
                "database:scouting",
                "disk:/data",
                "drift",
                "failing:import:",
                node,
                "shelf:scouting",
                "sync_failing:id-stand"
            ]
        );
        let critical: Vec<bool> = alerts.raised().iter().map(|one| one.severity == Severity::Critical).collect();
        assert_eq!(critical, [true, true, true, false, true, false, false]);
        observed.now_ms += SHELF_MS;
        alerts.look(&observed);
        assert!(alerts.look(&observed).iter().any(|one| one.condition.key == "shelf:scouting" && one.recovered));
    }

    #[test]
    fn a_flood_is_cut_off() {
        let mut alerts = Alerts::new(RULES, Vec::new());
        let peers: Vec<PeerView> = (0..100).map(|number| peer(&format!("p{number}"), "away", 0)).collect();
        alerts.look(&seen_at(20, peers.clone()));
        let notices = alerts.look(&seen_at(21, peers));
        assert_eq!(notices.iter().filter(|one| !one.silent).count(), NOTICES_PER_HOUR);
        assert_eq!((notices.len(), alerts.raised().len()), (100, 100));
    }
}
