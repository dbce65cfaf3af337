//! Start and recovery: from whatever a crash, a copy or a restore left, to a node that goes on.
//!
//! | durable when it stopped                         | what the start does                                              |
//! |-------------------------------------------------|------------------------------------------------------------------|
//! | app's commit: row and mark                      | drains it                                                        |
//! | drain read, fence                               | drains it again                                                  |
//! | log commit; marks still in the outbox           | their random ids are known: skipped, cleared                     |
//! | published, peer committed, acknowledged         | nothing: hellos tell                                             |
//! | marks cleared                                   | nothing                                                          |
//! | file's apply; log's state behind it             | evaluates the same events again, without writing (file is truth) |
//! | one file's apply, the other's not               | each file rolls forward from its own cursor                      |
//! | checkpoint                                      | SQLite's own recovery                                            |
//! | file older than the log's note (epoch, file id) | log is truth: rows the log knows are written back, rows it does   |
//! |                                                 | not know are captured as new ([`super::rescan`])                 |
//! | adoption: births logged, marks in the outbox    | the births came with the note of the file: goes on as after a capture |
//! | enrolment: births by content logged             | the same; also when the app's lock held up what follows          |
//! | log missing                                     | a new log: rows enrolled again by content, the rest from peers   |
//! | log half created                                | created aside and renamed, so it is either there or not (`log`)  |
//! | data directory copied or restored               | new incarnation; a peer that holds more of the old one serves it |
//! | log restored, the app's file not                | new incarnation: the file notes a longer chain than the log holds   |
//!
//! A copy of the whole machine (the image of a memory card) put back cannot be told from within. It is noticed when a peer
//! says what it holds; what the server wrote alone until then is a second chain under the numbers of the first: a fork,
//! refused and alarmed ([`crate::log::LogError::Fork`]), and its rows stay on that server until a person acts.
//!
//! Every step is idempotent: a second crash anywhere in here starts it again. Invariant: when [`Node::open`] returns (or,
//! after a fault of the log's storage, when the first tick has), every file's cursor and the log's state agree. Callers: daemon, simulations.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::apply::{clean, ready_events};
use super::chain::Chain;
use super::database::{Database, SCHEMA_SEPARATOR, schema_key};
use super::exchange::Exchange;
use super::lag::{note_lag, take_over};
use super::membership::{Membership, found_cluster, found_cluster_with};
use super::orders::{load_invites, load_membership, ranks, store_members};
use super::receipts::Receipts;
use super::settings::{KEY_FILE, LOG_FILE};
use super::step::{clean_equal, heads_of, others};
use super::store_fault::StoreFault;
use super::verify::Verify;
use super::view::KnownAddress;
use super::{DatabaseSettings, Node, NodeError, NodeSettings, Now};
use crate::clock::HybridClock;
use crate::log::{Log, LogWrite};
use crate::merge::Evaluator;
use crate::merge::store::Store;
use crate::model::{Bug, Cut, Head, Key, MemberRecord, OriginId, RowId, planted};
use crate::sqlite::{AppFile, Drain};

/// Under this name the log keeps the incarnation and what it is bound to.
const INCARNATION_KEY: &str = "incarnation";

impl Node {
    /// Founds a cluster in a data directory that has none. The first member is this node.
    pub fn found(log: &Log, key_seed: &[u8; 32], name: &str, cluster_name: &str, now: Now) -> Result<(), NodeError> {
        Node::enter(log, vec![found_cluster(key_seed, name, cluster_name, now.wall_ms)])
    }

    /// The same with the public key of a recovery phrase in the founder's record.
    pub fn found_with(
        log: &Log,
        key_seed: &[u8; 32],
        names: (&str, &str),
        recovery: [u8; 32],
        now: Now,
    ) -> Result<(), NodeError> {
        Node::enter(log, vec![found_cluster_with(key_seed, names.0, names.1, recovery, now.wall_ms)])
    }

    /// Enters a cluster: stores its member records (the founder's among them) in a data directory that has none.
    pub fn enter(log: &Log, records: Vec<MemberRecord>) -> Result<(), NodeError> {
        Node::enter_at(log, records, &[])
    }

