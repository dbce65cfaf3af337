//! The compact form in which a row's record is stored.
//!
//! Invariant: `pack` then `unpack` gives the same row. Most rows have one author for all their cells: each (change,
//! stamp) is written once and cells name it by position; texts and blobs are copied whole instead of byte by byte.
//! Callers: [`super::state`], [`super::write`].

use std::borrow::Cow;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::LogError;
use super::record;
use super::tables::ROWS;
use crate::merge::registers::Tally;
use crate::merge::store::{Bonds, CellState, Claim, Row, Shelved, TableId, Took, Whole};
use crate::model::{Cell, Cut, Dot, Key, Reference, RowId, Stamp, Value};
use redb::TableHandle;

/// Bytes that serde moves in one piece.
struct Bytes<'a>(Cow<'a, [u8]>);

#[derive(Serialize, Deserialize)]
enum PackedValue<'a> {
    Null,
    Integer(i64),
    Real([u8; 8]),
    #[serde(borrow)]
    Text(Bytes<'a>),
    #[serde(borrow)]
    Blob(Bytes<'a>),
    Ref(Cow<'a, Reference>),
}

#[derive(Serialize, Deserialize)]
struct PackedCell<'a> {
    column: u16,
    #[serde(borrow)]
    value: PackedValue<'a>,
    /// Position in the authors, times 2, plus 1 when the row was born with the cell.
    author: u32,
}

#[derive(Serialize, Deserialize)]
struct PackedRow<'a> {
    table: TableId,
    authors: Vec<(Dot, Stamp)>,
    births: Vec<u32>,
    claim: Option<(i64, Option<RowId>, u32, Dot)>,
    id: Option<i64>,
    #[serde(borrow)]
    cells: Vec<PackedCell<'a>>,
    touched: Cow<'a, Cut>,
    covered: Cow<'a, Cut>,
    deleted: Option<(Dot, Stamp)>,
    alive: bool,
    shelved: Option<Cow<'a, Shelved>>,
    shown: Option<Cow<'a, Key>>,
    image_hash: Option<[u8; 32]>,
    lag: Option<Cow<'a, [Value]>>,
    unique: Cow<'a, [[u8; 16]]>,
    bonds: Option<Cow<'a, Bonds>>,
    overlay: Cow<'a, [(u16, Value)]>,
    updates: Cow<'a, [(u16, Cut)]>,
    took: Option<Took>,
    whole: Option<Cow<'a, Whole>>,
    deletes: Cow<'a, Cut>,
    granted: bool,
    loosened: Cow<'a, [u16]>,
    /// By column.
    tallies: Vec<(u16, Cow<'a, Tally>)>,
}

/// The stored bytes of a row.
pub(super) fn pack(id: &RowId, row: &Row) -> Vec<u8> {
    let mut authors: Vec<(Dot, Stamp)> = Vec::new();
    let mut author_of = |dot: Dot, stamp: Stamp| -> u32 {
        let found = authors.iter().rposition(|author| *author == (dot, stamp));
        found.unwrap_or_else(|| {
            authors.push((dot, stamp));
            authors.len() - 1
        }) as u32
    };
    let births = row.births.iter().map(|&(dot, stamp)| author_of(dot, stamp)).collect();
    let cells = row
        .cells
        .iter()
        .map(|state| PackedCell {
            column: state.column,
            value: pack_cell(&state.cell),
            author: author_of(state.dot, state.stamp) * 2 + u32::from(state.born),
        })
        .collect();
    let packed = PackedRow {
        table: row.table,
        authors,
        births,
        claim: row.claim.map(|claim| (claim.id, claim.after, claim.depth, claim.dot)),
        id: row.id,
        cells,
        touched: Cow::Borrowed(&row.touched),
        covered: Cow::Borrowed(&row.covered),
        deleted: row.deleted,
        alive: row.alive,
        shelved: row.shelved.as_ref().map(Cow::Borrowed),
        shown: row.shown.as_ref().map(Cow::Borrowed),
        image_hash: (row.image_hash != [0; 32]).then_some(row.image_hash),
        lag: row.lag.as_deref().map(Cow::Borrowed),
        unique: Cow::Borrowed(&row.unique),
        bonds: row.bonds.as_deref().map(Cow::Borrowed),
        overlay: Cow::Borrowed(&row.overlay),
        updates: Cow::Borrowed(&row.updates),
        took: row.took,
        whole: row.whole.as_deref().map(Cow::Borrowed),
        deletes: Cow::Borrowed(&row.deletes),
        granted: row.granted,
        loosened: Cow::Borrowed(&row.loosened),
        tallies: row
            .cells
            .iter()
            .filter_map(|state| state.tally.as_deref().map(|tally| (state.column, Cow::Borrowed(tally))))
            .collect(),
    };
    record::seal(&id.to_bytes(), &packed)
}

/// The hash of the image that the file shows of the row in these bytes; `None` while it shows none.
pub(super) fn shown_image(id: &RowId, bytes: &[u8]) -> Result<Option<[u8; 32]>, LogError> {
    record::unseal_borrowed(ROWS.name(), &id.to_bytes(), bytes, |packed: PackedRow<'_>| {
        Some(packed.shown.map(|_| packed.image_hash.unwrap_or_default()))
    })
}

