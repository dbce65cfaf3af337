//! Events in the log: order, checks on every read, indexes, records, files.

use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey};
use redb::{ReadableDatabase, ReadableTable};

use super::*;
use crate::model::{Birth, Cell, Change, Cut, Event, Head, Header, NodeId, Origin, RowId, Stamp, TableColumns, Value};
use crate::wire::{encode_event, event_hash, head_signature_message};

pub(super) const CLUSTER: [u8; 32] = [2; 32];

/// Makes the chain of one origin.
pub(super) struct Chain {
    key: SigningKey,
    pub(super) origin: Origin,
    head: (u64, [u8; 32]),
}

/// An event ready to append.
pub(super) struct Made {
    pub(super) event: Event,
    pub(super) bytes: Vec<u8>,
    pub(super) hash: [u8; 32],
    pub(super) signature: Option<[u8; 64]>,
}

impl Chain {
    pub(super) fn new(seed: u8) -> Chain {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let origin = Origin { node: NodeId(key.verifying_key().to_bytes()), incarnation: u64::from(seed) };
        Chain { key, origin, head: (0, [0; 32]) }
    }

    pub(super) fn make(&mut self, database: &str, applied: Cut, text: &str) -> Made {
        let seq = self.head.0 + 1;
        let birth = Birth { origin: self.origin.id(), seq, index: 0 };
        let event = Event {
            header: Header {
                cluster: CLUSTER,
                origin: self.origin,
                seq,
                previous: self.head.1,
                stamp: Stamp(seq),
                database: database.to_owned(),
                applied,
                schema: [0; 16],
                continues: false,
                note: String::new(),
            },
            tables: vec![TableColumns { table: "note".into(), columns: vec!["id".into(), "text".into()] }],
            changes: vec![Change::Insert {
                table: 0,
                row: RowId::Born(birth),
                claim: Some(seq as i64),
                after: None,
                cells: vec![(1, Cell::Plain(Value::text(text)))],
            }],
        };
        let bytes = encode_event(&event);
        let hash = event_hash(&bytes);
        self.head = (seq, hash);
        let signature = self.key.sign(&head_signature_message(&CLUSTER, &hash)).to_bytes();
        Made { event, bytes, hash, signature: Some(signature) }
    }
}

impl Made {
    pub(super) fn append(&self, write: &mut LogWrite<'_>) -> Result<u64, LogError> {
        write.append(&self.event, &self.bytes, self.hash, self.signature)
    }
}

fn memory() -> Log {
    Log::with_backend(redb::backends::InMemoryBackend::new()).unwrap()
}

fn cut(entries: &[(&Chain, u64)]) -> Cut {
    Cut { dots: entries.iter().map(|(chain, seq)| (chain.origin.id(), *seq)).collect() }
}

/// A log with `count` events of one origin, texts "text 1" and on.
fn filled(log: &Log, count: u64) -> Chain {
    let mut chain = Chain::new(1);
    let mut write = log.write().unwrap();
    for number in 1..=count {
        chain.make("scouting", Cut::default(), &format!("text {number}")).append(&mut write).unwrap();
    }
    write.commit_durable().unwrap();
    chain
}

