//! Puts an event together from the streams of `proto/event.proto`.
//!
//! Invariant: total on any bytes; no memory is sized from a number in the message, and what a message unfolds to is
//! bounded by [`super::limits`]. Whether the bytes are canonical is decided by [`super::event`].
//! Caller: [`super::event`].

use prost::Message;

use super::event_encode::{
    CELL_BLOB, CELL_EDIT, CELL_INTEGER, CELL_NULL, CELL_REAL, CELL_REF, CELL_STEP, CELL_TEXT, FORM_AFTER, FORM_ID,
    KIND_CLAIM, KIND_DELETE, KIND_INSERT, KIND_MERGE, KIND_RULE, KIND_SPLIT, KIND_UPDATE, ROW_BORN, ROW_EVENT,
    ROW_GENESIS, ROW_KEYED, ROW_THIS,
};
use super::varint::Stream;
use super::{WireError, event_proto, limits};
use crate::model::{
    Birth, Cell, Change, Cut, Edit, Event, Header, NodeId, Origin, OriginId, Reference, RowId, Rule, Stamp,
    TableColumns, Value,
};

/// The event in these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Event, WireError> {
    let raw = event_proto::Event::decode(bytes).map_err(|_| malformed("not an event"))?;
    let origins = read_origins(&raw.origins)?;
    let header = read_header(&raw, &origins)?;
    let names = read_names(&raw.names, &raw.name_lengths)?;
    let tables = read_tables(&raw.tables, &names)?;
    let targets = read_targets(&raw.targets, &names)?;
    let shapes = read_shapes(&raw.shapes, &tables)?;
    let mut decoder = Decoder {
        own: header.origin.id(),
        seq: header.seq,
        stamp: header.stamp,
        origins,
        targets,
        rows: Stream::new(&raw.rows),
        hashes: Stream::new(&raw.hashes),
        ids: Stream::new(&raw.ids),
        depths: Stream::new(&raw.depths),
        stamps: Stream::new(&raw.stamps),
        integers: Stream::new(&raw.integers),
        reals: Stream::new(&raw.reals),
        lengths: Stream::new(&raw.lengths),
        content: Stream::new(&raw.content),
        references: Stream::new(&raw.references),
        cells: 0,
        name_bytes: 0,
        last_seq: 0,
        last_id: 0,
    };
    let changes = decoder.read_changes(&raw.changes, &shapes)?;
    Ok(Event { header, tables, changes })
}

/// The common form of changes: everything but their values.
struct Shape {
    kind: u64,
    id: bool,
    after: bool,
    table: u32,
    cells: Vec<(u32, u64)>,
}

fn malformed(what: &'static str) -> WireError {
    WireError::Malformed { what }
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| malformed(what))
}

fn within(count: usize, limit: usize, what: &'static str) -> Result<(), WireError> {
    if count > limit { Err(WireError::TooLarge { what, limit }) } else { Ok(()) }
}

fn read_origins(bytes: &[u8]) -> Result<Vec<OriginId>, WireError> {
    let (origins, rest) = bytes.as_chunks::<16>();
    within(origins.len(), limits::EVENT_ORIGINS_MAX, "origins of an event")?;
    if !rest.is_empty() {
        return Err(malformed("an origin is cut short"));
    }
    Ok(origins.iter().map(|&origin| OriginId(origin)).collect())
}

fn read_header(raw: &event_proto::Event, origins: &[OriginId]) -> Result<Header, WireError> {
    within(raw.database.len(), limits::IDENTIFIER_BYTES_MAX, "a name")?;
    within(raw.note.len(), limits::EVENT_NOTE_BYTES_MAX, "a note")?;
    if raw.seq == 0 {
        return Err(malformed("events are numbered from 1"));
    }
    let mut applied = Cut::new();
    let mut counters = Stream::new(&raw.applied);
    let mut known = origins.iter();
    while !counters.is_empty() {
        let origin = known.next().ok_or(malformed("an applied count without an origin"))?;
        let count = counters.varint()?;
        if count == 0 {
            return Err(malformed("an applied count of zero"));
        }
        applied.dots.insert(*origin, count);
    }
    Ok(Header {
        cluster: fixed(&raw.cluster, "the cluster has not 32 bytes")?,
        origin: Origin { node: NodeId(fixed(&raw.node, "the node has not 32 bytes")?), incarnation: raw.incarnation },
        seq: raw.seq,
        previous: fixed(&raw.previous, "the previous hash has not 32 bytes")?,
        stamp: Stamp(raw.stamp),
        database: raw.database.clone(),
        applied,
        schema: fixed(&raw.schema, "the schema has not 16 bytes")?,
        continues: raw.continues,
        note: raw.note.clone(),
    })
}

