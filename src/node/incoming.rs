//! What peers send: messages become state of the exchange, events become the log's.
//!
//! Invariants: an event is stored in the transaction that moves its head, durable before anything is told of it; nothing
//! is applied here, the next steps do that. Callers: [`super::Node::handle`] by way of `receive`; bundles (appending).

use super::exchange::Accepted;
use super::{Effect, Node, NodeError, Now, standing};
use crate::log::{LogWrite, Tails};
use crate::model::{Bug, Head, Heads, NodeId, planted};
use crate::wire::message::{Announcement, Message};

impl Node {
    pub(super) fn handle_message(&mut self, from: NodeId, message: Message, now: Now) -> Result<(), NodeError> {
        match message {
            Message::Hello(hello) => {
                self.learn_members(hello.members.clone())?;
                self.notice_own_chain(&hello.heads, now)?;
                self.refresh_content()?;
                self.compare.look |= hello.content.is_some();
                self.offer_snapshot()?;
                self.consider_snapshot(from, hello.snapshot_rows, now)?;
                let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
                let effects = self.exchange.handle_hello(from, &hello, &standing);
                self.effects.extend(effects);
                if let Some(heads) = self.exchange.stated(&from) {
                    self.receipts.heard(from, heads, now);
                }
                self.correct_clock();
            }
            // Answered by the next tick, in turn with what others asked.
            Message::Pull(pull) => self.exchange.take_pull(from, pull),
            Message::Compare(question) => self.take_question(from, question)?,
            Message::Compared(compared) => self.take_answer(from, compared, now)?,
            Message::Differences(said) => self.take_differences(from, &said, now)?,
            Message::Unknown(_) => self.exchange.skipped(from),
            Message::Snapshot(message) => self.handle_snapshot(from, message, now)?,
            Message::Events(events) => {
                self.mend_events(from, &events, now)?;
                self.take_for_repair(from, &events, now)?;
                if !events.heads.is_empty() {
                    let heads = events.heads.iter().map(|head| (head.origin.id(), *head)).collect();
                    self.receipts.heard(from, &heads, now);
                }
                let standing = standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
                let (accepted, forks) = self.exchange.receive(from, events, &standing)?;
                forks.into_iter().for_each(|(origin, seq)| self.alert_fork(origin, seq));
                self.append_remote(from, &accepted, now)?;
                let standing =
                    super::standing(&self.log, &self.heads, &self.membership, &self.settings, &self.databases, now);
                let effects = self.exchange.pull(&standing);
                self.effects.extend(effects);
            }
        }
        Ok(())
    }

    /// Stores events that passed all checks; they are applied by the next steps.
    pub(super) fn append_remote(&mut self, from: NodeId, accepted: &[Accepted], now: Now) -> Result<(), NodeError> {
        if accepted.is_empty() {
            return Ok(());
        }
        let mut write = self.log.write()?;
        let (mut heads, mut tails) = (self.heads.clone(), self.exchange.tails.clone());
        for one in accepted {
            append_to(&mut write, one, &mut heads, &mut tails)?;
            self.clock.absorb(one.event.header.stamp, now.wall_ms);
        }
        if tails != self.exchange.tails {
            write.put_tails(&tails)?;
        }
        write.put_clock(self.clock.last())?;
        write.commit_durable()?;
        self.relaxed = false;
        let news: Vec<Head> =
            heads.iter().filter(|(id, head)| self.heads.get(*id) != Some(*head)).map(|(_, head)| *head).collect();
        self.heads = heads;
        self.exchange.tails = tails;
        self.rank_origins();
        for one in accepted {
            let name = &one.event.header.database;
            for database in self.databases.iter_mut().filter(|database| database.settings.name == *name) {
                database.behind = true;
            }
        }
        self.exchange.peer_holds(accepted);
        for one in accepted {
            let header = &one.event.header;
            self.note_taken(one.from, header.origin.node, (header.origin.id(), header.seq));
        }
        // What its author sent, the author announces to whom it could not send it: with twelve servers, eleven more
        // announcements of one row would cost several times the row.
        let by_author = |head: &Head| {
            let mut own = accepted.iter().filter(|one| one.event.header.origin == head.origin);
            own.any(|one| one.from == head.origin.node)
        };
        let relayed: Vec<Head> = news.into_iter().filter(|head| !by_author(head)).collect();
        if self.exchange.somebody_lacks(&relayed, from) {
            self.effects.push_back(Effect::Announce { frame: Announcement { heads: relayed, more: false }.encode() });
        }
        Ok(())
    }

    pub(super) fn handle_announcement(&mut self, frame: &[u8]) {
        if let Ok(announcement) = Announcement::decode(frame) {
            self.exchange.announced(&announcement.heads, announcement.more, &self.heads);
            if planted(Bug::AnnouncementTrusted) {
                self.heads.extend(announcement.heads.iter().map(|head| (head.origin.id(), *head)));
            }
        }
    }
}

/// Appends a peer's event to its origin's history, or behind the base of one that has not come.
fn append_to(write: &mut LogWrite, one: &Accepted, heads: &mut Heads, tails: &mut Tails) -> Result<(), NodeError> {
    let header = &one.event.header;
    let id = header.origin.id();
    let history = heads.get(&id).map_or(0, |head| head.seq);
    let tail = tails.get_mut(&id).filter(|tail| tail.is_open(history));
    if let Some(tail) = tail {
        if header.seq > tail.base.seq {
            write.append_tail(tail, &one.event, &one.bytes, (one.hash, one.signature))?;
            return Ok(());
        }
        let closes = (header.seq, one.hash) == (tail.base.seq, tail.base.hash);
        write.append(&one.event, &one.bytes, one.hash, one.signature)?;
        heads.insert(id, Head { origin: header.origin, seq: header.seq, hash: one.hash });
        if closes {
            write.join_tail(tail);
            heads.insert(id, tail.last);
        }
        return Ok(());
    }
    write.append(&one.event, &one.bytes, one.hash, one.signature)?;
    heads.insert(id, Head { origin: header.origin, seq: header.seq, hash: one.hash });
    Ok(())
}
