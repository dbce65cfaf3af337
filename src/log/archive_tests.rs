//! The archive: every read is the same before, while and after bodies move; no crash between the steps loses one; what is
//! missing is named and harms nothing else.
//!
//! A twin log that never archives says what every read must give. Seeds are printed with every failure.

use std::collections::BTreeMap;
use std::io;

use redb::ReadableTable;

use super::crash_tests::{Dice, Disk};
use super::segment::{pack, segment_name, unpack};
use super::tests::{CLUSTER, Chain};
use super::*;
use crate::model::{Cut, Stamp};

const DATABASES: [&str; 3] = ["scouting", "users", "pit"];

/// Segments in memory; the power that fails is the disk's.
#[derive(Debug, Default)]
struct Shelf {
    files: Mutex<BTreeMap<[u8; 32], Vec<u8>>>,
    disk: Disk,
}

impl SegmentStore for Shelf {
    fn put(&self, name: &[u8; 32], bytes: &[u8]) -> io::Result<()> {
        self.disk.0.lock().unwrap().operate()?;
        self.files.lock().unwrap().insert(*name, bytes.to_vec());
        // On the disk, and the power fails before anybody hears of it.
        self.disk.0.lock().unwrap().operate()
    }

    fn read(&self, name: &[u8; 32], offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let files = self.files.lock().unwrap();
        let bytes = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let end = offset as usize + length;
        Ok(bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }

    fn list(&self) -> io::Result<Vec<([u8; 32], u64)>> {
        Ok(self.files.lock().unwrap().iter().map(|(name, bytes)| (*name, bytes.len() as u64)).collect())
    }

    fn remove(&self, name: &[u8; 32]) -> io::Result<()> {
        self.files.lock().unwrap().remove(name);
        Ok(())
    }
}

/// Some writers of one cluster, who know more and more of each other.
struct Writers {
    chains: Vec<Chain>,
    written: Vec<u64>,
}

impl Writers {
    fn new(count: u8) -> Writers {
        Writers { chains: (1..=count).map(Chain::new).collect(), written: vec![0; usize::from(count)] }
    }