fn read_names<'a>(text: &'a str, lengths: &[u8]) -> Result<Vec<&'a str>, WireError> {
    let mut names = Vec::new();
    let mut lengths = Stream::new(lengths);
    let mut rest = text;
    while !lengths.is_empty() {
        let length = lengths.below(limits::IDENTIFIER_BYTES_MAX + 1, "a name is too long")?;
        let (name, more) = rest.split_at_checked(length).ok_or(malformed("names and their lengths differ"))?;
        names.push(name);
        within(names.len(), limits::EVENT_NAMES_MAX, "names of an event")?;
        rest = more;
    }
    Ok(names)
}

fn read_tables(bytes: &[u8], names: &[&str]) -> Result<Vec<TableColumns>, WireError> {
    let mut tables = Vec::new();
    let mut stream = Stream::new(bytes);
    let mut columns_seen = 0;
    let name = |stream: &mut Stream<'_>| -> Result<String, WireError> {
        Ok(names[stream.below(names.len(), "a name that is not there")?].to_owned())
    };
    while !stream.is_empty() {
        let table = name(&mut stream)?;
        let count = stream.below(limits::COLUMNS_MAX + 1, "too many columns")?;
        columns_seen += count;
        within(columns_seen, limits::EVENT_COLUMNS_MAX, "columns of an event")?;
        let columns = (0..count).map(|_| name(&mut stream)).collect::<Result<Vec<String>, WireError>>()?;
        tables.push(TableColumns { table, columns });
        within(tables.len(), limits::EVENT_TABLES_MAX, "tables of an event")?;
    }
    Ok(tables)
}

/// One kind of reference, to be completed with a row.
struct Target<'a> {
    database: &'a str,
    table: &'a str,
    column: &'a str,
}

fn read_targets<'a>(bytes: &[u8], names: &[&'a str]) -> Result<Vec<Target<'a>>, WireError> {
    let mut targets = Vec::new();
    let mut stream = Stream::new(bytes);
    let name = |stream: &mut Stream<'_>| -> Result<&'a str, WireError> {
        Ok(names[stream.below(names.len(), "a name that is not there")?])
    };
    while !stream.is_empty() {
        let (database, table, column) = (name(&mut stream)?, name(&mut stream)?, name(&mut stream)?);
        targets.push(Target { database, table, column });
        within(targets.len(), limits::EVENT_COLUMNS_MAX, "kinds of references of an event")?;
    }
    Ok(targets)
}

