//! Messages of a comparison: questions, answers, and what was found.
//!
//! Blocks are packed into one field each, byte by byte, because there are thousands of small ones in a message; layout at
//! [`write_block`], and in `proto/README.md`. Invariant: decoding never panics, allocates by what is there and never by a
//! number in it. Whether an answer fits its question is looked at by [`crate::reconcile`]. Caller: [`super::message`].

use super::limits::*;
use super::member::fixed;
use super::message::MessageError;
use super::{proto, varint};
use crate::model::RowId;
use crate::reconcile::{Block, Found, Prefix, Side, View};

/// Asks what differs below blocks of tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// Where the asker stands: equal only with equal heads and members, all applied.
    pub stand: u64,
    /// Repeated by the answer.
    pub number: u64,
    /// The tables that blocks name by number.
    pub tables: Vec<ComparedTable>,
    /// The blocks, as the asker sees them.
    pub blocks: Vec<Block>,
}

/// A table of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedTable {
    /// Its number.
    pub number: u32,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Fingerprint of the database's schema: only equal ones are compared.
    pub schema: [u8; 16],
}

/// Answers a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Where the answerer stands; another stand than the question's: nothing was compared.
    pub stand: u64,
    /// Number of the question.
    pub number: u64,
    /// Blocks of the question that were looked at.
    pub answered: u32,
    /// What differs below them.
    pub blocks: Vec<Block>,
    /// Tables of the question that the answerer lacks, or has with another schema.
    pub unlike: Vec<u32>,
}

/// What a comparison found, told to the side that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Where both stood.
    pub stand: u64,
    /// Rows found in all; only the first are named.
    pub count: u64,
    /// The tables that rows name by number; those that no row names could not be compared.
    pub tables: Vec<ComparedTable>,
    /// The rows; the side is the asker's.
    pub rows: Vec<Found>,
}

impl ComparedTable {
    fn to_proto(&self) -> proto::ComparedTable {
        proto::ComparedTable {
            number: self.number,
            database: self.database.clone(),
            table: self.table.clone(),
            schema: self.schema.to_vec(),
        }
    }

    fn all_from_proto(tables: Vec<proto::ComparedTable>) -> Result<Vec<ComparedTable>, MessageError> {
        if tables.len() > COMPARED_TABLES_MAX {
            return Err(MessageError::TooLarge("tables"));
        }
        let from = |table: proto::ComparedTable| {
            if table.database.len() > IDENTIFIER_BYTES_MAX || table.table.len() > IDENTIFIER_BYTES_MAX {
                return Err(MessageError::TooLarge("name of a table"));
            }
            let schema = fixed(&table.schema, "schema")?;
            Ok(ComparedTable { number: table.number, database: table.database, table: table.table, schema })
        };
        tables.into_iter().map(from).collect()
    }
}

impl Compare {
    pub(super) fn to_proto(&self) -> proto::Compare {
        proto::Compare {
            stand: self.stand,
            number: self.number,
            tables: self.tables.iter().map(ComparedTable::to_proto).collect(),
            blocks: write_blocks(&self.blocks),
        }
    }

    pub(super) fn from_proto(compare: proto::Compare) -> Result<Compare, MessageError> {
        let (stand, number) = (compare.stand, compare.number);
        let tables = ComparedTable::all_from_proto(compare.tables)?;
        Ok(Compare { stand, number, tables, blocks: read_blocks(&compare.blocks)? })
    }
}

impl Compared {
    pub(super) fn to_proto(&self) -> proto::Compared {
        proto::Compared {
            stand: self.stand,
            number: self.number,
            answered: self.answered,
            blocks: write_blocks(&self.blocks),
            unlike: self.unlike.clone(),
        }
    }

    pub(super) fn from_proto(compared: proto::Compared) -> Result<Compared, MessageError> {
        if compared.unlike.len() > COMPARED_TABLES_MAX {
            return Err(MessageError::TooLarge("tables"));
        }
        Ok(Compared {
            stand: compared.stand,
            number: compared.number,
            answered: compared.answered,
            blocks: read_blocks(&compared.blocks)?,
            unlike: compared.unlike,
        })
    }
}