/// The row in these bytes.
pub(super) fn unpack(id: &RowId, bytes: &[u8]) -> Result<Row, LogError> {
    record::unseal_borrowed(ROWS.name(), &id.to_bytes(), bytes, |packed: PackedRow<'_>| {
        let author = |position: u32| packed.authors.get(position as usize).copied();
        let births = packed.births.iter().map(|&position| author(position)).collect::<Option<Vec<_>>>()?;
        let mut cells = Vec::with_capacity(packed.cells.len());
        let mut tallies = packed.tallies.into_iter().peekable();
        for cell in packed.cells {
            let (dot, stamp) = author(cell.author / 2)?;
            let (column, born) = (cell.column, cell.author % 2 == 1);
            let tally = tallies.next_if(|(of, _)| *of == column).map(|(_, tally)| Box::new(tally.into_owned()));
            cells.push(CellState { column, cell: unpack_cell(cell.value), stamp, dot, born, tally });
        }
        Some(Row {
            table: packed.table,
            births,
            claim: packed.claim.map(|(id, after, depth, dot)| Claim { id, after, depth, dot }),
            id: packed.id,
            cells,
            touched: packed.touched.into_owned(),
            covered: packed.covered.into_owned(),
            deleted: packed.deleted,
            alive: packed.alive,
            shelved: packed.shelved.map(Cow::into_owned),
            shown: packed.shown.map(Cow::into_owned),
            image_hash: packed.image_hash.unwrap_or_default(),
            lag: packed.lag.map(|lag| lag.into_owned().into_boxed_slice()),
            unique: packed.unique.into_owned(),
            bonds: packed.bonds.map(|bonds| Box::new(bonds.into_owned())),
            overlay: packed.overlay.into_owned(),
            updates: packed.updates.into_owned(),
            took: packed.took,
            whole: packed.whole.map(|whole| Box::new(whole.into_owned())),
            deletes: packed.deletes.into_owned(),
            granted: packed.granted,
            loosened: packed.loosened.into_owned(),
        })
    })
}

fn pack_cell(cell: &Cell) -> PackedValue<'_> {
    match cell {
        Cell::Plain(value) => pack_value(value),
        Cell::Ref(reference) => PackedValue::Ref(Cow::Borrowed(reference)),
        // What cells hold never has a difference; if one came here, what the author's file showed is what counts.
        Cell::Step { value, .. } => PackedValue::Integer(*value),
        Cell::Edit(edit) => pack_value(&edit.value),
    }
}

fn pack_value(value: &Value) -> PackedValue<'_> {
    match value {
        Value::Null => PackedValue::Null,
        Value::Integer(value) => PackedValue::Integer(*value),
        Value::Real(bits) => PackedValue::Real(bits.to_be_bytes()),
        Value::Text(bytes) => PackedValue::Text(Bytes(Cow::Borrowed(bytes))),
        Value::Blob(bytes) => PackedValue::Blob(Bytes(Cow::Borrowed(bytes))),
    }
}

fn unpack_cell(value: PackedValue<'_>) -> Cell {
    match value {
        PackedValue::Null => Cell::Plain(Value::Null),
        PackedValue::Integer(value) => Cell::Plain(Value::Integer(value)),
        PackedValue::Real(bits) => Cell::Plain(Value::Real(u64::from_be_bytes(bits))),
        PackedValue::Text(bytes) => Cell::Plain(Value::Text(bytes.0.into_owned())),
        PackedValue::Blob(bytes) => Cell::Plain(Value::Blob(bytes.0.into_owned())),
        PackedValue::Ref(reference) => Cell::Ref(reference.into_owned()),
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes<'a>, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Bytes<'de>;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("bytes")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Bytes<'de>, E> {
                Ok(Bytes(Cow::Borrowed(bytes)))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes<'de>, E> {
                Ok(Bytes(Cow::Owned(bytes.to_vec())))
            }
        }
        deserializer.deserialize_bytes(Borrow)
    }
}
