//! Rows to a snapshot's bytes. The form is told in [`super::snapshot_rows`].
//!
//! Invariant: equal rows, equal bytes. Caller: node, by way of [`super::snapshot_rows`].

use std::collections::BTreeMap;

use super::snapshot_rows::*;
use super::varint;
use crate::merge::registers::{Part, Write};
use crate::merge::store::{Bonds, CellState, Claim, LinkKind, Row, Shelved};
use crate::model::{Cell, Cut, Dot, OriginId, RowId, Stamp, TableSchema, Value};

/// Builds a content.
#[derive(Default)]
pub struct Content {
    origins: Vec<OriginId>,
    origin_numbers: BTreeMap<OriginId, u64>,
    references: Vec<(String, String, String)>,
    body: Vec<u8>,
    /// The bytes of all texts and blobs, on their own: numbers between them would cost a fifth of what packing saves.
    texts: Vec<u8>,
    before: Before,
}

impl Content {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.body.len() + self.texts.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The content's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = vec![VERSION];
        varint::write(self.origins.len() as u64, &mut out);
        self.origins.iter().for_each(|origin| out.extend_from_slice(&origin.0));
        varint::write(self.references.len() as u64, &mut out);
        for (database, table, column) in &self.references {
            [database, table, column].into_iter().for_each(|name| put_bytes(name.as_bytes(), &mut out));
        }
        put_bytes(&self.body, &mut out);
        out.extend_from_slice(&self.texts);
        out
    }

    /// Adds a row.
    pub fn push(&mut self, layout: &Layout<'_>, id: &RowId, row: &Row, image: Option<&[Value]>) {
        self.put_row(id, row, image.is_some());
        if let (Some(image), Some(schema)) = (image, layout.schema) {
            self.put_image(layout, schema, row, image);
        }
    }

    /// Adds a visible row of which the record alone tells what the file shows.
    pub fn push_plain(&mut self, id: &RowId, row: &Row) {
        self.put_row(id, row, true);
        self.body.push(0);
    }

    fn put_row(&mut self, id: &RowId, row: &Row, shown: bool) {
        let own = own_dot(id);
        let birth = row.births.first().copied();
        let mut flags = 0;
        let mut set = |flag: u64, when: bool| flags |= if when { flag } else { 0 };
        let rare = rare_of(row);
        set(ALIVE, row.alive);
        set(IMAGE, shown);
        set(OWN_BIRTH, row.births.len() == 1 && own.is_some() && birth.map(|(dot, _)| dot) == own);
        let plain =
            |claim: &Claim| claim.after.is_none() && claim.depth == 0 && birth.is_some_and(|(dot, _)| dot == claim.dot);
        set(CLAIM, row.claim.as_ref().is_some_and(plain));
        set(CLAIM_FULL, row.claim.as_ref().is_some_and(|claim| !plain(claim)));
        let same = row.id.is_some() && row.id == row.claim.map(|claim| claim.id);
        set(ID_IS_CLAIM, same);
        set(ID, row.id.is_some() && !same);
        set(BORN_CELLS, birth.is_some_and(|birth| all_born(row, birth)));
        set(TOUCHED_BY_BIRTH, birth.is_some_and(|(dot, _)| is_one(&row.touched, dot)));
        set(UNGRANTED, !row.granted);
        set(UNIQUE, !row.unique.is_empty());
        set(RARE, rare != 0);
        varint::write(flags, &mut self.body);
        self.put_place(id);
        match (flags & OWN_BIRTH != 0, birth) {
            (true, Some((_, stamp))) => self.put_stamp(stamp),
            _ => {
                varint::write(row.births.len() as u64, &mut self.body);
                row.births.iter().for_each(|birth| self.put_author(*birth));
            }
        }
        self.put_claim(row, flags);
        self.put_cells(&row.cells, flags & BORN_CELLS != 0);
        if flags & TOUCHED_BY_BIRTH == 0 {
            self.put_cut(&row.touched);
        }
        if flags & UNIQUE != 0 {
            varint::write(row.unique.len() as u64, &mut self.body);
            row.unique.iter().for_each(|key| self.body.extend_from_slice(key));
        }
        if rare != 0 {
            self.put_rare(row, rare);
        }
    }

    fn put_place(&mut self, id: &RowId) {
        match id {
            RowId::Genesis(hash) => {
                self.body.push(0);
                self.body.extend_from_slice(hash);
            }
            RowId::Born(birth) => {
                self.body.push(1);
                let origin = self.origin(birth.origin);
                varint::write(origin, &mut self.body);
                varint::write_zigzag(birth.seq.wrapping_sub(self.before.seq) as i64, &mut self.body);
                let index = u64::from(birth.index);
                varint::write_zigzag(index.wrapping_sub(self.before.index) as i64, &mut self.body);
                (self.before.seq, self.before.index) = (birth.seq, index);
            }
            RowId::Keyed(hash) => {
                self.body.push(2);
                self.body.extend_from_slice(hash);
            }
        }
    }

    fn put_claim(&mut self, row: &Row, flags: u64) {
        if let Some(claim) = &row.claim {
            varint::write_zigzag(claim.id.wrapping_sub(self.before.claim), &mut self.body);
            self.before.claim = claim.id;
            if flags & CLAIM_FULL != 0 {
                self.body.push(u8::from(claim.after.is_some()));
                if let Some(after) = &claim.after {
                    self.put_row_id(after);
                }
                varint::write(u64::from(claim.depth), &mut self.body);
                self.put_dot(claim.dot);
            }
        }
        if flags & ID != 0 {
            varint::write_zigzag(row.id.unwrap_or_default(), &mut self.body);
        }
    }

    /// `born`: numbered from 0 without a gap, all written by the row's birth.
    fn put_cells(&mut self, cells: &[CellState], born: bool) {
        varint::write(cells.len() as u64, &mut self.body);
        for state in cells {
            if !born {
                varint::write(u64::from(state.column) << 1 | u64::from(state.born), &mut self.body);
                self.put_author((state.dot, state.stamp));
            }
            self.put_cell(&state.cell);
        }
    }

    fn put_image(&mut self, layout: &Layout<'_>, schema: &TableSchema, row: &Row, image: &[Value]) {
        let differs = |(position, value): &(usize, &Value)| !layout.expected(schema, row, *position).is(value);
        let count = image.iter().enumerate().filter(differs).count();
        varint::write(count as u64, &mut self.body);
        if count > 0 {
            for (position, value) in image.iter().enumerate().filter(differs) {
                varint::write(position as u64, &mut self.body);
                self.put_value(value);
            }
        }
    }

    fn put_rare(&mut self, row: &Row, rare: u64) {
        varint::write(rare, &mut self.body);
        if rare & COVERED != 0 {
            self.put_cut(&row.covered);
        }
        if rare & DELETES != 0 {
            self.put_cut(&row.deletes);
        }
        if let Some(deleted) = row.deleted {
            self.put_author(deleted);
        }
        if let Some(shelved) = &row.shelved {
            self.put_shelved(shelved);
        }
        if let Some(bonds) = &row.bonds {
            self.put_bonds(bonds);
        }
        if rare & OVERLAY != 0 {
            varint::write(row.overlay.len() as u64, &mut self.body);
            for (column, value) in &row.overlay {
                varint::write(u64::from(*column), &mut self.body);
                self.put_value(value);
            }
        }
        if let Some(whole) = &row.whole {
            put_bytes(whole.message.as_bytes(), &mut self.body);
            self.put_cells(&whole.cells, false);
        }
        if rare & UPDATES != 0 {
            varint::write(row.updates.len() as u64, &mut self.body);
            for (column, cut) in &row.updates {
                varint::write(u64::from(*column), &mut self.body);
                self.put_cut(cut);
            }
        }
        if rare & LOOSENED != 0 {
            varint::write(row.loosened.len() as u64, &mut self.body);
            row.loosened.iter().for_each(|column| varint::write(u64::from(*column), &mut self.body));
        }
        if rare & TALLIES != 0 {
            self.put_tallies(row);
        }
    }

    fn put_shelved(&mut self, shelved: &Shelved) {
        match shelved {
            Shelved::Unique { index, holder } => {
                self.body.push(0);
                put_bytes(index.as_bytes(), &mut self.body);
                self.put_row_id(holder);
            }
            Shelved::Parent { parent } => {
                self.body.push(1);
                self.put_row_id(parent);
            }
            Shelved::Refused { message } => {
                self.body.push(2);
                put_bytes(message.as_bytes(), &mut self.body);
            }
        }
    }

    fn put_bonds(&mut self, bonds: &Bonds) {
        varint::write(bonds.links.len() as u64, &mut self.body);
        for link in &bonds.links {
            let split = link.kind == LinkKind::Split;
            self.body.push(u8::from(split) | u8::from(link.void) << 1);
            self.put_row_id(&link.other);
            varint::write(link.columns.len() as u64, &mut self.body);
            link.columns.iter().for_each(|column| varint::write(u64::from(*column), &mut self.body));
            self.put_dot(link.dot);
        }
        varint::write(bonds.members.len() as u64, &mut self.body);
        bonds.members.iter().for_each(|member| self.put_row_id(member));
        self.body.push(u8::from(bonds.key.is_some()));
        self.body.extend_from_slice(bonds.key.as_ref().map_or(&[][..], |key| key));
    }

    fn put_tallies(&mut self, row: &Row) {
        let held = row.cells.iter().filter_map(|state| Some((state.column, state.tally.as_deref()?)));
        varint::write(held.clone().count() as u64, &mut self.body);
        for (column, tally) in held {
            varint::write(u64::from(column), &mut self.body);
            varint::write(tally.parts.len() as u64, &mut self.body);
            tally.parts.iter().for_each(|part| self.put_part(part));
        }
    }

    fn put_part(&mut self, part: &Part) {
        varint::write(part.known.len() as u64, &mut self.body);
        part.known.iter().for_each(|dot| self.put_dot(*dot));
        varint::write(u64::from(part.member), &mut self.body);
        self.put_write(&part.last);
        for write in [&part.greatest, &part.least, &part.number, &part.list] {
            self.body.push(u8::from(write.is_some()));
            if let Some(write) = write {
                self.put_write(write);
            }
        }
        varint::write(part.steps.len() as u64, &mut self.body);
        for (origin, (seq, index), sum) in &part.steps {
            self.put_dot(Dot { origin: *origin, seq: *seq, index: *index });
            self.body.extend_from_slice(&sum.to_be_bytes());
        }
        varint::write(part.edits.len() as u64, &mut self.body);
        for (element, (stamp, dot, there)) in &part.edits {
            put_bytes(element, &mut self.body);
            self.put_author((*dot, *stamp));
            self.body.push(u8::from(*there));
        }
    }

    fn put_write(&mut self, write: &Write) {
        self.put_cell(&write.cell);
        self.put_author((write.dot, write.stamp));
        self.body.push(u8::from(write.born));
    }

    fn origin(&mut self, origin: OriginId) -> u64 {
        let origins = &mut self.origins;
        *self.origin_numbers.entry(origin).or_insert_with(|| {
            origins.push(origin);
            origins.len() as u64 - 1
        })
    }

    fn put_stamp(&mut self, stamp: Stamp) {
        varint::write_zigzag(stamp.0.wrapping_sub(self.before.stamp) as i64, &mut self.body);
        self.before.stamp = stamp.0;
    }

    fn put_dot(&mut self, dot: Dot) {
        let origin = self.origin(dot.origin);
        varint::write(origin, &mut self.body);
        varint::write(dot.seq, &mut self.body);
        varint::write(u64::from(dot.index), &mut self.body);
    }

    fn put_author(&mut self, (dot, stamp): (Dot, Stamp)) {
        self.put_dot(dot);
        self.put_stamp(stamp);
    }

    fn put_cut(&mut self, cut: &Cut) {
        varint::write(cut.dots.len() as u64, &mut self.body);
        for (origin, seq) in &cut.dots {
            let origin = self.origin(*origin);
            varint::write(origin, &mut self.body);
            varint::write(*seq, &mut self.body);
        }
    }

    fn put_row_id(&mut self, id: &RowId) {
        match id {
            RowId::Genesis(hash) => {
                self.body.push(0);
                self.body.extend_from_slice(hash);
            }
            RowId::Born(birth) => {
                self.body.push(1);
                self.put_dot(birth.dot());
            }
            RowId::Keyed(hash) => {
                self.body.push(2);
                self.body.extend_from_slice(hash);
            }
        }
    }

    fn put_value(&mut self, value: &Value) {
        let out = &mut self.body;
        match value {
            Value::Null => out.push(0),
            Value::Integer(number) => {
                let zigzag = ((number << 1) ^ (number >> 63)) as u64;
                match zigzag >> 60 {
                    0 => varint::write(zigzag << 3 | 1, out),
                    _ => {
                        out.push(6);
                        varint::write(zigzag, out);
                    }
                }
            }
            Value::Real(bits) => {
                out.push(2);
                out.extend_from_slice(&bits.to_le_bytes());
            }
            Value::Text(bytes) => {
                varint::write((bytes.len() as u64) << 3 | 3, out);
                self.texts.extend_from_slice(bytes);
            }
            Value::Blob(bytes) => {
                varint::write((bytes.len() as u64) << 3 | 4, out);
                self.texts.extend_from_slice(bytes);
            }
        }
    }

    fn put_cell(&mut self, cell: &Cell) {
        match cell {
            Cell::Plain(value) => self.put_value(value),
            Cell::Ref(reference) => {
                let names = (reference.database.clone(), reference.table.clone(), reference.column.clone());
                let known = self.references.iter().position(|known| *known == names);
                let number = known.unwrap_or_else(|| {
                    self.references.push(names);
                    self.references.len() - 1
                });
                varint::write((number as u64) << 3 | 5, &mut self.body);
                self.put_row_id(&reference.row);
            }
            // What a record holds has no difference; if one came here, what the author's file showed is what counts.
            Cell::Step { .. } | Cell::Edit(_) => self.put_cell(&cell.without_difference()),
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::write(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn all_born(row: &Row, (dot, stamp): (Dot, Stamp)) -> bool {
    let mut cells = row.cells.iter().enumerate();
    cells.all(|(at, state)| {
        state.column as usize == at && state.born && state.dot == dot && state.stamp == stamp && state.tally.is_none()
    })
}

fn is_one(cut: &Cut, dot: Dot) -> bool {
    cut.dots.len() == 1 && cut.get(&dot.origin) == dot.seq
}

fn rare_of(row: &Row) -> u64 {
    let flags = [
        (COVERED, !row.covered.dots.is_empty()),
        (DELETES, !row.deletes.dots.is_empty()),
        (DELETED, row.deleted.is_some()),
        (SHELVED, row.shelved.is_some()),
        (BONDS, row.bonds.is_some()),
        (OVERLAY, !row.overlay.is_empty()),
        (WHOLE, row.whole.is_some()),
        (UPDATES, !row.updates.is_empty()),
        (LOOSENED, !row.loosened.is_empty()),
        (TALLIES, row.cells.iter().any(|state| state.tally.is_some())),
    ];
    flags.iter().filter(|(_, there)| *there).map(|(flag, _)| flag).sum()
}