    /// Appends an event of somebody to all logs.
    fn write(&mut self, dice: &mut Dice, logs: &mut [LogWrite<'_>]) {
        let at = dice.below(self.chains.len() as u64) as usize;
        let mut applied = Cut::default();
        let other = dice.below(self.chains.len() as u64) as usize;
        if other != at && self.written[other] > 0 && dice.below(3) == 0 {
            applied.dots.insert(self.chains[other].origin.id(), 1 + dice.below(self.written[other]));
        }
        // Long runs of one database, and short ones of the others.
        let database = DATABASES[if dice.below(4) == 0 { dice.below(3) as usize } else { 0 }];
        let length = if dice.below(60) == 0 { 40_000 } else { dice.below(80) };
        let text: String = (0..length).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
        let mut made = self.chains[at].make(database, applied, &text);
        if dice.below(5) == 0 {
            made.signature = None;
        }
        logs.iter_mut().for_each(|log| {
            made.append(log).unwrap();
        });
        self.written[at] += 1;
    }
}

/// One step of a cleanup, chosen by dice: any may come at any time, so may none.
fn tidy(log: &Log, sealer: &mut Sealer, dice: &mut Dice) -> Result<(), LogError> {
    match dice.below(8) {
        0..=2 => {
            sealer.pack_next(&log.read()?)?;
        }
        3 => {
            log.seal(sealer)?;
        }
        4..=6 => clear_some(log, dice)?,
        _ => {
            let mut write = log.write()?;
            write.pack_arrivals()?;
            write.commit_relaxed()?;
        }
    }
    Ok(())
}

fn clear_some(log: &Log, dice: &mut Dice) -> Result<(), LogError> {
    let Some((number, blocks)) = log.read()?.uncleared()?.into_iter().next() else { return Ok(()) };
    let mut write = log.write()?;
    let all = dice.below(2) == 0;
    for (origin, first) in &blocks {
        if all || dice.below(2) == 0 {
            write.clear_block(*origin, *first)?;
        }
    }
    if all {
        write.end_segment(number)?;
    }
    if dice.below(2) == 0 { write.commit_durable() } else { write.commit_relaxed() }
}

/// All that may be archived now, in small and large segments.
fn everything(log: &Log) -> Sealer {
    let through = log.read().unwrap().heads().unwrap().into_iter().map(|(origin, head)| (origin, head.seq)).collect();
    Sealer::new(SealLimits { through, ..SealLimits::default() })
}

/// Archives all there is.
fn archive_all(log: &Log) -> u64 {
    let mut sealer = everything(log);
    let mut sealed = 0;
    loop {
        let more = sealer.pack_next(&log.read().unwrap()).unwrap();
        if sealer.is_full() || !more {
            sealed += sealer.events();
            log.seal(&mut sealer).unwrap();
        }
        if !more {
            break;
        }
    }
    for (number, blocks) in log.read().unwrap().uncleared().unwrap() {
        for (origin, first) in blocks {
            let mut write = log.write().unwrap();
            write.clear_block(origin, first).unwrap();
            write.commit_relaxed().unwrap();
        }
        let mut write = log.write().unwrap();
        write.end_segment(number).unwrap();
        write.commit_durable().unwrap();
    }
    loop {
        let mut write = log.write().unwrap();
        let more = write.pack_arrivals().unwrap();
        write.commit_durable().unwrap();
        if !more {
            return sealed;
        }
    }
}

/// Every read of one log gives what it gives of the other.
fn assert_same(log: &Log, twin: &Log, dice: &mut Dice, seed: u64) {
    let (a, b) = (log.read().unwrap(), twin.read().unwrap());
    let heads = b.heads().unwrap();
    assert_eq!(a.heads().unwrap(), heads, "seed {seed}");
    for (origin, head) in &heads {
        for seq in 0..=head.seq + 1 {
            if dice.below(3) > 0 {
                continue;
            }
            assert_eq!(a.event(origin, seq).unwrap(), b.event(origin, seq).unwrap(), "seed {seed}: {origin} {seq}");
            let database = DATABASES[dice.below(3) as usize];
            let cuts = (a.cut_of(database, *origin, seq).unwrap(), b.cut_of(database, *origin, seq).unwrap());
            assert_eq!(cuts.0, cuts.1, "seed {seed}: cut of {origin} {seq} in {database}");
        }
        for _ in 0..20 {
            let (from, database) = (1 + dice.below(head.seq), DATABASES[dice.below(3) as usize]);
            let next = (a.next_of_database(origin, from, database), b.next_of_database(origin, from, database));
            assert_eq!(next.0.unwrap(), next.1.unwrap(), "seed {seed}: next of {database} from {from} of {origin}");
            let most = 1 + dice.below(400) as usize;
            let counts =
                (a.count_of_database(origin, from, database, most), b.count_of_database(origin, from, database, most));
            assert_eq!(counts.0.unwrap(), counts.1.unwrap(), "seed {seed}: {database} from {from} of {origin}");
            let bytes = dice.below(60_000) as usize;
            let run = a.events_from(origin, from, bytes).unwrap();
            assert!(!run.is_empty() && run[0].seq == from, "seed {seed}");
            for (at, event) in run.iter().enumerate() {
                assert_eq!(Some(event), b.event(origin, from + at as u64).unwrap().as_ref(), "seed {seed}");
            }
            let size: usize = run.iter().map(|event| event.bytes.len()).sum();
            assert!(run.len() == 1 || size <= bytes, "seed {seed}: {size} of {bytes}");
        }
    }
    assert_eq!(a.last_arrival().unwrap(), b.last_arrival().unwrap(), "seed {seed}");
    for _ in 0..20 {
        let (after, limit) = (dice.below(b.last_arrival().unwrap() + 2), dice.below(3_000) as usize);
        let arrivals = (a.arrivals(after, limit).unwrap(), b.arrivals(after, limit).unwrap());
        assert_eq!(arrivals.0, arrivals.1, "seed {seed}: arrivals after {after}");
    }
    for database in DATABASES {
        let events = (a.events_of_database(database).unwrap(), b.events_of_database(database).unwrap());
        assert_eq!(events.0, events.1, "seed {seed}");
    }
}

fn assert_sound(log: &Log, seed: u64) {
    // Events whose signature the test left out may stand last.
    let mut report = verify(&log.read().unwrap(), &CLUSTER, &|_| true, &mut |_, _| ()).unwrap();
    report.faults.retain(|fault| !fault.contains("the last event is not signed"));
    assert!(report.faults.is_empty(), "seed {seed}: {:?}", report.faults);
}

#[test]
fn reads_are_the_same_whatever_was_archived_at_whatever_time() {
    let mut archived = 0;
    for seed in 1..=6u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let inside = seed % 2 == 0;
        let backend = redb::backends::InMemoryBackend::new();
        let log = match inside {
            true => Log::with_backend(backend).unwrap(),
            false => Log::with_segments(backend, Arc::new(Shelf::default())).unwrap(),
        };
        let twin = Log::with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let mut writers = Writers::new(1 + dice.below(4) as u8);
        let mut sealer = everything(&log);
        for _ in 0..12 {
            let mut writes = [log.write().unwrap(), twin.write().unwrap()];
            for _ in 0..dice.below(250) {
                writers.write(&mut dice, &mut writes);
            }
            // A writer reads through the archive too.
            for (origin, head) in writes[1].heads().clone() {
                let (seq, database) = (1 + dice.below(head.seq), DATABASES[dice.below(3) as usize]);
                let events = (writes[0].event(&origin, seq).unwrap(), writes[1].event(&origin, seq).unwrap());
                assert_eq!(events.0, events.1, "seed {seed}");
                let next = |write: &LogWrite<'_>| write.next_of_database(&origin, seq, database).unwrap();
                assert_eq!(next(&writes[0]), next(&writes[1]), "seed {seed}");
                let cut = |write: &LogWrite<'_>| write.cut_of(database, origin, seq).unwrap();
                assert_eq!(cut(&writes[0]), cut(&writes[1]), "seed {seed}");
            }
            writes.into_iter().for_each(|write| write.commit_durable().unwrap());
            if dice.below(3) == 0 {
                sealer = everything(&log);
            }
            for _ in 0..dice.below(30) {
                tidy(&log, &mut sealer, &mut dice).unwrap();
            }
            if dice.below(4) == 0 {
                log.home.forget();
            }
            assert_same(&log, &twin, &mut dice, seed);
        }
        archive_all(&log);
        assert_same(&log, &twin, &mut dice, seed);
        assert_sound(&log, seed);
        let read = log.read().unwrap();
        archived += read.archive_size().unwrap().events;
        assert_eq!(read.events.iter().unwrap().count(), 0, "seed {seed}: nothing is left of what was archived");
        assert_eq!(read.database_events.iter().unwrap().count(), 0, "seed {seed}");
        assert!(read.arrivals.iter().unwrap().count() < super::archive::PAGE_ARRIVALS, "seed {seed}");
        assert_eq!(read.cuts.iter().unwrap().count(), 0, "seed {seed}");
        // And the chains go on behind it.
        drop(read);
        let mut writes = [log.write().unwrap(), twin.write().unwrap()];
        (0..50).for_each(|_| writers.write(&mut dice, &mut writes));
        writes.into_iter().for_each(|write| write.commit_durable().unwrap());
        assert_same(&log, &twin, &mut dice, seed);
    }
    assert!(archived > 2_500, "only {archived} events were ever archived");
}

#[test]
fn no_power_cut_between_the_steps_loses_an_event() {
    let (mut cut, mut twice, mut orphans) = (0, 0, 0);
    for seed in 1..=16u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let disk = Disk::default();
        let shelf = Arc::new(Shelf { disk: disk.clone(), ..Shelf::default() });
        let open = || {
            if seed % 3 == 0 {
                Log::with_backend(disk.clone())
            } else {
                Log::with_segments(disk.clone(), shelf.clone())
            }
        };
        let log = open().unwrap();
        let twin = Log::with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let mut writers = Writers::new(3);
        let mut writes = [log.write().unwrap(), twin.write().unwrap()];
        (0..1_300).for_each(|_| writers.write(&mut dice, &mut writes));
        writes.into_iter().for_each(|write| write.commit_durable().unwrap());
        disk.0.lock().unwrap().fuse = Some(1 + dice.below(100));
        let mut sealer = everything(&log);
        for _ in 0..200 {
            if tidy(&log, &mut sealer, &mut dice).is_err() {
                break;
            }
        }
        cut += u32::from(disk.0.lock().unwrap().cut);
        disk.0.lock().unwrap().cut = true;
        drop((log, sealer));
        disk.0.lock().unwrap().recover(&mut dice);

        let log = open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_same(&log, &twin, &mut dice, seed);
        assert_sound(&log, seed);
        let read = log.read().unwrap();
        twice += u32::from(!read.uncleared().unwrap().is_empty());
        orphans += read.archive_size().unwrap().unknown.0;
        drop(read);
        archive_all(&log);
        for (name, bytes) in log.orphans().unwrap() {
            assert!(log.remove_orphan(&name, bytes).unwrap(), "seed {seed}");
        }
        assert_eq!(log.read().unwrap().archive_size().unwrap().unknown, (0, 0), "seed {seed}");
        assert_sound(&log, seed);
    }
    assert!(cut > 4 && twice > 1 && orphans > 0, "too calm: {cut} cuts, {twice} half cleared, {orphans} orphans");
}

