//! Nodes that never meet, and bundles carried between them.
//!
//! Invariant: nothing here is on a network; dice are drawn from a seed that a failure prints. What it does not verify: files
//! and commands (`tests/bundle.rs`). Callers: cargo test.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use super::*;
use crate::model::MemberRecord;
use crate::node::bundle_view::{ExportView, ImportView};
use crate::node::membership::{admit, node_id};
use crate::node::pair_tests::{CLOCK_MS, Site};
use crate::node::{Input, Now};

const SCHEMA: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, stars INTEGER);
    CREATE TABLE tag (name TEXT PRIMARY KEY, note INTEGER REFERENCES note (id))";

/// Servers of one cluster without a network.
struct Apart {
    sites: Vec<Site>,
    nodes: Vec<Node>,
    now: Now,
    dice: u64,
}

impl Apart {
    fn new(count: u8) -> Apart {
        Apart::founded(count, CLOCK_MS)
    }

    fn founded(count: u8, wall_ms: u64) -> Apart {
        let sites: Vec<Site> = (1..=count).map(|seed| Site::new(seed).with("app", SCHEMA, &[])).collect();
        let now = Now { mono_ms: 1_000, wall_ms };
        let mut nodes: Vec<Node> = Vec::new();
        for (site, seed) in sites.iter().zip(1..) {
            let log = site.log();
            match nodes.first_mut() {
                None => Node::found(&log, &[seed; 32], "n1", "apart", now).unwrap(),
                Some(founder) => {
                    let record =
                        admit(&[1; 32], founder.membership(), node_id(&[seed; 32]), &format!("n{seed}"), CLOCK_MS);
                    founder.learn_members(vec![record]).unwrap();
                    let records: Vec<MemberRecord> = founder.membership().records().into_iter().cloned().collect();
                    Node::enter(&log, records).unwrap();
                }
            }
            nodes.push(Node::open(site.settings(), log, now).unwrap());
        }
        let mut apart = Apart { sites, nodes, now, dice: 0 };
        // Nobody answers: after the wait the files are enrolled by themselves.
        apart.now.mono_ms += 20_000;
        (0..apart.nodes.len()).for_each(|at| apart.work(at));
        apart
    }

