//! The descent: from tables whose prints differ to the rows that do.
//!
//! A **question** is a block with the asker's **view** of it: the prints of its children, or its rows where they are few. The
//! **answer** names the children that are another thing on the other side, each with the view from there; what it does not
//! name is equal. So a round trip goes down two levels. Chains of blocks with one child are skipped (`Children::at`).
//!
//! States of a session: open places (a stack: deep before wide, so that it stays small) → asked → answered, to be looked at
//! ([`Descent::work`]) → rows found, and more open places. Done when nothing is open, asked or unread.
//! Invariants: a place is only ever replaced by longer ones, so the descent ends; what was found was compared row by row.
//! Failure cases: a lost question or answer, or one side moved on ([`Descent::again`]: the same places are asked anew); an
//! answer about what was not asked is a fault, nothing of it is taken. Caller: node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::prefix::{NIBBLES, Prefix};
use super::print::{Print, add, print, single};
use crate::merge::store::Fingerprint;
use crate::model::RowId;

/// A block of so few rows is told by its rows.
const ROWS_FEW: usize = 2;
/// Rows listed in one block of an answer.
const ROWS_PER_BLOCK: usize = 512;
/// Bytes of questions or answers in one message, about.
pub const MESSAGE_BYTES: usize = 128 << 10;
/// Questions in the first message; more when they are answered at once.
const QUESTIONS_FIRST: usize = 32;
const QUESTIONS_MAX: usize = 1024;
/// Rows that one session finds; then it ends, and says that there are more.
pub const FOUND_MAX: usize = 1 << 17;
/// Open places of one session.
const OPEN_MAX: usize = 1 << 16;
/// Round trips of one session.
const ROUNDS_MAX: u32 = 100_000;

/// One side's rows. Tables are numbered by the session.
pub trait Tree {
    /// What reading reports.
    type Error;
    /// The sum of all rows of a table.
    fn root(&self, table: usize) -> Result<Fingerprint, Self::Error>;
    /// The sums of the parts of a block, in ascending order: all its rows, each in one part; a part is a kept block or one row,
    /// and longer than the block. None: the block is empty.
    fn parts(&self, table: usize, block: &Prefix) -> Result<Vec<(Prefix, Fingerprint)>, Self::Error>;
    /// At most `limit` rows of a block with their items, ascending, behind `after`.
    fn rows(
        &self,
        table: usize,
        block: &Prefix,
        after: Option<RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, [u8; 32])>, Self::Error>;
}

/// What one side says of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Its print.
    Print(Print),
    /// The prints of its children: all its rows lie below `at`, which is as long as the block or longer.
    Children {
        /// Where its rows part.
        at: Prefix,
        /// (next nibble, print), ascending.
        prints: Vec<(u8, Print)>,
    },
    /// Its rows with their prints, ascending; none: it is empty.
    Rows {
        /// The rows.
        rows: Vec<(RowId, Print)>,
        /// There are others behind the last one.
        more: bool,
    },
}

/// A block as one side sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of the table in the session.
    pub table: u32,
    /// The block.
    pub prefix: Prefix,
    /// Only its rows behind this one.
    pub after: Option<RowId>,
    /// What is said of it.
    pub view: View,
}

/// Blocks as the asker sees them.
pub type Question = Vec<Block>;

/// What the other side says to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How many of the blocks asked about were looked at; the others are to be asked about again.
    pub answered: u32,
    /// What differs within them.
    pub blocks: Vec<Block>,
}

/// Where a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Only the asker shows it.
    OnlyHere,
    /// Only the other side shows it.
    OnlyThere,
    /// Both show it, with other contents.
    Differs,
}

/// A row that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Number of the table in the session.
    pub table: u32,
    /// The row.
    pub row: RowId,
    /// Where it differs.
    pub side: Side,
}

/// An answer that says what was not asked. Nothing of it was taken over; the sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer to a comparison that was not asked for")]
pub struct NotAsked;