    /// The same, with ways to reach other members: in one commit, because a member that knows nobody, and that no code
    /// lets in a second time, would stay alone.
    pub fn enter_at(log: &Log, records: Vec<MemberRecord>, addresses: &[KnownAddress]) -> Result<(), NodeError> {
        if load_membership(log)?.is_some() {
            return Err(NodeError::Invalid(
                "this data directory belongs to a cluster already: use another --data directory".to_string(),
            ));
        }
        let founder = records.iter().find(|record| record.cluster == [0; 32]).cloned().ok_or(NodeError::NoCluster)?;
        let mut membership = Membership::new(founder)?;
        if let Some(error) = membership.add_all(records).1.into_iter().next() {
            return Err(error.into());
        }
        let mut write = log.write()?;
        store_members(&mut write, &membership)?;
        for address in addresses {
            write.put_address(&address.address, &address.peer, address.reached_ms)?;
        }
        write.commit_durable()?;
        Ok(())
    }

    /// Whether a data directory's log belongs to a cluster.
    pub fn has_cluster(log: &Log) -> Result<bool, NodeError> {
        Ok(load_membership(log)?.is_some())
    }

    /// The members as a data directory's log knows them; `None` when it belongs to no cluster.
    pub fn membership_of(log: &Log) -> Result<Option<Membership>, NodeError> {
        load_membership(log)
    }

    /// The cluster that a data directory's log belongs to.
    pub fn cluster_of(log: &Log) -> Result<Option<crate::model::ClusterId>, NodeError> {
        Ok(load_membership(log)?.map(|membership| membership.cluster()))
    }

    /// Opens a node on a log that belongs to a cluster: recovers, enrols files that are new, drains.
    pub fn open(settings: NodeSettings, log: Arc<Log>, now: Now) -> Result<Node, NodeError> {
        Node::open_after(settings, log, now, None)
    }

    /// The same after a fault of the log's storage: all recovery of files is left to the first tick, because a full disk
    /// may have room to open the log, and none for what recovery writes.
    pub fn open_after(
        settings: NodeSettings,
        log: Arc<Log>,
        now: Now,
        fault: Option<StoreFault>,
    ) -> Result<Node, NodeError> {
        let membership = load_membership(&log)?.ok_or(NodeError::NoCluster)?;
        let incarnation = incarnation(&log, &settings)?;
        let chain = Chain::new(&settings.key_seed, membership.cluster().0, incarnation);
        let heads = heads_of(&log)?;
        let clock = HybridClock::resume(log.read()?.clock()?);
        let mut node = Node {
            ranks: ranks(&heads, &membership),
            invites: load_invites(&log)?,
            exchange: Exchange::new(settings.pace.clone()),
            compare: super::compare::Comparisons::default(),
            settings,
            log,
            membership,
            clock,
            chain,
            heads,
            databases: Vec::new(),
            schemas: Vec::new(),
            receipts: Receipts::default(),
            archiving: Default::default(),
            effects: Default::default(),
            alerts: Vec::new(),
            started: now,
            relaxed: false,
            due: true,
            retry_refused_ms: now.mono_ms,
            accounts_told: 0,
            fault,
            broken: false,
            admitting: Default::default(),
            snapshots: Default::default(),
            tally: Default::default(),
            verify: Default::default(),
            feed_place: Default::default(),
            migration: None,
        };
        node.receipts = Receipts::load(&node.log.read()?)?;
        node.accounts_told = node.log.read()?.last_audit()?;
        node.verify = Verify::load(&node.log.read()?, now)?;
        node.rank_origins();
        for settings in node.settings.databases.clone() {
            let (database, schema) = open_file(settings, node.slot(), now)?;
            node.databases.push(database);
            node.schemas.push(schema);
        }
        if node.fault.is_some() {
            node.databases.iter_mut().for_each(|database| database.doubted = true);
            return Ok(node);
        }
        for position in node.parents_first() {
            node.recover(position, now)?;
        }
        node.resume_snapshot(now)?;
        node.rank_origins();
        node.sync_state()?;
        node.resume_cleanup(now)?;
        Ok(node)
    }

    /// Positions of the files, those that others refer to first: their rows must be known when references are read.
    pub(super) fn parents_first(&self) -> Vec<usize> {
        let refers = |from: usize, to: usize| {
            let name = self.schemas[to].database.as_str();
            let mut keys = self.schemas[from].tables.iter().flat_map(|table| &table.foreign_keys);
            keys.any(|key| key.database.as_deref() == Some(name))
        };
        let mut order: Vec<usize> = Vec::new();
        while order.len() < self.schemas.len() {
            let open: Vec<usize> = (0..self.schemas.len()).filter(|position| !order.contains(position)).collect();
            let free = open.iter().find(|from| open.iter().all(|to| to == *from || !refers(**from, *to)));
            // Files that refer to each other come as they are named.
            order.push(*free.unwrap_or(&open[0]));
        }
        order
    }

