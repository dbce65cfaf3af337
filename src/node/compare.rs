//! Comparisons: do other members' files show the same rows as this one's?
//!
//! Every hello carries a print of all content. With equal **stands** (heads, members, all applied) the prints must be equal:
//! the state is a function of the events. If they are not, the node with the lesser id descends to the rows that differ
//! ([`crate::reconcile`]) and tells the other; both evaluate these rows again ([`super::reevaluate`]). What is left after that
//! is an alarm: a bug, or two versions that evaluate differently.
//!
//! States of a peer: unknown → equal ⇄ differs → comparing → differs, with the rows. Of a session: see
//! [`crate::reconcile::descent`]; it waits while the stands differ, goes on after a cut, and is given up after
//! [`PATIENCE_MS`] without progress.
//! Invariants: nothing is named that was not compared at equal stands; one session and one waiting question per peer; a
//! step reads at most about [`READ_PER_STEP`] rows; all of it is lost in a crash and begins anew, nothing else depends on it.
//! Callers: `node` (steps and messages), http (by way of the getters).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::compare_view::{DIFFERENCES_SHOWN, Difference, Outcome, State};
use super::{Effect, Node, NodeError, Now, standing};
use crate::log::{LogRead, Printed};
use crate::merge::store::TableId;
use crate::model::{NodeId, RowId};
use crate::reconcile::print::print_16;
use crate::reconcile::{Answer, Block, Descent, Found, Side, answer};
use crate::wire::compare::{Compare, Compared, ComparedTable, Differences};
use crate::wire::limits::COMPARED_ROWS_MAX;
use crate::wire::message::{Message, digest_of};

/// Rows and sums read in one step, about: some 10 ms.
const READ_PER_STEP: usize = 4_000;

/// A question without an answer is asked again after this, ms; longer each time.
const ANSWER_WAIT_MS: u64 = 2_000;
const MISSES_MAX: u32 = 6;

/// While the stands differ, a session looks again after this, ms.
const STAND_WAIT_MS: u64 = 100;

/// A session without progress for so long is given up, ms.
const PATIENCE_MS: u64 = 120_000;

/// Between two sessions with one peer, ms: doubled while nothing changes, up to the second.
const PAUSE_MS: (u64, u64) = (2_000, 600_000);

/// What is known of the peers' content, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    sessions: BTreeMap<NodeId, Session>,
    /// The newest question of each peer.
    questions: BTreeMap<NodeId, Compare>,
    pub(super) outcomes: BTreeMap<NodeId, Outcome>,
    /// Peers that a person wants compared now.
    wanted: BTreeSet<NodeId>,
    /// A hello came, or content moved.
    pub(super) look: bool,
    /// Rows to be evaluated again.
    pub(super) rows: VecDeque<RowId>,
    /// Tables whose kept sums are to be checked against their rows.
    pub(super) sums: VecDeque<TableId>,
    /// Peers that are to hear of the content after that.
    pub(super) told: BTreeSet<NodeId>,
    numbers: u64,
}

#[derive(Debug)]
struct Session {
    descent: Descent,
    tables: Vec<ComparedTable>,
    unlike: BTreeSet<u32>,
    number: u64,
    /// Where both stood when the question was asked.
    stand: u64,
    due_ms: u64,
    misses: u32,
    began_ms: u64,
    progress_ms: u64,
    bytes: (u64, u64),
}

impl Comparisons {
    /// When a step is wanted next.
    pub(super) fn deadline_ms(&self, now: Now) -> Option<u64> {
        if self.look || !self.questions.is_empty() || !self.rows.is_empty() || !self.sums.is_empty() {
            return Some(now.mono_ms);
        }
        let due = |session: &Session| if session.descent.is_working() { now.mono_ms } else { session.due_ms };
        self.sessions.values().map(due).min()
    }

    /// A connection is gone: its session goes on with the next one.
    pub(super) fn disconnected(&mut self, peer: &NodeId) {
        self.questions.remove(peer);
        if let Some(session) = self.sessions.get_mut(peer) {
            session.descent.again();
        }
    }