#[test]
fn what_is_appended_is_read_back_after_the_commit_and_not_before() {
    let log = memory();
    let (mut a, mut b) = (Chain::new(1), Chain::new(2));
    let events = [
        a.make("scouting", Cut::default(), "one"),
        b.make("users", Cut::default(), "two"),
        a.make("users", Cut::default(), "three"),
        a.make("scouting", Cut::default(), "four"),
    ];
    let before = log.read().unwrap();
    let mut write = log.write().unwrap();
    for (number, made) in events.iter().enumerate() {
        assert_eq!(made.append(&mut write).unwrap(), number as u64 + 1);
    }
    let origin = a.origin.id();
    assert_eq!(write.event(&origin, 3).unwrap().unwrap().bytes, events[3].bytes);
    assert_eq!(write.next_of_database(&origin, 2, "scouting").unwrap().unwrap().0, 3);
    assert!(log.read().unwrap().heads().unwrap().is_empty(), "nothing is visible before the commit");
    write.commit_durable().unwrap();

    assert!(before.heads().unwrap().is_empty(), "a snapshot never changes");
    let read = log.read().unwrap();
    let expected = Head { origin: a.origin, seq: 3, hash: events[3].hash };
    assert_eq!(read.heads().unwrap()[&origin], expected);
    assert_eq!(read.head(&origin).unwrap(), Some(expected));
    let stored = read.event(&origin, 2).unwrap().unwrap();
    assert_eq!((stored.seq, &stored.bytes, stored.hash), (2, &events[2].bytes, events[2].hash));
    assert_eq!(stored.signature, events[2].signature);
    assert_eq!(read.event(&origin, 4).unwrap(), None);
    let seqs = |from, bytes| -> Vec<u64> {
        read.events_from(&origin, from, bytes).unwrap().iter().map(|stored| stored.seq).collect()
    };
    assert_eq!(seqs(1, usize::MAX), [1, 2, 3]);
    assert_eq!(seqs(2, 1), [2], "one event in any case");
    assert!(seqs(4, usize::MAX).is_empty());
    let arrivals: Vec<(u64, u64)> = read.arrivals(1, 2).unwrap().iter().map(|one| (one.number, one.seq)).collect();
    assert_eq!(arrivals, [(2, 1), (3, 2)]);
    assert_eq!(read.last_arrival().unwrap(), 4);
    assert_eq!(read.next_of_database(&origin, 1, "users").unwrap().unwrap().0, 2);
    assert_eq!(read.next_of_database(&origin, 3, "users").unwrap(), None);
    assert_eq!(read.next_of_database(&origin, 1, "unknown").unwrap(), None);
    assert_eq!(read.events_of_database("users").unwrap(), 2);
}

#[test]
fn a_dropped_transaction_leaves_no_trace() {
    let log = memory();
    let mut chain = Chain::new(1);
    let made = chain.make("scouting", Cut::default(), "one");
    let mut write = log.write().unwrap();
    made.append(&mut write).unwrap();
    write.put_meta("name", b"value").unwrap();
    drop(write);
    let read = log.read().unwrap();
    assert!(read.heads().unwrap().is_empty() && read.meta("name").unwrap().is_none());
    let mut write = log.write().unwrap();
    assert_eq!(made.append(&mut write).unwrap(), 1, "arrival numbers go on from what was committed");
}

#[test]
fn gaps_repetitions_and_forks_are_refused_and_harm_nothing() {
    let log = memory();
    let mut chain = Chain::new(1);
    let mut other = Chain::new(1);
    let made: Vec<Made> = (0..4).map(|number| chain.make("scouting", Cut::default(), &number.to_string())).collect();
    let forked: Vec<Made> =
        (0..4).map(|number| other.make("scouting", Cut::default(), &format!("x{number}"))).collect();
    let mut write = log.write().unwrap();
    let order = |write: &mut LogWrite<'_>, made: &Made| match made.append(write) {
        Err(LogError::OutOfOrder { expected, found, .. }) => (expected, found),
        other => panic!("{other:?}"),
    };
    assert_eq!(order(&mut write, &made[1]), (1, 2));
    made[0].append(&mut write).unwrap();
    assert_eq!(order(&mut write, &made[0]), (2, 1), "known already");
    assert_eq!(order(&mut write, &made[3]), (2, 4));
    assert!(matches!(forked[0].append(&mut write), Err(LogError::Fork { seq: 1, .. })));
    assert!(matches!(forked[1].append(&mut write), Err(LogError::Fork { seq: 2, .. })));
    made[1].append(&mut write).unwrap();
    write.commit_durable().unwrap();
    assert_eq!(log.read().unwrap().last_arrival().unwrap(), 2);
}

