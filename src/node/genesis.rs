//! Genesis: births for rows that were there before litemesh was.
//!
//! A row's birth is the hash of its content: database, table, key, values, and the hashes of the rows it refers to. Copies
//! of one file therefore agree on every birth without any contact; and since the events that carry these rows are made
//! by rule (sorted rows, no clock, a chain signed by a key derived from the content), equal copies even make the *same*
//! events, so they exchange nothing. Rows without a key count by content and occurrence.
//! Invariant: a function of the file's replicated content alone. The key is no secret: a genesis chain is accepted from
//! members only, and proves integrity, not authorship. Caller: `node`, at enrolment and when a table appears.

use std::collections::BTreeMap;

use super::NodeError;
use super::capture::{CHANGES_MAX, Part, WEIGHT_MAX, table_entry};
use super::chain::{Chain, Sealed, Sealing};
use super::found::{Found, FoundIndex};
use crate::merge::image::Shown;
use crate::model::identity::first_16;
use crate::model::{
    Cell, Change, Cut, DatabaseSchema, ForeignKey, Identity, Key, Reference, RowId, Stamp, TableSchema, Value,
};

/// The incarnation of every genesis chain.
pub const GENESIS_INCARNATION: u64 = 0;

/// The row of another database that a reference's values lead to, as that file shows it.
pub(super) type Elsewhere<'e> = dyn Fn(&ForeignKey, &[Value]) -> Result<Option<RowId>, NodeError> + 'e;

/// The births and events of what was found.
pub(super) struct Genesis {
    pub(super) events: Vec<Sealed>,
    pub(super) shown: Vec<(RowId, Shown)>,
}

/// Makes births and events of all rows found. `None` when there are none.
pub(super) fn genesis(
    schema: &DatabaseSchema,
    cluster: [u8; 32],
    mut found: Vec<Found>,
    elsewhere: &Elsewhere<'_>,
) -> Result<Option<Genesis>, NodeError> {
    if found.is_empty() {
        return Ok(None);
    }
    found.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    let index = FoundIndex::new(schema, &found);
    let births = Births::new(schema, &index, &found);
    let mut parts: Vec<Part> = vec![Part::default()];
    let mut shown = Vec::with_capacity(found.len());
    let mut weight = 0;
    let mut content = blake3::Hasher::new_derive_key("litemesh 1 genesis content");
    for row in &found {
        let table = &schema.tables[row.table];
        let birth = births.of(row.table, &row.key);
        content.update(&birth.to_bytes());
        let size: usize = row.image.iter().map(Value::weight).sum();
        if parts.last().is_some_and(|part| part.changes.len() >= CHANGES_MAX) || weight + size > WEIGHT_MAX {
            parts.push(Part::default());
            weight = 0;
        }
        weight += size;
        let part = parts.last_mut().expect("there is always a part");
        let entry = table_entry(&mut part.tables, table);
        let columns = (0..table.columns.len()).filter(|column| table.identity != Identity::Surrogate(*column));
        let mut cells = Vec::with_capacity(table.columns.len());
        for column in columns {
            let cell = births.cell(&index, table, &row.image, column, elsewhere)?;
            hash_cell(&mut content, &cell);
            cells.push((column as u32, cell));
        }
        let claim = match table.identity {
            Identity::Keyed(_) => None,
            Identity::Surrogate(_) | Identity::Rowid => row.key[0].as_integer(),
        };
        part.changes.push(Change::Insert { table: entry, row: birth, claim, after: None, cells });
        shown.push((birth, (row.key.clone(), row.image.clone())));
    }
    content.update(&cluster);
    content.update(schema.database.as_bytes());
    let chain = Chain::new(content.finalize().as_bytes(), cluster, GENESIS_INCARNATION);
    let mut events = Vec::new();
    for part in parts {
        let head = events.last().map(|sealed: &Sealed| crate::model::Head {
            origin: chain.origin(),
            seq: sealed.event.header.seq,
            hash: sealed.hash,
        });
        let sealing = Sealing {
            database: &schema.database,
            applied: Cut::default(),
            schema: schema.fingerprint,
            stamp: Stamp(0),
            note: "",
        };
        events.extend(chain.seal(head, vec![part], sealing));
    }
    Ok(Some(Genesis { events, shown }))
}

/// What tells two chains apart: births alone do not, where a key is the identity or a reference leads to another file.
fn hash_cell(content: &mut blake3::Hasher, cell: &Cell) {
    let mut bytes = Vec::new();
    cell.write_canonical(&mut bytes);
    content.update(&bytes);
}

/// The births that rows found in a file would get, by table and key. `found` is sorted by both.
pub(super) fn births(schema: &DatabaseSchema, found: &[Found]) -> BTreeMap<(usize, Key), RowId> {
    debug_assert!(found.is_sorted_by(|a, b| (a.table, &a.key) <= (b.table, &b.key)));
    Births::new(schema, &FoundIndex::new(schema, found), found).0
}

/// Births of rows by table and key.
struct Births(BTreeMap<(usize, Key), RowId>);

impl Births {
    /// Names parents before children, so that children of different parents differ. Where tables refer to each other in a
    /// ring (or to themselves), the reference counts by the parent's own content only.
    fn new(schema: &DatabaseSchema, index: &FoundIndex<'_>, found: &[Found]) -> Births {
        let mut births = Births(BTreeMap::new());
        let mut plain: BTreeMap<(usize, Key), [u8; 16]> = BTreeMap::new();
        let mut occurrences: BTreeMap<[u8; 16], u64> = BTreeMap::new();
        for row in found {
            let hash = own_content(schema, row, &mut occurrences);
            plain.insert((row.table, row.key.clone()), hash);
        }
        for table in parents_first(schema) {
            for row in found.iter().filter(|row| row.table == table) {
                let birth = births.name(schema, index, row, &plain);
                births.0.insert((row.table, row.key.clone()), birth);
            }
        }
        births
    }