fn read_shapes(bytes: &[u8], tables: &[TableColumns]) -> Result<Vec<Shape>, WireError> {
    let mut shapes = Vec::new();
    let mut stream = Stream::new(bytes);
    let mut cells_seen = 0;
    while !stream.is_empty() {
        let form = stream.below(19, "unknown kind of change")? as u64;
        let (kind, id, after) = (form & !(FORM_ID + FORM_AFTER), form & FORM_ID != 0, form & FORM_AFTER != 0);
        let table = stream.below(tables.len(), "a table that is not there")?;
        let columns = tables[table].columns.len();
        let count = stream.below(columns + 1, "more cells than columns")?;
        let fits = match kind {
            KIND_INSERT => true,
            KIND_UPDATE => !id && !after,
            KIND_MERGE => !id && !after,
            KIND_RULE => !id && !after && count <= 1,
            KIND_DELETE | KIND_SPLIT => !id && !after && count == 0,
            _ => id && count == 0,
        };
        let valueless = matches!(kind, KIND_MERGE | KIND_RULE);
        if !fits {
            return Err(malformed("a change of impossible form"));
        }
        cells_seen += count;
        within(cells_seen, limits::EVENT_CELLS_MAX, "cells of an event")?;
        let mut cells = Vec::new();
        let mut next = 0;
        for _ in 0..count {
            let code = stream.varint()?;
            let gap = usize::try_from(code >> 3).map_err(|_| malformed("a column that is not there"))?;
            if gap >= columns.saturating_sub(next) {
                return Err(malformed("a column that is not there"));
            }
            if valueless && code & 7 != 0 {
                return Err(malformed("a change of impossible form"));
            }
            cells.push(((next + gap) as u32, code & 7));
            next += gap + 1;
        }
        shapes.push(Shape { kind, id, after, table: table as u32, cells });
        within(shapes.len(), limits::EVENT_CHANGES_MAX, "kinds of changes of an event")?;
    }
    Ok(shapes)
}

/// The streams, each read up to where the changes so far end.
struct Decoder<'a> {
    own: OriginId,
    seq: u64,
    stamp: Stamp,
    origins: Vec<OriginId>,
    targets: Vec<Target<'a>>,
    rows: Stream<'a>,
    hashes: Stream<'a>,
    ids: Stream<'a>,
    depths: Stream<'a>,
    stamps: Stream<'a>,
    integers: Stream<'a>,
    reals: Stream<'a>,
    lengths: Stream<'a>,
    content: Stream<'a>,
    references: Stream<'a>,
    cells: usize,
    name_bytes: usize,
    last_seq: u64,
    last_id: i64,
}

