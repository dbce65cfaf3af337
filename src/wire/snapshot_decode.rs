//! A snapshot's bytes to rows. The form is told in [`super::snapshot_rows`].
//!
//! Invariant: total; nothing is allocated by a number that the bytes only claim. Caller: node, by way of
//! [`super::snapshot_rows`].

use std::collections::BTreeMap;

use super::WireError;
use super::snapshot_rows::*;
use super::varint::Stream;
use crate::merge::registers::{Part, Tally, Write};
use crate::merge::store::{Bonds, CellState, Claim, Link, LinkKind, Row, Shelved, Whole};
use crate::model::{Birth, Cell, Cut, Dot, OriginId, Reference, RowId, Stamp, TableSchema, Value};

/// Reads a content row by row.
pub struct Rows<'a> {
    stream: Stream<'a>,
    texts: Stream<'a>,
    origins: Vec<OriginId>,
    references: Vec<(String, String, String)>,
    before: Before,
}

const BAD: WireError = WireError::Malformed { what: "a row of a snapshot" };

impl<'a> Rows<'a> {
    /// The rows in these bytes.
    pub fn new(bytes: &'a [u8]) -> Result<Rows<'a>, WireError> {
        let mut stream = Stream::new(bytes);
        if stream.take(1)? != [VERSION] {
            return Err(BAD);
        }
        let mut origins = Vec::new();
        for _ in 0..stream.below(LIST_MAX, "origins")? {
            origins.push(OriginId(stream.take_16()?));
        }
        let mut references = Vec::new();
        for _ in 0..stream.below(LIST_MAX, "references")? {
            references.push((text(&mut stream)?, text(&mut stream)?, text(&mut stream)?));
        }
        let body = bytes_of(&mut stream)?;
        Ok(Rows { stream: Stream::new(body), texts: stream, origins, references, before: Before::default() })
    }

    /// The next row; `None` at the end.
    pub fn next(&mut self, layout: &Layout<'_>) -> Result<Option<SnapshotRow>, WireError> {
        if self.stream.is_empty() {
            return Ok(None);
        }
        let flags = self.stream.varint()?;
        let id = self.place()?;
        let mut row = Row::new(layout.table);
        row.alive = flags & ALIVE != 0;
        row.granted = flags & UNGRANTED == 0;
        match own_dot(&id).filter(|_| flags & OWN_BIRTH != 0) {
            Some(dot) => row.births.push((dot, self.stamp()?)),
            None => {
                for _ in 0..self.count()? {
                    row.births.push(self.author()?);
                }
            }
        }
        let birth = row.births.first().copied();
        self.claim(&mut row, flags)?;
        row.cells = self.cells(birth.filter(|_| flags & BORN_CELLS != 0))?;
        row.touched = match birth.filter(|_| flags & TOUCHED_BY_BIRTH != 0) {
            Some((dot, _)) => Cut { dots: BTreeMap::from([(dot.origin, dot.seq)]) },
            None => self.cut()?,
        };
        if flags & UNIQUE != 0 {
            for _ in 0..self.count()? {
                row.unique.push(self.stream.take_16()?);
            }
        }
        if flags & RARE != 0 {
            self.rare(&mut row)?;
        }
        let image = match layout.schema.filter(|_| flags & IMAGE != 0) {
            Some(schema) => Some(self.image(layout, schema, &row)?),
            None if flags & IMAGE != 0 => return Err(BAD),
            None => None,
        };
        Ok(Some((id, row, image)))
    }

    fn place(&mut self) -> Result<RowId, WireError> {
        match self.stream.take(1)? {
            [0] => Ok(RowId::Genesis(self.stream.take_16()?)),
            [1] => {
                let origin = self.origin()?;
                let seq = self.before.seq.wrapping_add(self.stream.zigzag()? as u64);
                let index = self.before.index.wrapping_add(self.stream.zigzag()? as u64);
                (self.before.seq, self.before.index) = (seq, index);
                Ok(RowId::Born(Birth { origin, seq, index: u32::try_from(index).map_err(|_| BAD)? }))
            }
            [2] => Ok(RowId::Keyed(self.stream.take_16()?)),
            _ => Err(BAD),
        }
    }

    fn claim(&mut self, row: &mut Row, flags: u64) -> Result<(), WireError> {
        if flags & (CLAIM | CLAIM_FULL) != 0 {
            let id = self.before.claim.wrapping_add(self.stream.zigzag()?);
            self.before.claim = id;
            row.claim = Some(match row.births.first().filter(|_| flags & CLAIM_FULL == 0) {
                Some((dot, _)) => Claim { id, after: None, depth: 0, dot: *dot },
                None if flags & CLAIM_FULL == 0 => return Err(BAD),
                None => {
                    let after = if self.flag()? { Some(self.row_id()?) } else { None };
                    Claim { id, after, depth: self.stream.number()?, dot: self.dot()? }
                }
            });
        }
        row.id = match flags & (ID_IS_CLAIM | ID) {
            ID_IS_CLAIM => row.claim.map(|claim| claim.id),
            ID => Some(self.stream.zigzag()?),
            0 => None,
            _ => return Err(BAD),
        };
        Ok(())
    }

    fn cells(&mut self, birth: Option<(Dot, Stamp)>) -> Result<Vec<CellState>, WireError> {
        let mut cells: Vec<CellState> = Vec::new();
        for at in 0..self.count()? {
            let (column, born, (dot, stamp)) = match birth {
                Some(birth) => (at as u64, true, birth),
                None => {
                    let word = self.stream.varint()?;
                    (word >> 1, word & 1 == 1, self.author()?)
                }
            };
            let column = u16::try_from(column).map_err(|_| BAD)?;
            if cells.last().is_some_and(|last| last.column >= column) {
                return Err(BAD);
            }
            cells.push(CellState { column, cell: self.cell()?, stamp, dot, born, tally: None });
        }
        Ok(cells)
    }

    fn image(&mut self, layout: &Layout<'_>, schema: &TableSchema, row: &Row) -> Result<Vec<Value>, WireError> {
        let mut image = Vec::with_capacity(schema.columns.len());
        for position in 0..schema.columns.len() {
            image.push(layout.expected(schema, row, position).into_value());
        }
        for _ in 0..self.count()? {
            let position = self.stream.below(image.len(), "a column of a snapshot's row")?;
            image[position] = self.value()?;
        }
        Ok(image)
    }

    fn rare(&mut self, row: &mut Row) -> Result<(), WireError> {
        let rare = self.stream.varint()?;
        if rare & COVERED != 0 {
            row.covered = self.cut()?;
        }
        if rare & DELETES != 0 {
            row.deletes = self.cut()?;
        }
        if rare & DELETED != 0 {
            row.deleted = Some(self.author()?);
        }
        if rare & SHELVED != 0 {
            row.shelved = Some(self.shelved()?);
        }
        if rare & BONDS != 0 {
            row.bonds = Some(Box::new(self.bonds()?));
        }
        if rare & OVERLAY != 0 {
            for _ in 0..self.count()? {
                row.overlay.push((self.column()?, self.value()?));
            }
        }
        if rare & WHOLE != 0 {
            let message = text(&mut self.stream)?;
            row.whole = Some(Box::new(Whole { cells: self.cells(None)?, message }));
        }
        if rare & UPDATES != 0 {
            for _ in 0..self.count()? {
                row.updates.push((self.column()?, self.cut()?));
            }
        }
        if rare & LOOSENED != 0 {
            for _ in 0..self.count()? {
                let column = self.column()?;
                row.loosened.push(column);
            }
        }
        if rare & TALLIES != 0 {
            self.tallies(row)?;
        }
        Ok(())
    }

    fn shelved(&mut self) -> Result<Shelved, WireError> {
        match self.stream.take(1)? {
            [0] => Ok(Shelved::Unique { index: text(&mut self.stream)?, holder: self.row_id()? }),
            [1] => Ok(Shelved::Parent { parent: self.row_id()? }),
            [2] => Ok(Shelved::Refused { message: text(&mut self.stream)? }),
            _ => Err(BAD),
        }
    }

    fn bonds(&mut self) -> Result<Bonds, WireError> {
        let mut bonds = Bonds::default();
        for _ in 0..self.count()? {
            let word = self.stream.take(1)?[0];
            let kind = if word & 1 == 1 { LinkKind::Split } else { LinkKind::Merge };
            let other = self.row_id()?;
            let mut columns = Vec::new();
            for _ in 0..self.count()? {
                columns.push(self.column()?);
            }
            bonds.links.push(Link { kind, other, columns, dot: self.dot()?, void: word & 2 == 2 });
        }
        for _ in 0..self.count()? {
            let member = self.row_id()?;
            bonds.members.push(member);
        }
        if self.flag()? {
            bonds.key = Some(self.stream.take_16()?);
        }
        Ok(bonds)
    }

    fn tallies(&mut self, row: &mut Row) -> Result<(), WireError> {
        for _ in 0..self.count()? {
            let column = self.column()?;
            let mut tally = Tally::default();
            for _ in 0..self.count()? {
                tally.parts.push(self.part()?);
            }
            let at = row.cells.binary_search_by_key(&column, |state| state.column).map_err(|_| BAD)?;
            row.cells[at].tally = Some(Box::new(tally));
        }
        Ok(())
    }

    fn part(&mut self) -> Result<Part, WireError> {
        let mut known = Vec::new();
        for _ in 0..self.count()? {
            known.push(self.dot()?);
        }
        let member = self.column()?;
        let last = self.write()?;
        let mut writes = [None, None, None, None];
        for write in &mut writes {
            *write = if self.flag()? { Some(self.write()?) } else { None };
        }
        let [greatest, least, number, list] = writes;
        let mut steps = Vec::new();
        for _ in 0..self.count()? {
            let dot = self.dot()?;
            steps.push((dot.origin, (dot.seq, dot.index), i128::from_be_bytes(self.stream.take_16()?)));
        }
        let mut edits = BTreeMap::new();
        for _ in 0..self.count()? {
            let element = bytes_of(&mut self.stream)?.to_vec();
            let (dot, stamp) = self.author()?;
            edits.insert(element, (stamp, dot, self.flag()?));
        }
        Ok(Part { known, member, last, greatest, least, number, list, steps, edits })
    }

    fn write(&mut self) -> Result<Write, WireError> {
        let cell = self.cell()?;
        let (dot, stamp) = self.author()?;
        Ok(Write { cell, stamp, dot, born: self.flag()? })
    }

    fn count(&mut self) -> Result<usize, WireError> {
        self.stream.below(LIST_MAX, "a list in a snapshot")
    }

    fn column(&mut self) -> Result<u16, WireError> {
        u16::try_from(self.stream.varint()?).map_err(|_| BAD)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.stream.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(BAD),
        }
    }