/// A block that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    table: u32,
    prefix: Prefix,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Compare the prints first.
    Print,
    /// Compare what is below.
    Below,
    /// This side has none of it: list what is behind this row.
    List(Option<RowId>),
}

/// One comparison, at the side that asks.
#[derive(Debug)]
pub struct Descent {
    open: Vec<Open>,
    asked: Vec<Open>,
    unread: VecDeque<Block>,
    found: BTreeMap<(u32, RowId), Side>,
    window: usize,
    rounds: u32,
    cut_off: bool,
}

impl Descent {
    /// A comparison of so many tables.
    pub fn new(tables: usize) -> Descent {
        let open = |table| Open { table: table as u32, prefix: Prefix::ALL, how: How::Print };
        Descent {
            open: (0..tables).rev().map(open).collect(),
            asked: Vec::new(),
            unread: VecDeque::new(),
            found: BTreeMap::new(),
            // All tables at once: most are equal.
            window: tables.clamp(QUESTIONS_FIRST, QUESTIONS_MAX),
            rounds: 0,
            cut_off: false,
        }
    }

    /// Whether an answer is awaited.
    pub fn is_waiting(&self) -> bool {
        !self.asked.is_empty() && self.unread.is_empty()
    }

    /// Whether something heard is to be looked at.
    pub fn is_working(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether nothing is left to ask, to hear or to look at.
    pub fn is_done(&self) -> bool {
        self.open.is_empty() && self.asked.is_empty() && self.unread.is_empty()
    }

    /// Whether a limit ended it before everything was compared.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Questions asked so far.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The rows found so far, by table and row.
    pub fn found(&self) -> impl ExactSizeIterator<Item = Found> + '_ {
        self.found.iter().map(|(&(table, row), &side)| Found { table, row, side })
    }

    /// The next question; `None` while one is under way, something is unread or all is done. `budget`: parts and rows that
    /// may be read for it, about.
    pub fn ask<T: Tree>(&mut self, tree: &T, budget: usize) -> Result<Option<Question>, T::Error> {
        if !self.asked.is_empty() || self.open.is_empty() {
            return Ok(None);
        }
        let (mut question, mut bytes, mut read) = (Vec::new(), 0, Read { left: budget });
        while bytes < MESSAGE_BYTES && self.asked.len() < self.window && (read.left > 0 || question.is_empty()) {
            let Some(open) = self.open.pop() else { break };
            let (mut after, table) = (None, open.table as usize);
            let view = match open.how {
                How::Print => View::Print(print(&tree.root(table)?)),
                How::Below => Own::of(tree, table, open.prefix, &mut read)?.view(tree, table, &mut read)?,
                How::List(behind) => {
                    after = behind;
                    View::Rows { rows: Vec::new(), more: false }
                }
            };
            bytes += size(&view);
            question.push(Block { table: open.table, prefix: open.prefix, after, view });
            self.asked.push(open);
        }
        self.rounds += 1;
        if self.rounds >= ROUNDS_MAX {
            self.cut_off();
        }
        Ok(Some(question))
    }

    /// The question was lost, or answered at another stand: its blocks are open again.
    pub fn again(&mut self) {
        self.unread.clear();
        self.open.extend(std::mem::take(&mut self.asked).into_iter().rev());
    }

    /// These tables cannot be compared: nothing more is asked of them. What was asked last is asked again without them.
    pub fn leave_out(&mut self, tables: &BTreeSet<u32>) {
        self.again();
        self.open.retain(|open| !tables.contains(&open.table));
    }

    /// Takes the answer to the last question; [`Descent::work`] looks at it.
    pub fn hear(&mut self, answer: Answer) -> Result<(), NotAsked> {
        let answered = answer.answered as usize;
        if answered > self.asked.len() || answered == 0 || !self.unread.is_empty() {
            return Err(NotAsked);
        }
        // What is answered comes in the order of the questions.
        let mut asked = self.asked[..answered].iter().peekable();
        for block in &answer.blocks {
            let within = |open: &Open| open.table == block.table && open.prefix.contains(&block.prefix);
            while asked.next_if(|open| !within(open)).is_some() {}
            if asked.peek().is_none() || !fits(block) || matches!(block.view, View::Print(_)) {
                return Err(NotAsked);
            }
        }
        self.window = match answered == self.asked.len() {
            true => (self.window * 2).min(QUESTIONS_MAX),
            false => (answered + answered / 4).clamp(1, QUESTIONS_MAX),
        };
        let rest: Vec<Open> = self.asked.drain(answered..).rev().collect();
        self.open.extend(rest);
        self.unread = answer.blocks.into();
        if self.unread.is_empty() {
            self.asked.clear();
        }
        Ok(())
    }