    /// Notes that a person wants to know.
    pub(super) fn want(&mut self, peers: impl Iterator<Item = NodeId>) {
        self.wanted.extend(peers);
        self.look = true;
    }
}

impl Node {
    /// A hash over the prints of all replicated tables, while the files show all that the log holds.
    pub(super) fn content(&self) -> Result<Option<[u8; 16]>, NodeError> {
        if !self.applied_all() || self.fault.is_some() || self.databases.iter().any(|database| !database.ready) {
            return Ok(None);
        }
        let read = self.log.read()?;
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 2 content");
        let mut order: Vec<usize> = (0..self.schemas.len()).collect();
        order.sort_by(|a, b| self.schemas[*a].database.cmp(&self.schemas[*b].database));
        for position in order {
            let schema = &self.schemas[position];
            hasher.update(&(schema.database.len() as u64).to_be_bytes());
            hasher.update(schema.database.as_bytes());
            hasher.update(&schema.fingerprint);
            let mut tables: Vec<&str> = schema.tables.iter().map(|table| table.name.as_str()).collect();
            tables.sort_unstable();
            for table in tables {
                let root = match read.find_table(&schema.database, table)? {
                    Some(id) => read.table_root(id)?,
                    None => Default::default(),
                };
                hasher.update(&print_16(&root));
            }
        }
        Ok(Some(crate::model::identity::first_16(&hasher)))
    }

    /// Computes what the next hello says of the content.
    pub(super) fn refresh_content(&mut self) -> Result<(), NodeError> {
        let content = self.content()?;
        self.compare.look |= content != self.exchange.content;
        self.exchange.content = content;
        Ok(())
    }

    /// Where this node stands: nodes that stand at one place must show the same rows.
    fn stand(&self) -> u64 {
        stand_of(digest_of(&self.heads), self.membership.digest())
    }

    /// Takes a question; the next step answers it.
    pub(super) fn take_question(&mut self, from: NodeId, question: Compare) -> Result<(), NodeError> {
        let known: BTreeSet<u32> = question.tables.iter().map(|table| table.number).collect();
        if question.blocks.iter().any(|block| !known.contains(&block.table)) || known.len() < question.tables.len() {
            return Err(NodeError::PeerFault { reason: "a comparison of tables that it does not name".into() });
        }
        self.compare.questions.insert(from, question);
        Ok(())
    }

    /// Takes an answer.
    pub(super) fn take_answer(&mut self, from: NodeId, compared: Compared, now: Now) -> Result<(), NodeError> {
        let Some(session) = self.compare.sessions.get_mut(&from) else { return Ok(()) };
        if compared.number != session.number || !session.descent.is_waiting() {
            return Ok(());
        }
        session.due_ms = now.mono_ms;
        if !compared.unlike.is_empty() {
            session.unlike.extend(&compared.unlike);
            session.progress_ms = now.mono_ms;
            session.descent.leave_out(&session.unlike);
        } else if compared.stand != session.stand {
            session.descent.again();
            session.due_ms = now.mono_ms + STAND_WAIT_MS;
        } else {
            session.progress_ms = now.mono_ms;
            session.misses = 0;
            let heard = session.descent.hear(Answer { answered: compared.answered, blocks: compared.blocks });
            heard.map_err(|error| NodeError::PeerFault { reason: error.to_string() })?;
        }
        Ok(())
    }

    /// Takes what a peer found.
    pub(super) fn take_differences(&mut self, from: NodeId, said: &Differences, now: Now) -> Result<(), NodeError> {
        if said.stand != self.stand() {
            return Ok(());
        }
        let swapped = |found: &Found| Found {
            side: match found.side {
                Side::OnlyHere => Side::OnlyThere,
                Side::OnlyThere => Side::OnlyHere,
                Side::Differs => Side::Differs,
            },
            ..*found
        };
        let found: Vec<Found> = said.rows.iter().map(swapped).collect();
        let named: BTreeSet<u32> = found.iter().map(|found| found.table).collect();
        let unlike = said.tables.iter().filter(|table| !named.contains(&table.number));
        let outcome = self.compare.outcomes.entry(from).or_default();
        outcome.unlike = unlike.map(|table| (table.database.clone(), table.table.clone())).collect();
        outcome.complete = true;
        self.note_differences(from, &said.tables, &found, said.count, now)
    }