impl Differences {
    pub(super) fn to_proto(&self) -> proto::Differences {
        let mut rows = Vec::new();
        for found in &self.rows {
            varint::write(found.table.into(), &mut rows);
            rows.push(found.side as u8);
            write_key(&found.row, 0, &mut rows);
        }
        let tables = self.tables.iter().map(ComparedTable::to_proto).collect();
        proto::Differences { stand: self.stand, count: self.count, tables, rows }
    }

    pub(super) fn from_proto(differences: proto::Differences) -> Result<Differences, MessageError> {
        let mut bytes = Reader(&differences.rows);
        let mut rows = Vec::new();
        while !bytes.0.is_empty() {
            if rows.len() >= COMPARED_ROWS_MAX {
                return Err(MessageError::TooLarge("rows"));
            }
            let table = bytes.number()?;
            let side = match bytes.byte()? {
                0 => Side::OnlyHere,
                1 => Side::OnlyThere,
                2 => Side::Differs,
                _ => return Err(MALFORMED),
            };
            rows.push(Found { table, row: bytes.key(&Prefix::ALL)?, side });
        }
        let tables = ComparedTable::all_from_proto(differences.tables)?;
        Ok(Differences { stand: differences.stand, count: differences.count, tables, rows })
    }
}

const MALFORMED: MessageError = MessageError::Malformed("blocks");

const PRINT: u8 = 0;
const CHILDREN: u8 = 1;
const ROWS: u8 = 2;
const MORE: u8 = 4;
const AFTER: u8 = 8;

fn write_blocks(blocks: &[Block]) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), Prefix::ALL);
    for block in blocks {
        write_block(block, &last, &mut out);
        last = block.prefix;
    }
    out
}

/// A block: table (varint) · nibbles shared with the block before (1 byte) · the others (see [`write_nibbles`]) · flags: what
/// follows (0 print, 1 children, 2 rows), 4 more rows follow, 8 only rows behind one · that row's key · then
/// - print: 8 bytes;
/// - children: the nibbles from the block to where its rows part · 16 bits, one per child · 8 bytes for each that is there;
/// - rows: number (varint) · for each its key without the bytes that the block fixes, and 8 bytes.
///
/// Numbers are little-endian; a key is a length (1 byte) and the bytes without the zeros at its end.
fn write_block(block: &Block, last: &Prefix, out: &mut Vec<u8>) {
    varint::write(block.table.into(), out);
    let shared = block.prefix.shared(last);
    out.push(shared);
    write_nibbles(&block.prefix, shared, out);
    let kind = match &block.view {
        View::Print(_) => PRINT,
        View::Children { .. } => CHILDREN,
        View::Rows { more, .. } => ROWS | if *more { MORE } else { 0 },
    };
    out.push(kind | if block.after.is_some() { AFTER } else { 0 });
    if let Some(after) = &block.after {
        write_key(after, 0, out);
    }
    match &block.view {
        View::Print(print) => out.extend(print.to_le_bytes()),
        View::Children { at, prints } => {
            write_nibbles(at, block.prefix.len(), out);
            let there = prints.iter().fold(0u16, |there, (nibble, _)| there | 1 << (nibble & 0xf));
            out.extend(there.to_le_bytes());
            prints.iter().for_each(|(_, print)| out.extend(print.to_le_bytes()));
        }
        View::Rows { rows, .. } => {
            varint::write(rows.len() as u64, out);
            for (row, print) in rows {
                write_key(row, usize::from(block.prefix.len() / 2), out);
                out.extend(print.to_le_bytes());
            }
        }
    }
}