#[test]
fn a_segment_that_is_missing_or_damaged_is_named_and_harms_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.redb");
    let log = Log::open(&path).unwrap();
    let mut chain = Chain::new(1);
    let fill = |chain: &mut Chain, count: u64| {
        let mut write = log.write().unwrap();
        (0..count).for_each(|number| {
            chain.make("scouting", Cut::default(), &format!("row {number}")).append(&mut write).unwrap();
        });
        write.commit_durable().unwrap();
    };
    fill(&mut chain, 600);
    assert_eq!(archive_all(&log), 600);
    fill(&mut chain, 100);
    assert_eq!(archive_all(&log), 100);
    fill(&mut chain, 10);
    let origin = chain.origin.id();
    let folder = directory.path().join(SEGMENT_FOLDER);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(std::fs::metadata(file).unwrap().len()));
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let name = data_encoding::HEXLOWER.encode(&segment_name(&bytes));
        assert_eq!(file.file_name().unwrap().to_str().unwrap(), format!("{name}.segment"), "named by its content");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file).unwrap()) & 0o777, 0o600);
    }
    let check = |readable: &dyn Fn(u64) -> bool, problem: &str| {
        log.home.forget();
        let read = log.read().unwrap();
        for seq in 1..=710 {
            match read.event(&origin, seq) {
                Ok(found) => assert!(readable(seq) && found.unwrap().seq == seq, "event {seq}"),
                Err(error) => {
                    assert!(!readable(seq) && !error.is_damage(), "event {seq}: {error}");
                    let text = error.to_string();
                    assert!(text.contains(&format!("event {seq} of")) && text.contains(problem), "{text}");
                }
            }
        }
        // Only what is asked for is read, so a writer and the heads do not mind.
        log.write().unwrap().commit_durable().unwrap();
        let report = verify(&read, &CLUSTER, &|_| true, &mut |_, _| ()).unwrap();
        assert_eq!(report.events + report.fault_count, 710, "{:?}", report.faults.first());
        read.archive_size().unwrap().missing
    };
    assert!(check(&|_| true, "").is_empty());
    // One flipped bit harms its block.
    let whole = std::fs::read(&files[0]).unwrap();
    let mut flipped = whole.clone();
    flipped[segment::MAGIC.len() + 300] ^= 4;
    std::fs::write(&files[0], &flipped).unwrap();
    assert!(check(&|seq| seq > 256, "is damaged").is_empty(), "its size is right");
    std::fs::write(&files[0], &whole[..whole.len() - 10]).unwrap();
    assert_eq!(check(&|seq| seq <= 512 || seq > 600, "is cut short").len(), 1);
    std::fs::remove_file(&files[0]).unwrap();
    assert_eq!(check(&|seq| seq > 600, "is missing")[0].1, 600);
    std::fs::write(&files[0], &whole).unwrap();
    assert!(check(&|_| true, "").is_empty(), "a file that is put back is all that was missing");
}