    /// Closes and opens a file that was replaced under the running node.
    pub(super) fn reopen(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        crate::sometimes!("recover: the file was replaced under the running node");
        let name = self.databases[position].settings.name.clone();
        self.alert(format!(
            "the file of database {name} was replaced by another one: its rows are compared with the log"
        ));
        self.open_again(position, now)
    }

    /// Closes and opens a file.
    pub(super) fn open_again(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let (mut database, schema) = open_file(self.databases[position].settings.clone(), self.slot(), now)?;
        database.waits_like(&self.databases[position]);
        self.databases[position] = database;
        self.schemas[position] = schema;
        let recovered = self.recover(position, now);
        // Half recovered is not recovered: the next step begins again.
        self.databases[position].doubted = recovered.is_err();
        recovered
    }

    /// Brings the log's state and one file together.
    fn recover(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let name = self.databases[position].settings.name.clone();
        let origin = self.chain.origin().id();
        let (cursor, epoch, file_id) = {
            let read = self.log.read()?;
            let whose = if planted(Bug::OneCursor) { &self.databases[0].settings.name } else { &name };
            let (cursor, epoch) = read.cursor(whose)?.unwrap_or_default();
            (cursor, epoch, read.meta(&file_key(&name))?)
        };
        let said = self.log.read()?.cut_of(&name, origin, cursor.get(&origin))?;
        let rids = self.log.read()?.rids(&name)?;
        let database = &mut self.databases[position];
        database.cursor = cursor;
        database.said = others(&said, origin);
        database.uncleared = rids.into_iter().collect();
        let Some(known) = file_id else {
            if self.membership.len() > 1 {
                // What is here may be what the cluster has: ask first.
                crate::sometimes!("recover: a file waits to hear the cluster before it is read");
                self.databases[position].adopt_by_ms = Some(now.mono_ms + super::waiting::WAIT_MS);
                return Ok(());
            }
            return self.enrol(position, now);
        };
        self.tables_dropped(position, (0, None), now)?;
        let meta = match self.databases[position].file.meta() {
            Ok(meta) => Some(meta),
            Err(crate::sqlite::SqliteError::NotEnrolled) => None,
            Err(error) => return Err(error.into()),
        };
        match meta {
            Some(meta) if meta.file_id[..] == known[..] && meta.epoch >= epoch => {
                self.notice_own_past(meta.logged, now)?;
                self.databases[position].lost = self.lost_of(&meta);
                self.databases[position].file.refresh_schema()?;
                if !planted(Bug::CatchUpSkipped) {
                    self.catch_up(position, &meta.applied, meta.applied_epoch > epoch, now)?;
                }
                self.note_file(position, meta.epoch)?;
            }
            _ => {
                crate::sometimes!("recover: the file is older than the log, or another one");
                self.alert(format!(
                    "the file of database {name} is older than the log or another one (a backup was put back?): rows the \
                     log knows are written back, rows it does not know are taken as new"
                ));
                self.databases[position].file.enroll()?;
                self.databases[position].file.schema_seen()?;
                let epoch = self.databases[position].file.fence()?;
                self.restore_from_log(position, now)?;
                self.all_scanned(position)?;
                self.note_file(position, epoch)?;
            }
        }
        self.databases[position].ready = true;
        self.adopt_schema(position, now)?;
        self.capture(position, now)?;
        Ok(())
    }