#[test]
fn cuts_are_deltas_that_add_up() {
    let log = memory();
    let (mut a, b, c) = (Chain::new(1), Chain::new(2), Chain::new(3));
    let mut write = log.write().unwrap();
    for (database, applied) in [
        ("scouting", cut(&[])),
        ("scouting", cut(&[(&b, 5)])),
        ("users", cut(&[(&c, 9)])),
        ("scouting", cut(&[])),
        ("scouting", cut(&[(&b, 6), (&c, 1)])),
    ] {
        a.make(database, applied, "x").append(&mut write).unwrap();
    }
    let expected = [
        ("scouting", 1, cut(&[])),
        ("scouting", 2, cut(&[(&a, 1), (&b, 5)])),
        ("users", 3, cut(&[(&a, 2), (&c, 9)])),
        ("scouting", 4, cut(&[(&a, 3), (&b, 5)])),
        ("scouting", 5, cut(&[(&a, 4), (&b, 6), (&c, 1)])),
    ];
    for (database, seq, cut) in &expected {
        assert_eq!(&write.cut_of(database, a.origin.id(), *seq).unwrap(), cut, "event {seq} while writing");
    }
    write.commit_relaxed().unwrap();
    let read = log.read().unwrap();
    for (database, seq, cut) in expected {
        assert_eq!(read.cut_of(database, a.origin.id(), seq).unwrap(), cut, "event {seq}");
    }
}