impl Decoder<'_> {
    fn read_changes(&mut self, bytes: &[u8], shapes: &[Shape]) -> Result<Vec<Change>, WireError> {
        let mut changes = Vec::new();
        let mut stream = Stream::new(bytes);
        while !stream.is_empty() {
            within(changes.len() + 1, limits::EVENT_CHANGES_MAX, "changes of an event")?;
            let shape = &shapes[stream.below(shapes.len(), "a shape that is not there")?];
            self.cells += shape.cells.len();
            within(self.cells, limits::EVENT_CELLS_MAX, "cells of an event")?;
            changes.push(self.read_change(changes.len() as u32, shape)?);
        }
        Ok(changes)
    }

    fn read_change(&mut self, index: u32, shape: &Shape) -> Result<Change, WireError> {
        let table = shape.table;
        if shape.kind == KIND_RULE {
            let rule = Rule::from_number(self.depths.varint()?).ok_or(malformed("unknown rule"))?;
            return Ok(Change::Rule { table, column: shape.cells.first().map(|(column, _)| *column), rule });
        }
        let row = self.read_row(index)?;
        match shape.kind {
            KIND_MERGE => {
                let columns = shape.cells.iter().map(|(column, _)| *column).collect();
                Ok(Change::Merge { table, row, other: self.read_row(index)?, columns })
            }
            KIND_SPLIT => Ok(Change::Split { table, row, other: self.read_row(index)? }),
            KIND_INSERT => {
                let (claim, after) = self.read_claim(index, shape)?;
                let mut cells = Vec::with_capacity(shape.cells.len());
                for &(column, kind) in &shape.cells {
                    cells.push((column, self.read_cell(index, kind)?));
                }
                Ok(Change::Insert { table, row, claim, after, cells })
            }
            KIND_UPDATE => {
                let mut cells = Vec::with_capacity(shape.cells.len());
                for &(column, kind) in &shape.cells {
                    let cell = self.read_cell(index, kind)?;
                    let stamp = Stamp(self.stamp.0.wrapping_add(self.stamps.zigzag()? as u64));
                    cells.push((column, cell, stamp));
                }
                Ok(Change::Update { table, row, cells })
            }
            KIND_DELETE => Ok(Change::Delete { table, row }),
            KIND_CLAIM => {
                let (id, after) = self.read_claim(index, shape)?;
                let id = id.ok_or(malformed("a claim without an id"))?;
                Ok(Change::Claim { table, row, id, after, depth: self.depths.number()? })
            }
            _ => Err(malformed("unknown kind of change")),
        }
    }

    fn read_claim(&mut self, index: u32, shape: &Shape) -> Result<(Option<i64>, Option<RowId>), WireError> {
        if shape.id {
            self.last_id = self.last_id.wrapping_add(self.ids.zigzag()?);
        }
        let after = if shape.after { Some(self.read_row(index)?) } else { None };
        Ok((shape.id.then_some(self.last_id), after))
    }

    fn read_cell(&mut self, index: u32, kind: u64) -> Result<Cell, WireError> {
        Ok(match kind {
            CELL_NULL => Cell::Plain(Value::Null),
            CELL_INTEGER => Cell::Plain(Value::Integer(self.integers.zigzag()?)),
            CELL_REAL => Cell::Plain(Value::Real(self.reals.fixed64()?)),
            CELL_TEXT => Cell::Plain(Value::Text(self.read_content()?)),
            CELL_BLOB => Cell::Plain(Value::Blob(self.read_content()?)),
            CELL_REF => Cell::Ref(self.read_reference(index)?),
            CELL_STEP => Cell::Step { value: self.integers.zigzag()?, by: self.integers.zigzag()? },
            CELL_EDIT => Cell::Edit(Box::new(self.read_edit()?)),
            _ => return Err(malformed("unknown type of cell")),
        })
    }

    fn read_edit(&mut self) -> Result<Edit, WireError> {
        let value = match self.lengths.below(2, "a list that is neither NULL nor a text")? {
            0 => Value::Null,
            _ => Value::Text(self.read_content()?),
        };
        Ok(Edit { value, added: self.read_elements()?, removed: self.read_elements()? })
    }

    /// Elements of a list; they count as cells, so that a small message cannot name more than a large one.
    fn read_elements(&mut self) -> Result<Vec<Vec<u8>>, WireError> {
        let count = self.lengths.below(limits::EVENT_CELLS_MAX + 1, "too many elements of a list")?;
        self.cells += count;
        within(self.cells, limits::EVENT_CELLS_MAX, "cells of an event")?;
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(self.read_content()?);
        }
        Ok(elements)
    }

    fn read_content(&mut self) -> Result<Vec<u8>, WireError> {
        let length = self.lengths.below(limits::VALUE_BYTES_MAX + 1, "a value is too long")?;
        Ok(self.content.take(length)?.to_vec())
    }

    fn read_reference(&mut self, index: u32) -> Result<Reference, WireError> {
        let position = self.references.below(self.targets.len(), "a reference that is not there")?;
        let target = &self.targets[position];
        self.name_bytes += target.database.len() + target.table.len() + target.column.len();
        within(self.name_bytes, limits::EVENT_REFERENCE_NAMES_MAX, "names in references of an event")?;
        let (database, table) = (target.database.to_owned(), target.table.to_owned());
        let column = target.column.to_owned();
        Ok(Reference { database, table, row: self.read_row(index)?, column })
    }

    fn read_row(&mut self, index: u32) -> Result<RowId, WireError> {
        let own = |index| RowId::Born(Birth { origin: self.own, seq: self.seq, index });
        match self.rows.varint()? {
            ROW_THIS => Ok(own(index)),
            ROW_GENESIS => Ok(RowId::Genesis(self.hashes.take_16()?)),
            ROW_KEYED => Ok(RowId::Keyed(self.hashes.take_16()?)),
            ROW_EVENT => Ok(own(self.rows.number()?)),
            code => {
                let position = usize::try_from(code - ROW_BORN).unwrap_or(usize::MAX);
                let origin = *self.origins.get(position).ok_or(malformed("an origin that is not there"))?;
                self.last_seq = self.last_seq.wrapping_add(self.rows.zigzag()? as u64);
                Ok(RowId::Born(Birth { origin, seq: self.last_seq, index: self.rows.number()? }))
            }
        }
    }
}