    fn name(
        &self,
        schema: &DatabaseSchema,
        index: &FoundIndex<'_>,
        row: &Found,
        plain: &BTreeMap<(usize, Key), [u8; 16]>,
    ) -> RowId {
        let table = &schema.tables[row.table];
        if let Identity::Keyed(columns) = &table.identity {
            let cells: Vec<Cell> =
                columns.iter().map(|column| self.own_cell(index, table, &row.image, *column)).collect();
            return RowId::keyed(&schema.database, &table.name, &cells);
        }
        let at = (row.table, row.key.clone());
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 genesis row");
        hasher.update(&plain[&at]);
        for key in table.foreign_keys.iter().filter(|key| key.database.is_none()) {
            let Some((parent, parent_key)) = index.parent(key, &row.image) else {
                // It leads nowhere: what tells the row from another one is the value itself.
                let mut bytes = b"dangling".to_vec();
                key.columns.iter().for_each(|column| row.image[*column].write_canonical(&mut bytes));
                hasher.update(&bytes);
                continue;
            };
            let parent = (parent, parent_key.clone());
            match (self.0.get(&parent), plain.get(&parent)) {
                (Some(birth), _) => hasher.update(&birth.to_bytes()),
                (None, content) => hasher.update(content.map_or(b"".as_slice(), |content| content)),
            };
        }
        RowId::Genesis(first_16(&hasher))
    }

    fn of(&self, table: usize, key: &Key) -> RowId {
        self.0[&(table, key.clone())]
    }

    /// A value as it travels, references into other files included: those rows were enrolled before.
    fn cell(
        &self,
        index: &FoundIndex<'_>,
        table: &TableSchema,
        image: &[Value],
        column: usize,
        elsewhere: &Elsewhere<'_>,
    ) -> Result<Cell, NodeError> {
        let own = self.own_cell(index, table, image, column);
        if matches!(own, Cell::Ref(_)) {
            return Ok(own);
        }
        for key in table.foreign_keys.iter().filter(|key| key.columns.contains(&column)) {
            let Some(database) = &key.database else { continue };
            let values: Vec<Value> = key.columns.iter().map(|column| image[*column].clone()).collect();
            if !values.iter().any(Value::is_null)
                && let Some(row) = elsewhere(key, &values)?
            {
                let at = key.columns.iter().position(|other| *other == column).unwrap_or_default();
                let (database, table) = (database.clone(), key.parent.clone());
                return Ok(Cell::Ref(Reference { database, table, row, column: key.parent_columns[at].clone() }));
            }
        }
        Ok(own)
    }

    /// The same as far as this file alone tells: what births are made of.
    fn own_cell(&self, index: &FoundIndex<'_>, table: &TableSchema, image: &[Value], column: usize) -> Cell {
        for key in table.foreign_keys.iter().filter(|key| key.columns.contains(&column)) {
            let Some((position, parent_key)) = index.parent(key, image) else { continue };
            let Some(row) = self.0.get(&(position, parent_key.clone())) else { continue };
            let at = key.columns.iter().position(|other| *other == column).unwrap_or_default();
            return Cell::Ref(Reference {
                database: index.schema().database.clone(),
                table: index.schema().tables[position].name.clone(),
                row: *row,
                column: key.parent_columns[at].clone(),
            });
        }
        Cell::Plain(image[column].clone())
    }
}

/// Hash of a row's key and of its values that refer to nothing.
fn own_content(schema: &DatabaseSchema, row: &Found, occurrences: &mut BTreeMap<[u8; 16], u64>) -> [u8; 16] {
    let table = &schema.tables[row.table];
    let mut bytes = Vec::new();
    Value::text(&schema.database).write_canonical(&mut bytes);
    Value::text(&table.name).write_canonical(&mut bytes);
    if table.identity != Identity::Rowid {
        row.key.iter().for_each(|value| value.write_canonical(&mut bytes));
    }
    for (column, value) in row.image.iter().enumerate() {
        let refers = table.foreign_keys.iter().any(|key| key.database.is_none() && key.columns.contains(&column));
        if !refers {
            value.write_canonical(&mut bytes);
        }
    }
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 genesis content of a row");
    hasher.update(&bytes);
    let hash = first_16(&hasher);
    if table.identity != Identity::Rowid {
        return hash;
    }
    let occurrence = occurrences.entry(hash).or_default();
    *occurrence += 1;
    hasher.update(&occurrence.to_be_bytes());
    first_16(&hasher)
}

/// Positions of all tables, parents before children; tables of a ring come in the order of their names.
pub(super) fn parents_first(schema: &DatabaseSchema) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    let parents = |table: usize| -> Vec<usize> {
        let keys = schema.tables[table].foreign_keys.iter().filter(|key| key.database.is_none());
        keys.filter_map(|key| schema.tables.iter().position(|other| other.name.eq_ignore_ascii_case(&key.parent)))
            .collect()
    };
    while order.len() < schema.tables.len() {
        let open: Vec<usize> = (0..schema.tables.len()).filter(|table| !order.contains(table)).collect();
        let free = open.iter().find(|table| parents(**table).iter().all(|up| up == *table || order.contains(up)));
        order.push(*free.unwrap_or(&open[0]));
    }
    order
}
