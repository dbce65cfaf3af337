//! Genesis: births for rows that were there before litemesh was.
//!
//! A row's birth is the hash of its content: database, table, key, values, and the hashes of the rows it refers to. Copies
//! of one file therefore agree on every birth without any contact; and since the events that carry these rows are made
//! by rule (sorted rows, no clock, a chain signed by a key derived from the content), equal copies even make the *same*
//! events, so they exchange nothing. Rows without a key count by content and occurrence.
//! Invariant: a function of the file's replicated content alone. The key is no secret: a genesis chain is accepted from
//! members only, and proves integrity, not authorship. Caller: `node`, at enrolment and when a table appears.

use std::collections::BTreeMap;

use super::capture::{CHANGES_MAX, Part, WEIGHT_MAX, table_entry};
use super::chain::{Chain, Sealed, Sealing};
use crate::merge::image::Shown;
use crate::model::identity::first_16;
use crate::model::{Cell, Change, Cut, DatabaseSchema, Identity, Key, Reference, RowId, Stamp, TableSchema, Value};
use crate::sqlite::Image;

/// The incarnation of every genesis chain.
pub const GENESIS_INCARNATION: u64 = 0;

/// One row found in the file.
pub(super) struct Found {
    pub(super) table: usize,
    pub(super) key: Key,
    pub(super) image: Image,
}

/// The births and events of what was found.
pub(super) struct Genesis {
    pub(super) events: Vec<Sealed>,
    pub(super) shown: Vec<(RowId, Shown)>,
}

/// Makes births and events of all rows found. `None` when there are none.
pub(super) fn genesis(schema: &DatabaseSchema, cluster: [u8; 32], mut found: Vec<Found>) -> Option<Genesis> {
    if found.is_empty() {
        return None;
    }
    found.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    let births = Births::new(schema, &found);
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
        let cells = columns.map(|column| (column as u32, births.cell(schema, table, &row.image, column))).collect();
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
        };
        events.extend(chain.seal(head, vec![part], sealing));
    }
    Some(Genesis { events, shown })
}

/// The births that rows found in a file would get, by table and key.
pub(super) fn births(schema: &DatabaseSchema, found: &mut [Found]) -> BTreeMap<(usize, Key), RowId> {
    found.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    Births::new(schema, found).0
}

/// Births of rows by table and key.
struct Births(BTreeMap<(usize, Key), RowId>);

impl Births {
    /// Names parents before children, so that children of different parents differ. Where tables refer to each other in a
    /// ring (or to themselves), the reference counts by the parent's own content only.
    fn new(schema: &DatabaseSchema, found: &[Found]) -> Births {
        let mut births = Births(BTreeMap::new());
        let mut plain: BTreeMap<(usize, Key), [u8; 16]> = BTreeMap::new();
        let mut occurrences: BTreeMap<[u8; 16], u64> = BTreeMap::new();
        for row in found {
            let hash = own_content(schema, row, &mut occurrences);
            plain.insert((row.table, row.key.clone()), hash);
        }
        for table in parents_first(schema) {
            for row in found.iter().filter(|row| row.table == table) {
                let birth = births.name(schema, row, &plain);
                births.0.insert((row.table, row.key.clone()), birth);
            }
        }
        births
    }

    fn name(&self, schema: &DatabaseSchema, row: &Found, plain: &BTreeMap<(usize, Key), [u8; 16]>) -> RowId {
        let table = &schema.tables[row.table];
        if let Identity::Keyed(columns) = &table.identity {
            let cells: Vec<Cell> = columns.iter().map(|column| self.cell(schema, table, &row.image, *column)).collect();
            return RowId::keyed(&schema.database, &table.name, &cells);
        }
        let at = (row.table, row.key.clone());
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 genesis row");
        hasher.update(&plain[&at]);
        for key in &table.foreign_keys {
            if let Some(parent) = parent_at(schema, table, key, &row.image) {
                match (self.0.get(&parent), plain.get(&parent)) {
                    (Some(birth), _) => hasher.update(&birth.to_bytes()),
                    (None, Some(content)) => hasher.update(content),
                    (None, None) => hasher.update(b"dangling"),
                };
            }
        }
        RowId::Genesis(first_16(&hasher))
    }

    fn of(&self, table: usize, key: &Key) -> RowId {
        self.0[&(table, key.clone())]
    }

    fn cell(&self, schema: &DatabaseSchema, table: &TableSchema, image: &Image, column: usize) -> Cell {
        for key in table.foreign_keys.iter().filter(|key| key.columns.contains(&column)) {
            let Some(parent) = parent_at(schema, table, key, image) else { continue };
            let Some(row) = self.0.get(&parent) else { continue };
            let at = key.columns.iter().position(|other| *other == column).unwrap_or_default();
            return Cell::Ref(Reference {
                database: schema.database.clone(),
                table: schema.tables[parent.0].name.clone(),
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

/// Table and key that a reference's values name; `None` for NULLs, other databases and columns that are no key.
fn parent_at(
    schema: &DatabaseSchema,
    table: &TableSchema,
    key: &crate::model::ForeignKey,
    image: &Image,
) -> Option<(usize, Key)> {
    debug_assert!(key.columns.iter().all(|column| *column < table.columns.len()));
    if key.database.as_ref().is_some_and(|name| *name != schema.database) {
        return None;
    }
    let position = schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&key.parent))?;
    let parent = &schema.tables[position];
    let mut values = Vec::new();
    for column in parent.key_columns() {
        let name = &parent.columns[column].name;
        let at = key.parent_columns.iter().position(|referred| referred.eq_ignore_ascii_case(name))?;
        values.push(image[key.columns[at]].clone());
    }
    (!values.is_empty() && values.len() == key.columns.len() && !values.iter().any(Value::is_null))
        .then_some((position, values))
}

/// Positions of all tables, parents before children; tables of a ring come in the order of their names.
fn parents_first(schema: &DatabaseSchema) -> Vec<usize> {
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
