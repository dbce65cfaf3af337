//! Takes an event apart into the streams of `proto/event.proto`.
//!
//! Invariant: equal events give equal bytes; every dictionary holds exactly what is used, in order of first use.
//! Caller: [`super::event`].

use std::collections::BTreeMap;

use prost::Message;

use super::event_proto;
use super::varint::{write, write_zigzag};
use crate::model::{Cell, Change, Edit, Event, OriginId, Reference, RowId, Stamp, Value};

pub(super) const KIND_INSERT: u64 = 0;
pub(super) const KIND_UPDATE: u64 = 1;
pub(super) const KIND_DELETE: u64 = 2;
pub(super) const KIND_CLAIM: u64 = 3;
pub(super) const KIND_MERGE: u64 = 16;
pub(super) const KIND_SPLIT: u64 = 17;
pub(super) const KIND_RULE: u64 = 18;
/// Added to the kind when the change claims an id.
pub(super) const FORM_ID: u64 = 4;
/// Added to the kind when the claimed id had a holder before.
pub(super) const FORM_AFTER: u64 = 8;

pub(super) const ROW_THIS: u64 = 0;
pub(super) const ROW_GENESIS: u64 = 1;
pub(super) const ROW_KEYED: u64 = 2;
pub(super) const ROW_EVENT: u64 = 3;
/// Added to the origin's position.
pub(super) const ROW_BORN: u64 = 4;

pub(super) const CELL_NULL: u64 = 0;
pub(super) const CELL_INTEGER: u64 = 1;
pub(super) const CELL_REAL: u64 = 2;
pub(super) const CELL_TEXT: u64 = 3;
pub(super) const CELL_BLOB: u64 = 4;
pub(super) const CELL_REF: u64 = 5;
pub(super) const CELL_STEP: u64 = 6;
pub(super) const CELL_EDIT: u64 = 7;

/// The canonical bytes of an event.
pub(super) fn encode(event: &Event) -> Vec<u8> {
    let mut encoder = Encoder::new(event);
    encoder.add_header();
    encoder.add_tables();
    for (index, change) in event.changes.iter().enumerate() {
        encoder.add_change(index as u32, change);
    }
    encoder.out.encode_to_vec()
}