/// The nibbles of a prefix behind the first `from`: how many (1 byte), two in a byte.
fn write_nibbles(prefix: &Prefix, from: u8, out: &mut Vec<u8>) {
    let count = prefix.len() - from;
    out.push(count);
    let nibble = |at: u8| if at < count { prefix.nibble(from + at) } else { 0 };
    out.extend((0..count).step_by(2).map(|at| nibble(at) << 4 | nibble(at + 1)));
}

fn write_key(row: &RowId, skipped: usize, out: &mut Vec<u8>) {
    let key = row.to_bytes();
    let end = key.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).max(skipped);
    out.push((end - skipped) as u8);
    out.extend(&key[skipped..end]);
}

fn read_blocks(bytes: &[u8]) -> Result<Vec<Block>, MessageError> {
    if bytes.len() > COMPARE_BYTES_MAX {
        return Err(MessageError::TooLarge("blocks"));
    }
    let (mut bytes, mut blocks, mut last) = (Reader(bytes), Vec::new(), Prefix::ALL);
    while !bytes.0.is_empty() {
        if blocks.len() >= COMPARED_BLOCKS_MAX {
            return Err(MessageError::TooLarge("number of blocks"));
        }
        let block = bytes.block(&last)?;
        last = block.prefix;
        blocks.push(block);
    }
    Ok(blocks)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<u32, MessageError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| MALFORMED);
            }
        }
        Err(MALFORMED)
    }

    fn print(&mut self) -> Result<u64, MessageError> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |print, byte| print << 8 | u64::from(*byte)))
    }

    fn prefix(&mut self, begin: &Prefix) -> Result<Prefix, MessageError> {
        let count = self.byte()?;
        if usize::from(begin.len()) + usize::from(count) > usize::from(crate::reconcile::prefix::NIBBLES) {
            return Err(MALFORMED);
        }
        let packed = self.take(usize::from(count).div_ceil(2))?;
        let nibble = |at: u8| {
            let byte = packed[usize::from(at / 2)];
            if at.is_multiple_of(2) { byte >> 4 } else { byte & 0xf }
        };
        Ok((0..count).fold(*begin, |prefix, at| prefix.child(nibble(at))))
    }

    fn key(&mut self, block: &Prefix) -> Result<RowId, MessageError> {
        let skipped = usize::from(block.len() / 2);
        let count = usize::from(self.byte()?);
        let mut key = *block.bytes();
        if skipped + count > key.len() {
            return Err(MALFORMED);
        }
        key[skipped..].fill(0);
        key[skipped..skipped + count].copy_from_slice(self.take(count)?);
        RowId::from_bytes(&key).filter(|row| row.to_bytes() == key).ok_or(MALFORMED)
    }

    fn block(&mut self, last: &Prefix) -> Result<Block, MessageError> {
        let table = self.number()?;
        let shared = self.byte()?;
        if shared > last.len() {
            return Err(MALFORMED);
        }
        let prefix = self.prefix(&last.cut(shared))?;
        let flags = self.byte()?;
        let after = if flags & AFTER != 0 { Some(self.key(&Prefix::ALL)?) } else { None };
        let view = match flags & !(AFTER | MORE) {
            PRINT => View::Print(self.print()?),
            CHILDREN => {
                let at = self.prefix(&prefix)?;
                let there = u16::from_le_bytes([self.byte()?, self.byte()?]);
                let mut prints = Vec::with_capacity(there.count_ones() as usize);
                for nibble in (0..16).filter(|nibble| there >> nibble & 1 == 1) {
                    prints.push((nibble, self.print()?));
                }
                View::Children { at, prints }
            }
            ROWS => {
                let count = self.number()? as usize;
                // A row takes nine bytes at least.
                if count > self.0.len() / 9 {
                    return Err(MALFORMED);
                }
                let mut rows = Vec::with_capacity(count);
                for _ in 0..count {
                    rows.push((self.key(&prefix)?, self.print()?));
                }
                View::Rows { rows, more: flags & MORE != 0 }
            }
            _ => return Err(MALFORMED),
        };
        Ok(Block { table, prefix, after, view })
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