    /// The file shows more than the log's state knows: evaluates those events again. What the file holds decides what was
    /// shown and what SQLite had refused. `wrote`: rows were applied since, perhaps without any event being new.
    fn catch_up(&mut self, position: usize, applied: &Cut, mut wrote: bool, now: Now) -> Result<(), NodeError> {
        let name = self.schemas[position].database.clone();
        let written = written_since(&self.databases[position].file.drain()?);
        loop {
            let database = &mut self.databases[position];
            let missing = |origin: &crate::model::OriginId| applied.get(origin) > database.cursor.get(origin);
            let mut events = Vec::new();
            if applied.iter().any(|dot| missing(dot.actor)) {
                let limit = super::capture::CHANGES_MAX;
                events = ready_events(&self.log, &name, &database.cursor, Some(applied), limit)?;
            }
            if events.is_empty() && !std::mem::take(&mut wrote) {
                return Ok(());
            }
            crate::sometimes!("recover: an apply is evaluated again");
            let mut cursor = database.cursor.clone();
            let mut write = self.log.write()?;
            let mut evaluator = Evaluator::new(&mut write, &self.ranks, &self.schemas, now.wall_ms);
            for event in &events {
                evaluator.integrate(event)?;
                crdts::CmRDT::apply(&mut cursor, crdts::Dot::new(event.header.origin.id(), event.header.seq));
            }
            evaluator.settle()?;
            let dirty = evaluator.store().dirty(&name)?;
            let mut observed = Vec::new();
            for row in dirty {
                let Some(change) = evaluator.presentation(&row)? else {
                    clean(&mut evaluator, &row)?;
                    continue;
                };
                observed.push((row, change));
            }
            let shown = see(&database.file, observed, &written)?;
            take_over(&mut evaluator, &shown)?;
            clean_equal(&mut evaluator, &name)?;
            note_lag(&mut evaluator, &name, &database.file, &shown)?;
            evaluator.finish()?;
            for event in &events {
                super::apply::note_held(&mut write, &self.schemas[position], event)?;
            }
            let epoch = write.cursor(&name)?.map_or(0, |(_, epoch)| epoch);
            write.put_cursor(&name, &cursor, epoch)?;
            write.commit_relaxed()?;
            self.relaxed = true;
            self.databases[position].cursor = cursor;
        }
    }

    /// The schema that rows can be rebuilt in.
    pub(super) fn schema_text(&self, position: usize) -> Result<String, NodeError> {
        Ok(self.databases[position].file.schema_sql()?.join(SCHEMA_SEPARATOR))
    }

    /// Whether the log notes that a database is enrolled.
    pub(super) fn is_noted(&self, position: usize) -> Result<bool, NodeError> {
        Ok(self.log.read()?.meta(&file_key(&self.databases[position].settings.name))?.is_some())
    }

    /// Notes in the log which file this is and how far it was.
    pub(super) fn note_file(&mut self, position: usize, epoch: u64) -> Result<(), NodeError> {
        let database = &self.databases[position];
        let name = &database.settings.name;
        let mut write = self.log.write()?;
        note_enrolled(&mut write, name, &database.file)?;
        write.put_cursor(name, &database.cursor, epoch)?;
        write.commit_durable()?;
        Ok(())
    }

    /// A peer that holds more of this chain than the log does shows that the data directory went back: begin a new one.
    pub(super) fn notice_own_chain(&mut self, heads: &[Head], now: Now) -> Result<(), NodeError> {
        let own = self.chain.origin();
        let mine = self.heads.get(&own.id()).map_or(0, |head| head.seq);
        if !heads.iter().any(|head| head.origin == own && head.seq > mine) {
            return Ok(());
        }
        crate::sometimes!("recover: a peer holds more of this node's chain");
        self.begin_incarnation(now, "a peer holds")
    }

    /// The file shows events of this chain that the log lacks: the data directory went back, and the file did not.
    fn notice_own_past(&mut self, logged: Option<(OriginId, u64)>, now: Now) -> Result<(), NodeError> {
        let own = self.chain.origin().id();
        let mine = self.heads.get(&own).map_or(0, |head| head.seq);
        if logged.is_none_or(|(origin, seq)| origin != own || seq <= mine) {
            return Ok(());
        }
        crate::sometimes!("recover: the app's file notes a longer chain than the log");
        self.begin_incarnation(now, "the app's file shows")
    }

    /// What is written from now on belongs to another chain, so that no event ever has the number of a lost one.
    fn begin_incarnation(&mut self, now: Now, who: &str) -> Result<(), NodeError> {
        if planted(Bug::OwnPastIgnored) {
            return Ok(());
        }
        let fresh = blake3::derive_key(
            "litemesh 1 next incarnation",
            &[&self.settings.entropy[..], &now.wall_ms.to_be_bytes()].concat(),
        );
        let incarnation = u64::from_be_bytes(fresh[..8].try_into().expect("eight bytes")).max(1);
        let mut write = self.log.write()?;
        write.put_meta(INCARNATION_KEY, bound(&self.settings, incarnation).as_bytes())?;
        write.commit_durable()?;
        self.chain = Chain::new(&self.settings.key_seed, self.membership.cluster().0, incarnation);
        self.rank_origins();
        self.alert(format!(
            "{who} events of this node that its own log lacks: the data directory was restored or copied. They are taken \
             over from the peers that hold them; this node goes on under a new incarnation"
        ));
        Ok(())
    }
}