#[test]
fn a_file_that_no_log_knows_is_removed_only_when_all_in_it_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = SegmentFolder::at(&directory.path().join(SEGMENT_FOLDER));
    let log = Log::open(&directory.path().join("events.redb")).unwrap();
    let (mut chain, mut elsewhere) = (Chain::new(1), Chain::new(1));
    let mut write = log.write().unwrap();
    let mut events = Vec::new();
    for number in 0..20 {
        let made = chain.make("scouting", Cut::default(), &format!("row {number}"));
        made.append(&mut write).unwrap();
        events.push(StoredEvent { seq: number + 1, bytes: made.bytes, hash: made.hash, signature: made.signature });
    }
    write.commit_durable().unwrap();
    let other = elsewhere.make("scouting", Cut::default(), "another history");
    let other = StoredEvent { seq: 1, bytes: other.bytes, hash: other.hash, signature: other.signature };
    let held = [segment::MAGIC, &pack(chain.origin, &events)].concat();
    let strange = [segment::MAGIC, &pack(chain.origin, &[other])].concat();
    for bytes in [&held, &strange] {
        shelf.put(&segment_name(bytes), bytes).unwrap();
    }
    shelf.put(&[7; 32], b"no segment at all").unwrap();
    assert_eq!(log.read().unwrap().archive_size().unwrap().unknown.0, 3);
    let removed = log.orphans().unwrap().into_iter().map(|(name, bytes)| log.remove_orphan(&name, bytes).unwrap());
    assert_eq!(removed.filter(|removed| *removed).count(), 1);
    let left: Vec<[u8; 32]> = shelf.list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(!left.contains(&segment_name(&held)) && left.contains(&segment_name(&strange)) && left.len() == 2);
}