    /// Everything about comparisons that is due.
    pub(super) fn compare_step(&mut self, now: Now) -> Result<(), NodeError> {
        self.reevaluate_step(now)?;
        self.answer_one()?;
        if std::mem::take(&mut self.compare.look) {
            self.refresh_content()?;
            self.compare.look = false;
            self.look_at_peers(now);
        }
        let open: Vec<NodeId> = self.compare.sessions.keys().copied().collect();
        for peer in open {
            self.drive(peer, now)?;
        }
        Ok(())
    }

    /// Asks one connected peer, or all, for what their content is now, and compares.
    pub(super) fn compare_now(&mut self, peer: Option<NodeId>, now: Now) -> Result<(), NodeError> {
        self.refresh_content()?;
        let mut wanted = Vec::new();
        for (id, known) in
            self.exchange.peers.iter_mut().filter(|(id, known)| known.connected && peer.is_none_or(|only| only == **id))
        {
            known.content = None;
            wanted.push(*id);
        }
        self.compare.want(wanted.into_iter());
        let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
        let effects = self.exchange.greet(peer, &standing);
        self.effects.extend(effects);
        Ok(())
    }

    fn answer_one(&mut self) -> Result<(), NodeError> {
        let Some((from, question)) = self.compare.questions.pop_first() else { return Ok(()) };
        let stand = if self.content()?.is_some() { self.stand() } else { !question.stand };
        let mut answered = Compared { stand, number: question.number, ..Compared::default() };
        if stand == question.stand {
            let read = self.log.read()?;
            let (tables, unlike) = self.own_tables(&read, &question.tables);
            answered.unlike = unlike;
            if answered.unlike.is_empty() {
                let place: BTreeMap<u32, u32> =
                    question.tables.iter().enumerate().map(|(at, table)| (table.number, at as u32)).collect();
                let renumbered = |block: &Block| Block { table: place[&block.table], ..block.clone() };
                let blocks: Vec<Block> = question.blocks.iter().map(renumbered).collect();
                let said = answer(&Printed { read: &read, tables: &tables }, &blocks, READ_PER_STEP)?;
                let number = |block: Block| Block { table: question.tables[block.table as usize].number, ..block };
                answered.answered = said.answered;
                answered.blocks = said.blocks.into_iter().map(number).collect();
            }
        }
        let frame = Message::Compared(answered).encode();
        self.effects.push_back(Effect::Send { peer: from, frame });
        Ok(())
    }

    /// This node's numbers of tables, and the numbers of those that it has not, or otherwise.
    fn own_tables(&self, read: &LogRead, tables: &[ComparedTable]) -> (Vec<Option<TableId>>, Vec<u32>) {
        let mut unlike = Vec::new();
        let own = tables.iter().map(|named| {
            let schema = self.schemas.iter().find(|schema| schema.database == named.database);
            let table = schema.filter(|schema| schema.fingerprint == named.schema);
            if table.and_then(|schema| schema.table(&named.table)).is_none() {
                unlike.push(named.number);
            }
            read.find_table(&named.database, &named.table).ok().flatten()
        });
        (own.collect(), unlike)
    }