/// The keys that the app has written since the apply that is evaluated again.
fn written_since(drain: &Drain) -> BTreeSet<(String, Key)> {
    let keys = drain.marks.iter().flat_map(|mark| {
        let old = mark.old_key.clone().map(|key| (mark.table.clone(), key));
        old.into_iter().chain([(mark.table.clone(), mark.key.clone())])
    });
    keys.collect()
}

/// What the file showed of rows after the apply: the new image where it stands, nothing where SQLite had refused it. What
/// the app wrote since has marks: there the apply is taken at its word, and capture finds the difference.
fn see(
    file: &AppFile,
    changes: Vec<(RowId, crate::merge::image::Presentation)>,
    written: &BTreeSet<(String, Key)>,
) -> Result<Vec<(RowId, Option<crate::merge::image::Shown>)>, NodeError> {
    let mut seen = Vec::with_capacity(changes.len());
    for (row, change) in changes {
        let shown = match change.new {
            None => None,
            Some((key, image)) if written.contains(&(change.table.to_string(), key.clone())) => {
                crate::sometimes!("recover: the app wrote since the apply that is evaluated again");
                Some((key, image))
            }
            Some((key, _)) => {
                let images = file.read_rows(&change.table, std::slice::from_ref(&key))?;
                crate::sometimes!(images.first() == Some(&None), "recover: SQLite had refused a row of that apply");
                images.into_iter().next().flatten().map(|image| (key, image))
            }
        };
        seen.push((row, shown));
    }
    Ok(seen)
}

fn open_file(
    settings: DatabaseSettings,
    slot: Option<u32>,
    now: Now,
) -> Result<(Database, crate::model::DatabaseSchema), NodeError> {
    let mut file = AppFile::open(settings.clone())?;
    file.set_slot(slot);
    let schema = file.schema().clone();
    Ok((Database::new(settings, file, now), schema))
}

/// Notes which file a database is, and its schema.
pub(super) fn note_enrolled(write: &mut LogWrite, name: &str, file: &AppFile) -> Result<(), NodeError> {
    write.put_meta(&file_key(name), &file.meta()?.file_id)?;
    write.put_meta(&schema_key(name), file.schema_sql()?.join(SCHEMA_SEPARATOR).as_bytes())?;
    Ok(())
}

/// Under this name the log keeps which file a database is.
fn file_key(database: &str) -> String {
    format!("file:{database}")
}

/// The incarnation, with the machine and the directory it is bound to.
fn bound(settings: &NodeSettings, incarnation: u64) -> String {
    let place = |metadata: &Metadata| format!("{}:{}", metadata.dev(), metadata.ino());
    let made = |metadata: &Metadata| format!("{} {}.{}", place(metadata), metadata.ctime(), metadata.ctime_nsec());
    // What is not there (yet) is told apart from what is.
    let tell = |name: &str, words: &dyn Fn(&Metadata) -> String| {
        std::fs::metadata(settings.data_dir.join(name)).map(|metadata| words(&metadata)).unwrap_or_default()
    };
    // The key is written once: whoever puts a copy in its place, even into the same file, moves its time of change.
    let (directory, log, key) = (tell("", &place), tell(LOG_FILE, &place), tell(KEY_FILE, &made));
    format!("{incarnation}\n{}\n{directory}\n{log}\n{key}", settings.machine_id)
}

/// The incarnation to go on with: a new one where the data directory stands on another machine or in another place, or a
/// copy was put in its place.
fn incarnation(log: &Log, settings: &NodeSettings) -> Result<u64, NodeError> {
    let stored = log.read()?.meta(INCARNATION_KEY)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let known = stored.as_ref().and_then(|text| text.lines().next()?.parse::<u64>().ok());
    if let (Some(known), Some(text)) = (known, &stored)
        && *text == bound(settings, known)
    {
        return Ok(known);
    }
    crate::sometimes!(known.is_some(), "recover: the data directory stands somewhere else");
    let fresh = u64::from_be_bytes(settings.entropy[..8].try_into().expect("eight bytes")).max(1);
    let mut write = log.write()?;
    write.put_meta(INCARNATION_KEY, bound(settings, fresh).as_bytes())?;
    write.commit_durable()?;
    Ok(fresh)
}