    /// Lets one node look at its file and show what its log holds.
    fn work(&mut self, at: usize) {
        self.nodes[at].handle(Input::FileTouched(0), self.now).unwrap();
        for _ in 0..200 {
            self.now = Now { mono_ms: self.now.mono_ms + 200, wall_ms: self.now.wall_ms + 200 };
            self.nodes[at].handle(Input::Tick, self.now).unwrap();
            while self.nodes[at].poll_effect().is_some() {}
            let status = self.nodes[at].status(self.now).unwrap();
            if self.nodes[at].applied_all() && status.databases[0].outbox == 0 {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.nodes[at].status(self.now));
    }

    fn write(&mut self, at: usize, sql: &str) {
        self.sites[at].app("app", sql);
        self.work(at);
    }

    fn export(&mut self, at: usize, made_for: Option<usize>) -> (Vec<u8>, ExportView) {
        self.dice += 1;
        let made_for = made_for.map(|other| self.nodes[other].id());
        let mut dice = [0; 32];
        dice[..8].copy_from_slice(&self.dice.to_be_bytes());
        let mut bytes = Vec::new();
        let view = self.nodes[at].bundle_export(made_for, dice, self.now).unwrap().write(&mut bytes).unwrap();
        assert_eq!(view.bytes, bytes.len() as u64);
        (bytes, view)
    }

    fn import(&mut self, at: usize, bundle: &[u8]) -> Result<ImportView, BundleError> {
        let now = self.now;
        let check = self.nodes[at].bundle_check(now);
        let node = &mut self.nodes[at];
        let taken = check.take(&mut Cursor::new(bundle), false, &mut |step| Ok(node.take_carried(step, now)?));
        self.work(at);
        taken
    }

    fn rows(&self, at: usize) -> Vec<String> {
        let mut rows = self.sites[at].ask("app", "SELECT id || '|' || text || '|' || ifnull(stars, '-') FROM note");
        rows.extend(self.sites[at].ask("app", "SELECT name || '>' || ifnull(note, '-') FROM tag"));
        rows.sort();
        rows
    }

    fn digest(&self, at: usize) -> String {
        self.nodes[at].status(self.now).unwrap().databases[0].digest.clone()
    }
}

/// Pseudo-random numbers: xorshift.
struct Draws(u64);

impl Draws {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

#[test]
fn a_bundle_brings_rows_members_and_a_receipt() {
    let mut apart = Apart::new(2);
    apart.write(0, "INSERT INTO note (text) VALUES ('carried')");
    let (bundle, made) = apart.export(0, None);
    assert_eq!((made.readers, made.events > 0), (2, true));
    let first = apart.import(1, &bundle).unwrap();
    assert_eq!((first.taken, first.bundle.new_events), (made.events, made.events));
    assert_eq!(first.bundle.gaps, Vec::<String>::new());
    assert_eq!(apart.rows(1), apart.rows(0));
    let again = apart.import(1, &bundle).unwrap();
    assert_eq!((again.taken, again.bundle.new_events), (0, 0), "taken twice, it changes nothing");
    // The second one knows that the first one holds this; the first one does not know of the second.
    assert!(apart.nodes[1].receipts().unwrap().safe_to_unplug);
    assert_eq!(apart.nodes[1].receipts().unwrap().peers[0].way, "bundle");
    assert!(!apart.nodes[0].receipts().unwrap().safe_to_unplug);
    let (back, _) = apart.export(1, None);
    apart.import(0, &back).unwrap();
    assert_eq!(apart.nodes[0].receipts().unwrap().sentence, "safe to unplug: 2 of 2 servers hold everything");
    // And sends from now on what is new only.
    apart.write(0, "INSERT INTO note (text) VALUES ('news')");
    let (news, made) = apart.export(0, Some(1));
    assert_eq!((made.events, made.readers), (1, 2));
    assert_eq!(apart.import(1, &news).unwrap().taken, 1);
    assert_eq!(apart.rows(1), apart.rows(0));
}

#[test]
fn a_gap_is_told_and_closed_by_the_older_bundle() {
    let mut apart = Apart::new(3);
    apart.write(0, "INSERT INTO note (text) VALUES ('one')");
    let (older, _) = apart.export(0, None);
    apart.import(1, &older).unwrap();
    let (receipt, _) = apart.export(1, None);
    apart.import(0, &receipt).unwrap();
    apart.write(0, "INSERT INTO note (text) VALUES ('two')");
    let (newer, _) = apart.export(0, Some(1));
    // Made for the second; its makers and it alone can open it.
    assert!(matches!(apart.import(2, &newer), Err(BundleError::NotForUs)));
    apart.import(1, &newer).unwrap();
    // The third one gets the newer part first.
    let second = apart.nodes[2].id();
    let heads: Vec<_> = apart.nodes[1].heads.values().copied().collect();
    apart.nodes[0].receipts.carried(second, &heads, apart.now.wall_ms);
    apart.write(0, "INSERT INTO note (text) VALUES ('three')");
    let (newest, _) = apart.export(0, Some(2));
    let gap = apart.import(2, &newest).unwrap();
    assert_eq!(gap.taken, 0);
    assert!(gap.bundle.gaps[0].contains("begins after event"), "{:?}", gap.bundle.gaps);
    assert!(gap.bundle.gaps[0].contains("of n1"), "{:?}", gap.bundle.gaps);
    let (all, _) = apart.export(1, None);
    assert!(apart.import(2, &all).unwrap().taken > 0);
    assert!(apart.import(2, &newest).unwrap().taken > 0);
    assert_eq!(apart.rows(2), apart.rows(0));
}

#[test]
fn strangers_and_other_clusters_are_refused_whole() {
    let mut apart = Apart::new(2);
    apart.write(0, "INSERT INTO note (text) VALUES ('ours')");
    let before = apart.nodes[1].events_held();
    // The same keys in another cluster: what they sign there is worth nothing here.
    let mut others = Apart::founded(2, CLOCK_MS + 1);
    others.write(0, "INSERT INTO note (text) VALUES ('theirs')");
    let (foreign, _) = others.export(0, None);
    assert!(matches!(apart.import(1, &foreign), Err(BundleError::OtherCluster)));
    let made = |apart: &mut Apart, key: u8, said: u8| {
        let mut export = apart.nodes[0].bundle_export(None, [key; 32], apart.now).unwrap();
        (export.key_seed, export.manifest.exporter) = ([key; 32], node_id(&[said; 32]));
        let mut bytes = Vec::new();
        export.write(&mut bytes).unwrap();
        let taken = apart.import(1, &bytes);
        (bytes, taken)
    };
    // A stranger who knows the cluster, its events and its members' keys, by his own name and by a member's.
    assert!(matches!(made(&mut apart, 9, 9).1, Err(BundleError::NotAMember(_))));
    assert!(matches!(made(&mut apart, 9, 1).1, Err(BundleError::BadSignature(_))));
    assert_eq!(apart.nodes[1].events_held(), before);
    // What members seal is noise to others: not even a name is in the clear.
    let (ours, taken) = made(&mut apart, 1, 1);
    assert!(taken.unwrap().taken > 0);
    for secret in [b"apart".as_slice(), b"note", b"ours", &node_id(&[1; 32]).0, &node_id(&[2; 32]).0] {
        assert!(!ours.windows(secret.len()).any(|bytes| bytes == secret), "{secret:?} can be read");
    }
}

/// One byte of every kind of place, and everywhere else by the dice: refused, and nothing is stored.
#[test]
fn a_damaged_bundle_is_refused_whole() {
    let mut apart = Apart::new(2);
    for number in 0..40 {
        apart.write(0, &format!("INSERT INTO note (text) VALUES ('row {number}')"));
    }
    let (bundle, _) = apart.export(0, None);
    let before = (apart.nodes[1].events_held(), apart.nodes[1].membership().digest());
    let seed = 0x5eed_0001;
    let mut draws = Draws(seed);
    let places = (0..160).chain(bundle.len() - 120..bundle.len());
    let drawn: Vec<usize> = (0..400).map(|_| draws.below(bundle.len() as u64) as usize).collect();
    for place in places.chain(drawn) {
        let mut damaged = bundle.clone();
        damaged[place] ^= 1 << draws.below(8);
        refused(&mut apart, &damaged, before, &format!("byte {place}, seed {seed:#x}"));
    }
    for length in [0, 1, 11, 12, 100, bundle.len() / 2, bundle.len() - 70, bundle.len() - 1] {
        refused(&mut apart, &bundle[..length], before, &format!("cut at {length}"));
    }
    let longer = [bundle.as_slice(), b"\0"].concat();
    assert!(matches!(refused(&mut apart, &longer, before, "longer"), BundleError::Trailing));
    let twice = [bundle.as_slice(), &bundle].concat();
    refused(&mut apart, &twice, before, "twice");
    assert!(apart.import(1, &bundle).unwrap().taken > 0, "the whole one is good");
}

/// The words of a refusal; nothing was stored.
fn refused(apart: &mut Apart, bundle: &[u8], before: (u64, u64), what: &str) -> BundleError {
    let (now, node) = (apart.now, &mut apart.nodes[1]);
    let check = node.bundle_check(now);
    let taken = check.take(&mut Cursor::new(bundle), false, &mut |step| Ok(node.take_carried(step, now)?));
    let Err(error) = taken else { panic!("{what}: taken") };
    assert_eq!((node.events_held(), node.membership().digest()), before, "{what}: {error}");
    assert!(error.to_string().contains("refused"), "{what}: {error}");
    error
}

/// Cut off after every step: what was stored stays, and the next import goes on from there.
#[test]
fn an_import_cut_at_any_step_goes_on() {
    let mut apart = Apart::new(2);
    // Several parts: values that do not compress.
    let mut draws = Draws(99);
    for _ in 0..3 {
        let noise: String = (0..700_000).map(|_| char::from(b'!' + draws.below(90) as u8)).collect();
        apart.write(0, &format!("INSERT INTO note (text) VALUES ('{}')", noise.replace('\'', "")));
        apart.write(0, "INSERT INTO tag (name) SELECT 'tag ' || count(*) FROM tag");
    }
    let (bundle, made) = apart.export(0, None);
    let now = apart.now;
    let (mut stored, mut steps) = (0, 0);
    for patience in 1..100 {
        let check = apart.nodes[1].bundle_check(now);
        let node = &mut apart.nodes[1];
        let mut left = patience;
        let taken = check.take(&mut Cursor::new(&bundle), false, &mut |step| {
            left -= 1;
            if left == 0 {
                return Err(BundleError::CutOff);
            }
            steps += 1;
            let new = node.take_carried(step, now)?;
            stored += new;
            Ok(new)
        });
        if taken.is_ok() {
            break;
        }
    }
    assert!(steps > 6, "{steps} steps");
    assert_eq!(stored, made.events, "every event was new once");
    apart.work(1);
    assert_eq!(apart.rows(1), apart.rows(0));
}

/// Random writes on three servers; bundles exported, lost, repeated and imported in any order. After one round in which
/// nothing is lost, all are equal.
#[test]
fn bundles_in_any_order_make_all_equal() {
    for seed in [1, 2, 3, 4, 5, 6] {
        let mut draws = Draws(seed * 0x9e37_79b9);
        let mut apart = Apart::new(3);
        let mut sticks: Vec<Vec<u8>> = Vec::new();
        for step in 0..40 {
            let at = draws.below(3) as usize;
            match draws.below(10) {
                0..4 => {
                    let sql = random_write(&mut draws, step);
                    apart.write(at, &sql);
                }
                4..6 => {
                    let other = (at + 1 + draws.below(2) as usize) % 3;
                    // Who is not known yet, nothing can be made for.
                    let known = apart.nodes[at].membership().member(&apart.nodes[other].id()).is_some();
                    let made_for = (draws.below(2) == 0 && known).then_some(other);
                    sticks.push(apart.export(at, made_for).0);
                }
                _ if sticks.is_empty() => {}
                6 => {
                    let lost = draws.below(sticks.len() as u64) as usize;
                    sticks.swap_remove(lost);
                }
                _ => {
                    let which = draws.below(sticks.len() as u64) as usize;
                    let taken = apart.import(at, &sticks[which].clone());
                    let fine = matches!(taken, Ok(_) | Err(BundleError::NotForUs));
                    assert!(fine, "seed {seed}, step {step}: {:?}", taken.err());
                }
            }
        }
        // One full round: each carries all it has to the others, the last one's news go back.
        for from in [0, 1, 2, 0, 1] {
            let (bundle, _) = apart.export(from, None);
            for to in (0..3).filter(|to| *to != from) {
                apart.import(to, &bundle).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
        }
        for at in 1..3 {
            assert_eq!(apart.rows(at), apart.rows(0), "seed {seed}: rows of {at}");
            assert_eq!(apart.digest(at), apart.digest(0), "seed {seed}: digest of {at}");
            assert_eq!(apart.nodes[at].heads, apart.nodes[0].heads, "seed {seed}: heads of {at}");
        }
    }
}

fn random_write(draws: &mut Draws, step: u64) -> String {
    let id = draws.below(12) + 1;
    match draws.below(6) {
        0..3 => format!("INSERT INTO note (text, stars) VALUES ('step {step}', {})", draws.below(5)),
        3 => format!("UPDATE note SET stars = {step} WHERE id = (SELECT min(id) FROM note WHERE id >= {id})"),
        4 => format!("DELETE FROM note WHERE id = (SELECT max(id) FROM note) AND {id} < 4"),
        _ => format!("INSERT OR IGNORE INTO tag (name, note) SELECT 'tag {id}', min(id) FROM note"),
    }
}

/// Causes come first: whatever prefix of a bundle was taken, all of it can be shown.
#[test]
fn events_come_after_what_they_build_on() {
    let mut apart = Apart::new(3);
    for round in 0..6 {
        let at = round % 3;
        apart.write(at, &format!("INSERT INTO note (text) VALUES ('round {round}')"));
        apart.write(at, &format!("UPDATE note SET stars = {round}"));
        let (bundle, _) = apart.export(at, None);
        apart.import((at + 1) % 3, &bundle).unwrap();
    }
    let (bundle, _) = apart.export(0, None);
    let check = apart.nodes[0].bundle_check(apart.now);
    let mut parts = check.open(Cursor::new(&bundle)).unwrap();
    let mut done: std::collections::BTreeMap<OriginId, u64> = Default::default();
    let mut causes = 0;
    while let Some(part) = parts.next_part().unwrap() {
        for signed in part {
            let header = crate::wire::decode_event(&signed.bytes).unwrap().header;
            for dot in header.applied.iter().filter(|dot| apart.nodes[0].heads.contains_key(dot.actor)) {
                causes += 1;
                assert!(
                    done.get(dot.actor).copied().unwrap_or(0) >= dot.counter,
                    "{:?} before its cause",
                    header.origin
                );
            }
            let before = done.insert(header.origin.id(), header.seq).unwrap_or(0);
            assert_eq!(header.seq, before + 1);
        }
    }
    assert!(causes > 3, "{causes} causes: the test says nothing");
}