    /// Holds this node's content against what the peers said of theirs.
    fn look_at_peers(&mut self, now: Now) {
        let (stand, mine, own_id) = (self.stand(), self.exchange.content, self.id());
        let Some(mine) = mine else { return };
        let connected: Vec<NodeId> =
            self.exchange.peers.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| *id).collect();
        for id in connected {
            let said = self.exchange.peers.get(&id).and_then(|peer| peer.content);
            let Some((heads, members, theirs)) = said else { continue };
            if stand_of(heads, members) != stand {
                continue;
            }
            if theirs == mine {
                crate::sometimes!("compare: two nodes know that their content is equal");
                self.compare.wanted.remove(&id);
                self.compare.sessions.remove(&id);
                self.note_equal(id, now);
                continue;
            }
            let wanted = self.compare.wanted.remove(&id);
            let outcome = self.compare.outcomes.entry(id).or_default();
            outcome.turn(State::Differs, now);
            let due = now.mono_ms >= outcome.next_ms;
            if !self.compare.sessions.contains_key(&id) && (wanted || due && own_id < id) {
                outcome.complete = false;
                outcome.pause_ms = (outcome.pause_ms * 2).clamp(PAUSE_MS.0, PAUSE_MS.1);
                let session = self.session(now);
                self.compare.sessions.insert(id, session);
            }
        }
    }

    fn session(&self, now: Now) -> Session {
        let mut tables = Vec::new();
        for schema in &self.schemas {
            for table in &schema.tables {
                let (database, table) = (schema.database.clone(), table.name.clone());
                tables.push(ComparedTable { number: tables.len() as u32, database, table, schema: schema.fingerprint });
            }
        }
        Session {
            descent: Descent::new(tables.len()),
            tables,
            unlike: BTreeSet::new(),
            number: 0,
            stand: 0,
            due_ms: now.mono_ms,
            misses: 0,
            began_ms: now.mono_ms,
            progress_ms: now.mono_ms,
            bytes: (0, 0),
        }
    }

    /// One step of a session.
    fn drive(&mut self, peer: NodeId, now: Now) -> Result<(), NodeError> {
        let Some(mut session) = self.compare.sessions.remove(&peer) else { return Ok(()) };
        let stand = self.stand();
        if session.descent.is_waiting() && now.mono_ms >= session.due_ms {
            session.misses += 1;
            session.descent.again();
        }
        if session.descent.is_working() {
            if session.stand == stand && self.content()?.is_some() {
                let read = self.log.read()?;
                let (tables, _) = self.own_tables(&read, &session.tables);
                session.descent.work(&Printed { read: &read, tables: &tables }, READ_PER_STEP)?;
            } else {
                session.descent.again();
            }
        }
        if session.descent.is_done() || session.descent.is_cut_off() {
            return self.finish(peer, session, now);
        }
        if now.mono_ms > session.progress_ms + PATIENCE_MS || session.misses > MISSES_MAX {
            tracing::info!(%peer, "a comparison is given up: no answer");
            return Ok(());
        }
        if !session.descent.is_waiting() && !session.descent.is_working() {
            self.ask(peer, &mut session, stand, now)?;
        }
        self.compare.sessions.insert(peer, session);
        Ok(())
    }

    /// Asks the next question, if both stand at one place.
    fn ask(&mut self, peer: NodeId, session: &mut Session, stand: u64, now: Now) -> Result<(), NodeError> {
        session.due_ms = now.mono_ms + STAND_WAIT_MS;
        let known = self.exchange.peers.get(&peer).filter(|peer| peer.connected).and_then(|peer| peer.content);
        let together = known.is_some_and(|(heads, members, _)| stand_of(heads, members) == stand);
        if !together || self.content()?.is_none() {
            return Ok(());
        }
        let read = self.log.read()?;
        let (tables, _) = self.own_tables(&read, &session.tables);
        let question = session.descent.ask(&Printed { read: &read, tables: &tables }, READ_PER_STEP)?;
        let Some(blocks) = question else { return Ok(()) };
        let named: BTreeSet<u32> = blocks.iter().map(|block| block.table).collect();
        self.compare.numbers += 1;
        let compare = Compare {
            stand,
            number: self.compare.numbers,
            tables: named.iter().filter_map(|at| session.tables.get(*at as usize)).cloned().collect(),
            blocks,
        };
        session.number = compare.number;
        session.stand = stand;
        session.due_ms = now.mono_ms + (ANSWER_WAIT_MS << session.misses.min(4));
        let frame = Message::Compare(compare).encode();
        session.bytes.0 += frame.len() as u64;
        self.effects.push_back(Effect::Send { peer, frame });
        Ok(())
    }

    /// Counts a frame of a comparison.
    pub(super) fn count_compared(&mut self, from: &NodeId, bytes: usize) {
        if let Some(session) = self.compare.sessions.get_mut(from) {
            session.bytes.1 += bytes as u64;
        }
    }

    fn finish(&mut self, peer: NodeId, session: Session, now: Now) -> Result<(), NodeError> {
        let found: Vec<Found> = session.descent.found().collect();
        let unlike = |number: &u32| {
            session.tables.get(*number as usize).map(|table| (table.database.clone(), table.table.clone()))
        };
        let outcome = self.compare.outcomes.entry(peer).or_default();
        outcome.rounds = session.descent.rounds();
        outcome.bytes = session.bytes;
        outcome.took_ms = now.mono_ms.saturating_sub(session.began_ms);
        outcome.complete = !session.descent.is_cut_off();
        outcome.unlike = session.unlike.iter().filter_map(unlike).collect();
        let rows: Vec<Found> = found.iter().take(COMPARED_ROWS_MAX).copied().collect();
        // A table that no row names is one that could not be compared.
        let named: BTreeSet<u32> = rows.iter().map(|found| found.table).chain(session.unlike.iter().copied()).collect();
        let tables = named.iter().filter_map(|at| session.tables.get(*at as usize)).cloned().collect();
        let told = Differences { stand: self.stand(), count: found.len() as u64, tables, rows };
        self.note_differences(peer, &session.tables, &found, found.len() as u64, now)?;
        self.effects.push_back(Effect::Send { peer, frame: Message::Differences(told).encode() });
        Ok(())
    }

    /// Rows differ from a peer's at one stand: they are noted, and evaluated again.
    fn note_differences(
        &mut self,
        peer: NodeId,
        tables: &[ComparedTable],
        found: &[Found],
        count: u64,
        now: Now,
    ) -> Result<(), NodeError> {
        let names: BTreeMap<u32, &ComparedTable> = tables.iter().map(|table| (table.number, table)).collect();
        let difference = |found: &Found| {
            let table = names.get(&found.table)?;
            let (database, table) = (table.database.clone(), table.table.clone());
            Some(Difference { database, table, row: found.row, side: found.side })
        };
        let outcome = self.compare.outcomes.entry(peer).or_default();
        let state = if count == 0 && !outcome.unlike.is_empty() { State::Unlike } else { State::Found };
        let again = outcome.state == state && outcome.count == count;
        outcome.turn(state, now);
        outcome.count = count;
        outcome.rows = found.iter().filter_map(difference).take(DIFFERENCES_SHOWN).collect();
        if !again {
            outcome.pause_ms = PAUSE_MS.0;
        }
        outcome.next_ms = now.mono_ms + outcome.pause_ms;
        if state == State::Found && count == 0 {
            // Every row is equal, the sums over them are not: somebody's are kept wrong.
            let read = self.log.read()?;
            let own = self.schemas.iter().flat_map(|schema| read.tables_of(&schema.database));
            self.compare.sums = own.collect();
        }
        if self.compare.rows.is_empty() {
            self.compare.rows.extend(found.iter().map(|found| found.row));
        }
        self.compare.told.insert(peer);
        self.tell_differences(peer);
        Ok(())
    }

    fn note_equal(&mut self, peer: NodeId, now: Now) {
        let outcome = self.compare.outcomes.entry(peer).or_default();
        outcome.turn(State::Equal, now);
        outcome.count = 0;
        outcome.rows.clear();
        outcome.pause_ms = 0;
        let told = std::mem::take(&mut outcome.alert);
        if !told.is_empty() {
            tracing::info!(%peer, "content is equal again");
            self.alerts.retain(|alert| *alert != told);
        }
    }

    /// One alert per peer, with what is known now.
    fn tell_differences(&mut self, peer: NodeId) {
        let name = self.membership.member(&peer).map_or_else(|| peer.to_string(), |member| member.name.clone());
        let Some(outcome) = self.compare.outcomes.get_mut(&peer) else { return };
        let before = std::mem::take(&mut outcome.alert);
        outcome.alert = outcome.words(&name);
        let alert = outcome.alert.clone();
        self.alerts.retain(|told| *told != before);
        if !alert.is_empty() {
            self.alert(alert);
        }
    }
}

fn stand_of(heads: u64, members: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 2 stand");
    hasher.update(&heads.to_be_bytes());
    hasher.update(&members.to_be_bytes());
    hasher.finalize().as_bytes()[..8].iter().fold(0, |stand, byte| stand << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