    fn origin(&mut self) -> Result<OriginId, WireError> {
        let at = self.stream.below(self.origins.len(), "an origin of a snapshot")?;
        Ok(self.origins[at])
    }

    fn stamp(&mut self) -> Result<Stamp, WireError> {
        self.before.stamp = self.before.stamp.wrapping_add(self.stream.zigzag()? as u64);
        Ok(Stamp(self.before.stamp))
    }

    fn dot(&mut self) -> Result<Dot, WireError> {
        Ok(Dot { origin: self.origin()?, seq: self.stream.varint()?, index: self.stream.number()? })
    }

    fn author(&mut self) -> Result<(Dot, Stamp), WireError> {
        Ok((self.dot()?, self.stamp()?))
    }

    fn cut(&mut self) -> Result<Cut, WireError> {
        let mut cut = Cut::default();
        for _ in 0..self.count()? {
            cut.dots.insert(self.origin()?, self.stream.varint()?);
        }
        Ok(cut)
    }

    fn row_id(&mut self) -> Result<RowId, WireError> {
        match self.stream.take(1)? {
            [0] => Ok(RowId::Genesis(self.stream.take_16()?)),
            [1] => {
                let Dot { origin, seq, index } = self.dot()?;
                Ok(RowId::Born(Birth { origin, seq, index }))
            }
            [2] => Ok(RowId::Keyed(self.stream.take_16()?)),
            _ => Err(BAD),
        }
    }