#[test]
fn what_is_young_or_damaged_or_fills_no_block_stays() {
    let log = Log::with_backend(redb::backends::InMemoryBackend::new()).unwrap();
    let mut chain = Chain::new(1);
    let mut write = log.write().unwrap();
    // Stamps of the test's events are their numbers.
    (0..700).for_each(|number| {
        chain.make("scouting", Cut::default(), &format!("row {number}")).append(&mut write).unwrap();
    });
    write.commit_durable().unwrap();
    let origin = chain.origin.id();
    let seal = |through: u64, before: Option<u64>, whole_blocks: bool| {
        let limits =
            SealLimits { through: BTreeMap::from([(origin, through)]), before: before.map(Stamp), whole_blocks };
        let mut sealer = Sealer::new(limits);
        while sealer.pack_next(&log.read().unwrap()).unwrap() {}
        let events = sealer.events();
        log.seal(&mut sealer).unwrap();
        events
    };
    assert_eq!(seal(700, Some(100), true), 0, "fills no block");
    assert_eq!(seal(700, Some(101), false), 100, "stamped earlier");
    assert_eq!(seal(400, None, true), 256, "up to the cut, whole blocks");
    let transaction = log.database.begin_write().unwrap();
    {
        let mut events = transaction.open_table(tables::EVENTS).unwrap();
        let key = stored::event_key(origin, 500);
        let mut value = events.get(&key).unwrap().unwrap().value().to_vec();
        *value.last_mut().unwrap() ^= 1;
        events.insert(&key, value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    log.committed().read = None;
    assert_eq!(seal(700, None, false), 700 - 356 - 1, "all but the damaged one");
    assert_eq!(log.read().unwrap().archived_through(&origin).unwrap(), 499);
    assert!(matches!(log.read().unwrap().event(&origin, 500), Err(LogError::CorruptEvent { seq: 500, .. })));
}

#[test]
fn no_flipped_bit_of_a_block_gives_other_events_and_no_bytes_make_it_panic() {
    let mut chain = Chain::new(3);
    let events: Vec<StoredEvent> = (1..=5)
        .map(|seq| {
            let made = chain.make("scouting", Cut::default(), &"text ".repeat(seq as usize));
            StoredEvent { seq, bytes: made.bytes, hash: made.hash, signature: made.signature.filter(|_| seq > 2) }
        })
        .collect();
    let block = pack(chain.origin, &events);
    let unfolded = unpack(&block).unwrap();
    assert_eq!((unfolded.origin, unfolded.first, unfolded.len(), unfolded.last()), (chain.origin, 1, 5, 5));
    (1..=5).for_each(|seq| assert_eq!(unfolded.event(seq).as_ref(), events.get(seq as usize - 1)));
    assert_eq!((unfolded.event(0), unfolded.event(6)), (None, None));
    let check = segment::block_check(&block);
    for bit in 0..block.len() * 8 {
        let mut flipped = block.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(segment::block_check(&flipped), check);
        // A change that unfolds at all breaks the hashes or the signatures, not this function.
        let _ = unpack(&flipped);
    }
    for length in 0..block.len() {
        assert!(unpack(&block[..length]).is_none());
    }
}

#[test]
fn a_block_is_restored_from_the_events_that_were_archived_and_from_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(&directory.path().join("events.redb")).unwrap();
    let (mut chain, mut forged) = (Chain::new(1), Chain::new(1));
    let mut write = log.write().unwrap();
    let (mut events, mut others) = (Vec::new(), Vec::new());
    for number in 0..600u64 {
        for (chain, text, list) in [(&mut chain, "row", &mut events), (&mut forged, "lie", &mut others)] {
            let made = chain.make("scouting", Cut::default(), &format!("{text} {number}"));
            if text == "row" {
                made.append(&mut write).unwrap();
            }
            list.push(StoredEvent { seq: number + 1, bytes: made.bytes, hash: made.hash, signature: made.signature });
        }
    }
    write.commit_durable().unwrap();
    archive_all(&log);
    std::fs::remove_dir_all(directory.path().join(SEGMENT_FOLDER)).unwrap();
    log.home.forget();
    let origin = chain.origin.id();
    // The last one first: what is behind a block proves it.
    for (first, last) in [(513, 600), (257, 512), (1, 256)] {
        let range = first as usize - 1..last;
        assert!(!log.restore_block(origin, first, &others[range.clone()]).unwrap(), "another history");
        assert!(!log.restore_block(origin, first, &events[range.start..range.end - 1]).unwrap(), "cut short");
        assert!(log.read().unwrap().check_block(origin, first).is_err(), "nothing was changed");
        let unsigned = events[range].iter().map(|event| StoredEvent { signature: None, ..event.clone() });
        // Packed differently, but the chain fits: all that another version would change.
        assert!(log.restore_block(origin, first, &unsigned.collect::<Vec<_>>()).unwrap());
        log.read().unwrap().check_block(origin, first).unwrap();
    }
    let read = log.read().unwrap();
    assert_eq!((read.archive_size().unwrap().events, read.archive_size().unwrap().missing.len()), (600, 0));
    for event in &events {
        assert_eq!(read.event(&origin, event.seq).unwrap().unwrap().bytes, event.bytes);
    }
}

/// Figures for people: `cargo test --profile sim --no-default-features --lib archiving_figures -- --ignored --nocapture`
#[test]
#[ignore = "figures for people"]
fn archiving_figures() {
    for count in [100_000u64, 1_000_000] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.redb");
        let log = Log::open(&path).unwrap();
        let mut dice = Dice(7);
        let mut chains: Vec<Chain> = (1..=6).map(Chain::new).collect();
        let mut written = [0u64; 6];
        let words = ["auto", "teleop", "endgame", "climb", "park", "amp", "speaker", "note", "defense", "blue", "red"];
        let mut bytes = 0;
        for _ in 0..count / 1_000 {
            let mut write = log.write().unwrap();
            for _ in 0..1_000 {
                let (at, other) = (dice.below(6) as usize, dice.below(6) as usize);
                let mut applied = Cut::default();
                if other != at && written[other] > 0 {
                    applied.dots.insert(chains[other].origin.id(), written[other]);
                }
                let text: Vec<String> =
                    (0..6).map(|_| format!("{} {}", words[dice.below(11) as usize], dice.below(100))).collect();
                let made = chains[at].make(DATABASES[usize::from(dice.below(20) == 0)], applied, &text.join(", "));
                bytes += made.bytes.len();
                made.append(&mut write).unwrap();
                written[at] += 1;
            }
            write.commit_durable().unwrap();
        }
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        drop(log);
        let mut log = Log::open(&path).unwrap();
        log.compact().unwrap();
        let hot = size(&path);
        let started = std::time::Instant::now();
        assert_eq!(archive_all(&log), count);
        let (took, grown) = (started.elapsed(), size(&path));
        let started = std::time::Instant::now();
        log.compact().unwrap();
        let (compacted, after) = (started.elapsed(), size(&path));
        let archive = log.read().unwrap().archive_size().unwrap();
        let origin = chains[0].origin.id();
        let read = log.read().unwrap();
        let timed = |places: &mut dyn FnMut() -> u64| {
            let started = std::time::Instant::now();
            (0..2_000).for_each(|_| assert!(read.event(&origin, places()).unwrap().is_some()));
            started.elapsed().as_micros() as f64 / 2_000.0
        };
        let random = timed(&mut || 1 + dice.below(written[0]));
        let mut next = 0;
        let ordered = timed(&mut || {
            next += 1;
            next
        });
        let per = |bytes: u64| bytes as f64 / count as f64;
        println!(
            "{count} events of {:.0} bytes: log {:.1} bytes/event; sealed {:.1} bytes/event in {} segments, {:.1} left in the \
             log; {:.1} s ({:.0} events/s); file {} -> {} MB, {} MB after compacting for {:.1} s; an archived event: {random:.0} \
             µs at random, {ordered:.1} µs in order",
            per(bytes as u64),
            per(hot),
            per(archive.bytes),
            archive.segments,
            per(after),
            took.as_secs_f64(),
            count as f64 / took.as_secs_f64(),
            hot >> 20,
            grown >> 20,
            after >> 20,
            compacted.as_secs_f64(),
        );
    }
}