    /// Looks at what was heard, until about `budget` parts and rows were read. Must see the rows as they were when the
    /// question was asked; else [`Descent::again`].
    pub fn work<T: Tree>(&mut self, tree: &T, budget: usize) -> Result<(), T::Error> {
        let mut read = Read { left: budget };
        while read.left > 0
            && let Some(block) = self.unread.pop_front()
        {
            self.compare(tree, block, &mut read)?;
            if self.unread.is_empty() {
                self.asked.clear();
            }
        }
        Ok(())
    }

    fn compare<T: Tree>(&mut self, tree: &T, block: Block, read: &mut Read) -> Result<(), T::Error> {
        let (table, prefix) = (block.table as usize, block.prefix);
        match &block.view {
            // Only questions say so.
            View::Print(_) => Ok(()),
            View::Rows { rows, more } => self.compare_rows(tree, &block, rows, *more, read),
            View::Children { at, prints } => {
                let own = Own::of(tree, table, prefix, read)?;
                if own.is_empty() {
                    self.push(block.table, prefix, How::List(None));
                    return Ok(());
                }
                match own.lies(at) {
                    Lies::Elsewhere => {
                        self.only_here(block.table, prefix);
                        self.push(block.table, prefix, How::List(None));
                    }
                    Lies::Above => self.push(block.table, prefix, How::Below),
                    Lies::Within(mine) => {
                        for nibble in 0..16 {
                            let child = at.child(nibble);
                            match (find(&mine, nibble), find(prints, nibble)) {
                                (None, None) => {}
                                (Some(here), Some(there)) if here == there => {}
                                (Some(_), Some(_)) => self.push(block.table, child, How::Below),
                                (Some(_), None) => self.only_here(block.table, child),
                                (None, Some(_)) => self.push(block.table, child, How::List(None)),
                            }
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// One page of one's own rows of a block against the rows there.
    fn compare_rows<T: Tree>(
        &mut self,
        tree: &T,
        block: &Block,
        theirs: &[(RowId, Print)],
        more: bool,
        read: &mut Read,
    ) -> Result<(), T::Error> {
        let through = theirs.last().filter(|_| more).map(|(row, _)| *row);
        let page = tree.rows(block.table as usize, &block.prefix, block.after, ROWS_PER_BLOCK)?;
        read.note(page.len());
        let (mut theirs, mut after, mut beyond) = (theirs.iter().peekable(), block.after, page.len() < ROWS_PER_BLOCK);
        for (row, item) in page {
            beyond |= through.is_some_and(|through| row > through);
            if through.is_some_and(|through| row > through) {
                break;
            }
            after = Some(row);
            while let Some((other, _)) = theirs.next_if(|(other, _)| *other < row) {
                self.note(block.table, *other, Side::OnlyThere);
            }
            match theirs.next_if(|(other, _)| *other == row) {
                Some((_, there)) if *there == print(&single(&item)) => {}
                Some(_) => self.note(block.table, row, Side::Differs),
                None => self.note(block.table, row, Side::OnlyHere),
            }
        }
        if !beyond && !self.cut_off {
            let view = View::Rows { rows: theirs.copied().collect(), more };
            // All of a full page was before the last row there: that one is still among the rest.
            self.unread.push_front(Block { after, view, ..block.clone() });
            return Ok(());
        }
        theirs.for_each(|(other, _)| self.note(block.table, *other, Side::OnlyThere));
        if let Some(through) = through {
            self.push(block.table, block.prefix, How::List(Some(through)));
        }
        Ok(())
    }

    /// The other side has none of a block: its rows here are listed in pages.
    fn only_here(&mut self, table: u32, prefix: Prefix) {
        if !self.cut_off {
            let view = View::Rows { rows: Vec::new(), more: false };
            self.unread.push_front(Block { table, prefix, after: None, view });
        }
    }

    fn note(&mut self, table: u32, row: RowId, side: Side) {
        if self.found.len() >= FOUND_MAX && !self.found.contains_key(&(table, row)) {
            self.cut_off();
        } else {
            self.found.insert((table, row), side);
        }
    }

    fn push(&mut self, table: u32, prefix: Prefix, how: How) {
        if self.open.len() >= OPEN_MAX {
            self.cut_off();
        } else if !self.cut_off {
            self.open.push(Open { table, prefix, how });
        }
    }

    fn cut_off(&mut self) {
        self.cut_off = true;
        self.open.clear();
        self.unread.clear();
    }
}

/// Answers a question from one's own rows, reading about `budget` parts and rows at most (one block in any case).
pub fn answer<T: Tree>(tree: &T, question: &[Block], budget: usize) -> Result<Answer, T::Error> {
    let (mut answer, mut bytes, mut read) = (Answer::default(), 0, Read { left: budget });
    for block in question {
        if bytes >= MESSAGE_BYTES || read.left == 0 {
            break;
        }
        let before = answer.blocks.len();
        if fits(block) {
            answer_block(tree, block, &mut answer.blocks, &mut read)?;
        }
        bytes += answer.blocks[before..].iter().map(|block| size(&block.view)).sum::<usize>();
        answer.answered += 1;
    }
    Ok(answer)
}

fn answer_block<T: Tree>(tree: &T, asked: &Block, out: &mut Vec<Block>, read: &mut Read) -> Result<(), T::Error> {
    let (table, prefix) = (asked.table as usize, asked.prefix);
    let mut say = |prefix, after, view| out.push(Block { table: asked.table, prefix, after, view });
    let below = |own: &Own, read: &mut Read| own.view(tree, table, read);
    match &asked.view {
        View::Print(theirs) => {
            if prefix.is_empty() && print(&tree.root(table)?) == *theirs {
                read.note(1);
                return Ok(());
            }
            let own = Own::of(tree, table, prefix, read)?;
            if prefix.is_empty() || print(&own.sum()) != *theirs {
                say(prefix, None, below(&own, read)?);
            }
        }
        View::Rows { rows: theirs, .. } => {
            let mut page = tree.rows(table, &prefix, asked.after, ROWS_PER_BLOCK + 1)?;
            read.note(page.len());
            let more = page.len() > ROWS_PER_BLOCK;
            page.truncate(ROWS_PER_BLOCK);
            let rows: Vec<(RowId, Print)> = page.iter().map(|(row, item)| (*row, print(&single(item)))).collect();
            if more || rows != *theirs {
                say(prefix, asked.after, View::Rows { rows, more });
            }
        }
        View::Children { at, prints } => {
            let own = Own::of(tree, table, prefix, read)?;
            match own.lies(at) {
                _ if own.is_empty() => say(prefix, None, View::Rows { rows: Vec::new(), more: false }),
                Lies::Above | Lies::Elsewhere => say(prefix, None, below(&own, read)?),
                Lies::Within(mine) => {
                    for nibble in 0..16 {
                        let child = at.child(nibble);
                        match (find(&mine, nibble), find(prints, nibble)) {
                            (None, None) => {}
                            (Some(here), Some(there)) if here == there => {}
                            (Some(_), _) => {
                                let own = Own::of(tree, table, child, read)?;
                                say(child, None, below(&own, read)?);
                            }
                            (None, Some(_)) => say(child, None, View::Rows { rows: Vec::new(), more: false }),
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// What may still be read.
struct Read {
    left: usize,
}

impl Read {
    fn note(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count.max(1));
    }
}

/// One side's rows of a block.
struct Own {
    /// Where they part: all lie below it.
    at: Prefix,
    parts: Vec<(Prefix, Fingerprint)>,
    block: Prefix,
}

/// Where one side's rows lie, seen from where the other's part.
enum Lies {
    /// All below: the prints of the children there.
    Within(Vec<(u8, Print)>),
    /// Some beside.
    Above,
    /// All beside.
    Elsewhere,
}

impl Own {
    fn of<T: Tree>(tree: &T, table: usize, block: Prefix, read: &mut Read) -> Result<Own, T::Error> {
        let mut parts = tree.parts(table, &block)?;
        read.note(parts.len());
        // A kept block alone says nothing of where its rows part.
        while let [(only, _)] = parts.as_slice()
            && only.len() < NIBBLES
        {
            parts = tree.parts(table, &only.clone())?;
            read.note(parts.len());
        }
        let at = match (parts.first(), parts.last()) {
            (Some((first, _)), Some((last, _))) => first.cut(first.shared(last)),
            _ => block,
        };
        Ok(Own { at, parts, block })
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn sum(&self) -> Fingerprint {
        let mut sum = Fingerprint::default();
        self.parts.iter().for_each(|(_, part)| add(&mut sum, part));
        sum
    }

    /// The prints of the children at a place that is no longer than where the rows part.
    fn children(&self, at: &Prefix) -> Vec<(u8, Print)> {
        let mut children: Vec<(u8, Fingerprint)> = Vec::new();
        for (prefix, part) in &self.parts {
            let nibble = prefix.nibble(at.len());
            match children.last_mut().filter(|(last, _)| *last == nibble) {
                Some((_, sum)) => add(sum, part),
                None => children.push((nibble, *part)),
            }
        }
        children.into_iter().map(|(nibble, sum)| (nibble, print(&sum))).collect()
    }

    fn lies(&self, at: &Prefix) -> Lies {
        if at.contains(&self.at) && at.len() < NIBBLES {
            Lies::Within(if at.len() < self.at.len() || self.parts.len() > 1 { self.children(at) } else { Vec::new() })
        } else if self.at.contains(at) {
            Lies::Above
        } else {
            Lies::Elsewhere
        }
    }

    fn view<T: Tree>(&self, tree: &T, table: usize, read: &mut Read) -> Result<View, T::Error> {
        if self.sum().rows <= ROWS_FEW as u64 || self.at.len() >= NIBBLES {
            let rows = tree.rows(table, &self.block, None, ROWS_FEW)?;
            read.note(rows.len());
            let rows = rows.iter().map(|(row, item)| (*row, print(&single(item)))).collect();
            return Ok(View::Rows { rows, more: false });
        }
        Ok(View::Children { at: self.at, prints: self.children(&self.at) })
    }
}

fn find(prints: &[(u8, Print)], nibble: u8) -> Option<Print> {
    prints.iter().find(|(at, _)| *at == nibble).map(|(_, print)| *print)
}

/// Whether what is said of a block is about the block, in order.
fn fits(block: &Block) -> bool {
    match &block.view {
        View::Print(_) => true,
        View::Children { at, prints } => {
            let ascending = prints.windows(2).all(|pair| pair[0].0 < pair[1].0);
            block.prefix.contains(at)
                && at.len() < NIBBLES
                && ascending
                && prints.iter().all(|(nibble, _)| *nibble < 16)
        }
        View::Rows { rows, more } => {
            let ascending = rows.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let within =
                |(row, _): &(RowId, Print)| block.prefix.contains(&Prefix::row(row)) && Some(*row) > block.after;
            ascending && rows.iter().all(within) && (!more || !rows.is_empty())
        }
    }
}

/// Bytes of a block on the wire, about.
fn size(view: &View) -> usize {
    match view {
        View::Print(_) => 16,
        View::Children { prints, .. } => 12 + 8 * prints.len(),
        View::Rows { rows, .. } => 8 + 20 * rows.len(),
    }
}

#[cfg(test)]
#[path = "descent_tests.rs"]
mod tests;