    fn cell(&mut self) -> Result<Cell, WireError> {
        let word = self.stream.varint()?;
        if word & 7 != 5 {
            return self.value_of(word).map(Cell::Plain);
        }
        let names = usize::try_from(word >> 3).ok().and_then(|at| self.references.get(at)).cloned();
        let (database, table, column) = names.ok_or(BAD)?;
        Ok(Cell::Ref(Reference { database, table, row: self.row_id()?, column }))
    }

    fn value(&mut self) -> Result<Value, WireError> {
        let word = self.stream.varint()?;
        self.value_of(word)
    }

    fn value_of(&mut self, word: u64) -> Result<Value, WireError> {
        let signed = |zigzag: u64| (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let length = usize::try_from(word >> 3).map_err(|_| BAD);
        match word & 7 {
            0 if word == 0 => Ok(Value::Null),
            1 => Ok(Value::Integer(signed(word >> 3))),
            2 if word == 2 => Ok(Value::Real(self.stream.fixed64()?)),
            3 => Ok(Value::Text(self.texts.take(length?)?.to_vec())),
            4 => Ok(Value::Blob(self.texts.take(length?)?.to_vec())),
            6 if word == 6 => Ok(Value::Integer(self.stream.zigzag()?)),
            _ => Err(BAD),
        }
    }
}

fn bytes_of<'a>(stream: &mut Stream<'a>) -> Result<&'a [u8], WireError> {
    let length = stream.below(usize::MAX, "a length")?;
    stream.take(length)
}

fn text(stream: &mut Stream<'_>) -> Result<String, WireError> {
    String::from_utf8(bytes_of(stream)?.to_vec()).map_err(|_| BAD)
}