#[test]
fn the_nodes_own_records_are_kept() {
    let log = memory();
    let origin = Chain::new(1).origin.id();
    let mut write = log.write().unwrap();
    write.put_meta("name", b"value").unwrap();
    assert_eq!(write.meta("name").unwrap().as_deref(), Some(&b"value"[..]));
    write.put_member(&[7; 32], b"record").unwrap();
    write.put_address("/ip4/10.0.0.1/tcp/1", "", 5).unwrap();
    write.put_address("/ip4/10.0.0.2/tcp/1", "ab", 7).unwrap();
    write.drop_address("/ip4/10.0.0.2/tcp/1", "ab").unwrap();
    write.put_rids("scouting", 3, &[[3; 16]]).unwrap();
    write.put_rids("scouting", 4, &[[4; 16], [5; 16]]).unwrap();
    write.put_rids("users", 4, &[[6; 16]]).unwrap();
    write.drop_rids_through("scouting", 3).unwrap();
    write.put_cursor("scouting", &Cut { dots: [(origin, 4)].into() }, 8).unwrap();
    write.put_held("scouting", origin, 2, "note.colour").unwrap();
    write.put_held("scouting", origin, 3, "pit").unwrap();
    write.drop_held("scouting", origin, 2).unwrap();
    write.put_clock(Stamp(77)).unwrap();
    write.commit_durable().unwrap();
    let read = log.read().unwrap();
    assert_eq!(read.meta("name").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(read.members().unwrap(), [b"record".to_vec()]);
    assert_eq!(read.addresses().unwrap(), [("/ip4/10.0.0.1/tcp/1".to_string(), String::new(), 5)]);
    assert_eq!(read.rids("scouting").unwrap(), [[4; 16], [5; 16]]);
    assert_eq!(read.rids("users").unwrap(), [[6; 16]]);
    assert_eq!(read.cursor("scouting").unwrap(), Some((Cut { dots: [(origin, 4)].into() }, 8)));
    assert_eq!(read.cursor("users").unwrap(), None);
    assert_eq!(read.held("scouting").unwrap(), [(origin, 3, "pit".to_string())]);
    assert_eq!(read.clock().unwrap(), Stamp(77));
}

/// Changes the stored value of one event behind the log's back.
fn tamper(log: &Log, chain: &Chain, seq: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let key = stored::event_key(chain.origin.id(), seq);
    let transaction = log.database.begin_write().unwrap();
    {
        let mut events = transaction.open_table(tables::EVENTS).unwrap();
        let mut value = events.get(&key).unwrap().unwrap().value().to_vec();
        change(&mut value);
        events.insert(&key, value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    log.committed().read = None;
}

#[test]
fn every_flipped_bit_of_an_event_is_noticed_when_it_is_read() {
    let log = memory();
    let chain = filled(&log, 2);
    let origin = chain.origin.id();
    let original = {
        let transaction = log.database.begin_read().unwrap();
        let events = transaction.open_table(tables::EVENTS).unwrap();
        events.get(&stored::event_key(origin, 2)).unwrap().unwrap().value().to_vec()
    };
    for bit in 0..original.len() * 8 {
        let key = stored::event_key(origin, 2);
        let mut flipped = original.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(stored::unpack(&key, &flipped).is_err(), "bit {bit}");
    }
    tamper(&log, &chain, 2, |value| *value.last_mut().unwrap() ^= 1);
    let read = log.read().unwrap();
    let named = |error: LogError| matches!(error, LogError::CorruptEvent { origin: named, seq: 2 } if named == origin);
    assert!(named(read.event(&origin, 2).unwrap_err()));
    assert!(named(read.events_from(&origin, 1, usize::MAX).unwrap_err()));
    assert!(named(read.next_of_database(&origin, 2, "scouting").unwrap_err()));
    assert!(read.event(&origin, 1).is_ok(), "other events are not affected");
}

fn check(log: &Log) -> VerifyReport {
    let mut seen = (0, 0);
    let report =
        verify(&log.read().unwrap(), &CLUSTER, &|_| true, &mut |events, bytes| seen = (events, bytes)).unwrap();
    assert_eq!(seen, (report.events, report.bytes));
    report
}

#[test]
fn verification_finds_what_was_changed_and_nothing_else() {
    let log = memory();
    let chain = filled(&log, 5);
    let report = check(&log);
    assert!(report.faults.is_empty(), "{report:?}");
    assert_eq!((report.events, report.origins, report.signatures), (5, 1, 5));
    let strangers = verify(&log.read().unwrap(), &CLUSTER, &|_| false, &mut |_, _| ()).unwrap();
    assert_eq!(strangers.fault_count, 1, "{strangers:?}");

    // A forger who can write the file and knows its format: the event is replaced, its hash and check made anew.
    let mut forged = Chain::new(1);
    forged.head = (2, [9; 32]);
    let forgery = forged.make("scouting", Cut::default(), "forged");
    let key = stored::event_key(chain.origin.id(), 3);
    tamper(&log, &chain, 3, |value| {
        let signature = check_signature(value);
        *value = stored::pack(&key, &forgery.bytes, &forgery.hash, Some(&signature));
    });
    let faults = check(&log).faults;
    assert_eq!(faults.len(), 3, "the link into it, its signature and the link out of it: {faults:?}");

    tamper(&log, &chain, 2, |value| *value.last_mut().unwrap() ^= 1);
    let faults = check(&log).faults;
    assert!(faults.iter().any(|fault| fault.starts_with("event 2 of")), "{faults:?}");
}

fn check_signature(value: &[u8]) -> [u8; 64] {
    *value[33..].first_chunk::<64>().unwrap()
}

#[test]
fn an_unsigned_end_and_a_missing_event_are_faults() {
    let log = memory();
    let chain = filled(&log, 3);
    let key = stored::event_key(chain.origin.id(), 3);
    tamper(&log, &chain, 3, |value| {
        let event = stored::unpack(&key, value).unwrap();
        *value = stored::pack(&key, &event.bytes, &event.hash, None);
    });
    let faults = check(&log).faults;
    assert!(faults.len() == 1 && faults[0].contains("not signed"), "{faults:?}");
    let transaction = log.database.begin_write().unwrap();
    transaction.open_table(tables::EVENTS).unwrap().remove(&stored::event_key(chain.origin.id(), 2)).unwrap();
    transaction.commit().unwrap();
    log.committed().read = None;
    assert!(check(&log).faults.iter().any(|fault| fault.contains("missing")));
    let read = log.read().unwrap();
    assert!(matches!(read.event(&chain.origin.id(), 2), Err(LogError::CorruptEvent { seq: 2, .. })));
    assert!(read.events_from(&chain.origin.id(), 1, usize::MAX).is_err(), "a chain with a hole is not served");
}

#[test]
fn a_log_is_whole_locked_and_kept_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    // What an interrupted first start may leave: half a file aside, an empty one in place.
    std::fs::write(folder.path().join("log.redb.new"), b"half").unwrap();
    std::fs::write(&path, b"").unwrap();
    let log = Log::open(&path).unwrap();
    assert!(!folder.path().join("log.redb.new").exists());
    let chain = filled(&log, 3);
    assert!(matches!(Log::open(&path), Err(LogError::Locked)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    drop(log);
    let log = Log::open(&path).unwrap();
    let read = log.read().unwrap();
    assert_eq!(read.heads().unwrap()[&chain.origin.id()].seq, 3);
    assert_eq!(read.event(&chain.origin.id(), 3).unwrap().unwrap().seq, 3);
    assert!(check(&log).faults.is_empty());
}

#[test]
fn damaged_and_newer_files_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    assert!(Log::open(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), vec![0x5a; 8192], "evidence stays");
    let path = folder.path().join("newer.redb");
    let log = Log::open(&path).unwrap();
    let mut write = log.write().unwrap();
    write.put_meta(tables::STORE_VERSION_KEY, &(tables::STORE_VERSION + 1).to_be_bytes()).unwrap();
    write.commit_durable().unwrap();
    drop(log);
    assert!(matches!(Log::open(&path), Err(LogError::Newer { found: 2, known: 1 })));
}

#[test]
fn a_log_is_shared_between_threads() {
    let log = Arc::new(memory());
    let chain = filled(&log, 2);
    let other = Arc::clone(&log);
    let heads = std::thread::spawn(move || other.read().unwrap().heads().unwrap()).join().unwrap();
    assert_eq!(heads[&chain.origin.id()].seq, 2);
}

/// Run with `--release -- --ignored --nocapture`: a figure, not a test.
#[test]
#[ignore = "a figure for people"]
fn appending_speed() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(&folder.path().join("log.redb")).unwrap();
    let mut chain = Chain::new(1);
    let made: Vec<Made> =
        (0..100_000).map(|number| chain.make("scouting", Cut::default(), &number.to_string())).collect();
    let started = std::time::Instant::now();
    for batch in made.chunks(1_000) {
        let mut write = log.write().unwrap();
        for one in batch {
            one.append(&mut write).unwrap();
        }
        write.commit_durable().unwrap();
    }
    println!("100,000 events of {} bytes appended in {:?}", made[0].bytes.len(), started.elapsed());
    let started = std::time::Instant::now();
    let count = log.read().unwrap().events_from(&chain.origin.id(), 1, usize::MAX).unwrap().len();
    println!("{count} read and checked in {:?}", started.elapsed());
    let started = std::time::Instant::now();
    for one in 0..100 {
        let mut write = log.write().unwrap();
        chain.make("scouting", Cut::default(), &one.to_string()).append(&mut write).unwrap();
        write.commit_durable().unwrap();
    }
    println!("one event per durable commit: {:?}", started.elapsed() / 100);
    let started = std::time::Instant::now();
    assert!(check(&log).faults.is_empty());
    println!("verified in {:?}", started.elapsed());
    drop(log);
    let started = std::time::Instant::now();
    let log = Log::open(&folder.path().join("log.redb")).unwrap();
    println!("opened in {:?}", started.elapsed());
    drop(log);
}