/// The streams under construction and the dictionaries' positions.
struct Encoder<'a> {
    event: &'a Event,
    own: OriginId,
    out: event_proto::Event,
    origins: BTreeMap<OriginId, u64>,
    names: BTreeMap<&'a str, u64>,
    targets: BTreeMap<(&'a str, &'a str, &'a str), u64>,
    shapes: BTreeMap<Vec<u8>, u64>,
    shape: Vec<u8>,
    last_shape: Option<(Vec<u8>, u64)>,
    last_target: Option<(&'a Reference, u64)>,
    last_seq: u64,
    last_id: i64,
}

impl<'a> Encoder<'a> {
    fn new(event: &'a Event) -> Encoder<'a> {
        Encoder {
            event,
            own: event.header.origin.id(),
            out: event_proto::Event::default(),
            origins: BTreeMap::new(),
            names: BTreeMap::new(),
            targets: BTreeMap::new(),
            shapes: BTreeMap::new(),
            shape: Vec::new(),
            last_shape: None,
            last_target: None,
            last_seq: 0,
            last_id: 0,
        }
    }

    fn add_header(&mut self) {
        let header = &self.event.header;
        self.out.cluster = header.cluster.to_vec();
        self.out.node = header.origin.node.0.to_vec();
        self.out.incarnation = header.origin.incarnation;
        self.out.seq = header.seq;
        self.out.previous = header.previous.to_vec();
        self.out.stamp = header.stamp.0;
        self.out.database = header.database.clone();
        self.out.schema = header.schema.to_vec();
        self.out.continues = header.continues;
        self.out.note = header.note.clone();
        for (&origin, &seq) in &header.applied.dots {
            self.origin(origin);
            write(seq, &mut self.out.applied);
        }
    }

    fn add_tables(&mut self) {
        let event = self.event;
        for table in &event.tables {
            let name = self.name(&table.table);
            write(name, &mut self.out.tables);
            write(table.columns.len() as u64, &mut self.out.tables);
            for column in &table.columns {
                let name = self.name(column);
                write(name, &mut self.out.tables);
            }
        }
    }

    fn add_change(&mut self, index: u32, change: &'a Change) {
        self.shape.clear();
        match change {
            Change::Insert { table, row, claim, after, cells } => {
                self.begin(KIND_INSERT, *table, claim.is_some(), after.is_some(), cells.len());
                self.add_row(index, row);
                self.add_claim(index, *claim, after.as_ref());
                let mut next = 0;
                for (column, cell) in cells {
                    next = self.add_cell(index, next, *column, cell);
                }
            }
            Change::Update { table, row, cells } => {
                self.begin(KIND_UPDATE, *table, false, false, cells.len());
                self.add_row(index, row);
                let mut next = 0;
                for (column, cell, stamp) in cells {
                    next = self.add_cell(index, next, *column, cell);
                    self.add_stamp(*stamp);
                }
            }
            Change::Delete { table, row } => {
                self.begin(KIND_DELETE, *table, false, false, 0);
                self.add_row(index, row);
            }
            Change::Claim { table, row, id, after, depth } => {
                self.begin(KIND_CLAIM, *table, true, after.is_some(), 0);
                self.add_row(index, row);
                self.add_claim(index, Some(*id), after.as_ref());
                write(u64::from(*depth), &mut self.out.depths);
            }
            Change::Merge { table, row, other, columns } => {
                self.begin(KIND_MERGE, *table, false, false, columns.len());
                self.add_row(index, row);
                self.add_row(index, other);
                self.add_columns(columns);
            }
            Change::Split { table, row, other } => {
                self.begin(KIND_SPLIT, *table, false, false, 0);
                self.add_row(index, row);
                self.add_row(index, other);
            }
            Change::Rule { table, column, rule } => {
                self.begin(KIND_RULE, *table, false, false, usize::from(column.is_some()));
                self.add_columns(column.as_slice());
                write(*rule as u64, &mut self.out.depths);
            }
        }
        let shape = self.shape_position();
        write(shape, &mut self.out.changes);
    }

    fn begin(&mut self, kind: u64, table: u32, id: bool, after: bool, cells: usize) {
        let form = kind + if id { FORM_ID } else { 0 } + if after { FORM_AFTER } else { 0 };
        write(form, &mut self.shape);
        write(u64::from(table), &mut self.shape);
        write(cells as u64, &mut self.shape);
    }

    /// Bulk changes repeat the shape before them: that one is compared first.
    fn shape_position(&mut self) -> u64 {
        if let Some((shape, position)) = &self.last_shape
            && *shape == self.shape
        {
            return *position;
        }
        let next = self.shapes.len() as u64;
        let position = *self.shapes.entry(self.shape.clone()).or_insert(next);
        if position == next {
            self.out.shapes.extend_from_slice(&self.shape);
        }
        self.last_shape = Some((self.shape.clone(), position));
        position
    }

    fn add_claim(&mut self, index: u32, claim: Option<i64>, after: Option<&RowId>) {
        if let Some(id) = claim {
            write_zigzag(id.wrapping_sub(self.last_id), &mut self.out.ids);
            self.last_id = id;
        }
        if let Some(row) = after {
            self.add_row(index, row);
        }
    }

    /// Columns without values: in the shape as cells of type 0.
    fn add_columns(&mut self, columns: &[u32]) {
        let mut next = 0u32;
        for column in columns {
            write(8 * u64::from(column.wrapping_sub(next)), &mut self.shape);
            next = column.wrapping_add(1);
        }
    }

    fn add_stamp(&mut self, stamp: Stamp) {
        write_zigzag(stamp.0.wrapping_sub(self.event.header.stamp.0) as i64, &mut self.out.stamps);
    }

    /// Writes a cell; returns the column after its own. Wrapping, because encoding is total: columns out of order give
    /// bytes that no decoder takes.
    fn add_cell(&mut self, index: u32, next: u32, column: u32, cell: &'a Cell) -> u32 {
        let kind = match cell {
            Cell::Plain(Value::Null) => CELL_NULL,
            Cell::Plain(Value::Integer(value)) => {
                write_zigzag(*value, &mut self.out.integers);
                CELL_INTEGER
            }
            Cell::Plain(Value::Real(bits)) => {
                self.out.reals.extend_from_slice(&bits.to_le_bytes());
                CELL_REAL
            }
            Cell::Plain(Value::Text(bytes)) => {
                self.add_content(bytes);
                CELL_TEXT
            }
            Cell::Plain(Value::Blob(bytes)) => {
                self.add_content(bytes);
                CELL_BLOB
            }
            Cell::Ref(reference) => {
                let target = self.target(reference);
                write(target, &mut self.out.references);
                self.add_row(index, &reference.row);
                CELL_REF
            }
            Cell::Step { value, by } => {
                write_zigzag(*value, &mut self.out.integers);
                write_zigzag(*by, &mut self.out.integers);
                CELL_STEP
            }
            Cell::Edit(edit) => {
                self.add_edit(edit);
                CELL_EDIT
            }
        };
        write(8 * u64::from(column.wrapping_sub(next)) + kind, &mut self.shape);
        column.wrapping_add(1)
    }

    /// A list is NULL (the code 0) or a text (1). Encoding is total: a value that no list can have gives a code that no
    /// decoder takes.
    fn add_edit(&mut self, edit: &'a Edit) {
        match &edit.value {
            Value::Null => write(0, &mut self.out.lengths),
            Value::Text(bytes) => {
                write(1, &mut self.out.lengths);
                self.add_content(bytes);
            }
            Value::Integer(_) | Value::Real(_) | Value::Blob(_) => write(2, &mut self.out.lengths),
        }
        for elements in [&edit.added, &edit.removed] {
            write(elements.len() as u64, &mut self.out.lengths);
            for element in elements {
                self.add_content(element);
            }
        }
    }

    fn add_content(&mut self, bytes: &[u8]) {
        write(bytes.len() as u64, &mut self.out.lengths);
        self.out.content.extend_from_slice(bytes);
    }

    fn add_row(&mut self, index: u32, row: &RowId) {
        match row {
            RowId::Genesis(hash) => {
                write(ROW_GENESIS, &mut self.out.rows);
                self.out.hashes.extend_from_slice(hash);
            }
            RowId::Keyed(hash) => {
                write(ROW_KEYED, &mut self.out.rows);
                self.out.hashes.extend_from_slice(hash);
            }
            RowId::Born(birth) if birth.origin == self.own && birth.seq == self.event.header.seq => {
                if birth.index == index {
                    write(ROW_THIS, &mut self.out.rows);
                } else {
                    write(ROW_EVENT, &mut self.out.rows);
                    write(u64::from(birth.index), &mut self.out.rows);
                }
            }
            RowId::Born(birth) => {
                let origin = self.origin(birth.origin);
                write(ROW_BORN + origin, &mut self.out.rows);
                write_zigzag(birth.seq.wrapping_sub(self.last_seq) as i64, &mut self.out.rows);
                write(u64::from(birth.index), &mut self.out.rows);
                self.last_seq = birth.seq;
            }
        }
    }

    fn origin(&mut self, origin: OriginId) -> u64 {
        let next = self.origins.len() as u64;
        let position = *self.origins.entry(origin).or_insert(next);
        if position == next {
            self.out.origins.extend_from_slice(&origin.0);
        }
        position
    }

    fn name(&mut self, name: &'a str) -> u64 {
        let next = self.names.len() as u64;
        let position = *self.names.entry(name).or_insert(next);
        if position == next {
            self.out.names.push_str(name);
            write(name.len() as u64, &mut self.out.name_lengths);
        }
        position
    }

    fn target(&mut self, reference: &'a Reference) -> u64 {
        if let Some((last, position)) = self.last_target
            && last.column == reference.column
            && last.table == reference.table
            && last.database == reference.database
        {
            return position;
        }
        let next = self.targets.len() as u64;
        let key = (reference.database.as_str(), reference.table.as_str(), reference.column.as_str());
        let position = *self.targets.entry(key).or_insert(next);
        if position == next {
            for name in [key.0, key.1, key.2] {
                let name = self.name(name);
                write(name, &mut self.out.targets);
            }
        }
        self.last_target = Some((reference, position));
        position
    }
}
