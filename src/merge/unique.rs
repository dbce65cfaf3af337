//! R8: which of several classes with the same UNIQUE key shows it, and what becomes of the others; R11: which of them a
//! merge shall join.
//!
//! Classes that share keys form a component. In it, classes are ordered per key by (time the key was written, seniority);
//! repeatedly the one that comes first in all its keys among the undecided ones is shown. Those that share a key with it
//! show a tagged value in a text column of that key, or go to the shelf where none can carry the tag.
//! Invariants: a function of the settled cells; a row on the shelf blocks nobody; rows with a NULL in the
//! key never collide. Keys count as shown: two rows of a keyed table can have one key, where one refers to a row and the
//! other holds the bare number that this row shows now (it led nowhere when it was written). Keys over expressions and
//! of partial indexes are asked of SQLite ([`crate::model::schema::KeyFunction`]). Caller: settling; node (merging).

use std::collections::{BTreeMap, BTreeSet};

use super::Evaluator;
use super::integrate::GENESIS_ORIGIN;
use super::rank::Seniority;
use super::store::{LinkKind, Row, Shelved, Store, TableId};
use crate::model::identity::hash_16;
use crate::model::schema::ComputedKey;
use crate::model::{Cell, Collation, Identity, RowId, Rule, Stamp, TableSchema, UniqueKey, Value};

/// Two classes that R8 finds to be the same: a merge joins them (R11).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergePair {
    /// The table's name.
    pub table: String,
    /// Canonical row of the class that comes first.
    pub row: RowId,
    /// Canonical row of the other one.
    pub other: RowId,
    /// The columns of their common key, by name.
    pub columns: Vec<String>,
}

/// Who comes first under a key: who wrote it earlier, then the senior row.
type Order = (Stamp, Seniority);

/// A UNIQUE key as one class holds it.
struct HeldKey {
    /// Name of the index.
    index: String,
    /// Hash of the key.
    hash: [u8; 16],
    /// When it was written.
    written: Stamp,
    /// Every column of it still is as some member was born.
    born: bool,
    /// Names of its columns.
    columns: Vec<String>,
    /// Number and value of the column that can carry a tag.
    taggable: Option<(u16, Vec<u8>)>,
}

/// One class of a component with the keys it still contends for.
struct Contender {
    row: RowId,
    seniority: Seniority,
    keys: Vec<HeldKey>,
    tagged: Vec<(u16, Vec<u8>)>,
}

/// What was decided of one class: on the shelf under (index, holder), or shown with these columns tagged.
type Verdict = Result<Vec<(u16, Vec<u8>)>, (String, RowId)>;

impl<S: Store> Evaluator<'_, S> {
    /// Brings the index of UNIQUE keys up to date with a class and adds every row whose place may have changed to `affected`.
    pub(super) fn index_unique(&mut self, id: &RowId, affected: &mut BTreeSet<RowId>) -> Result<(), S::Error> {
        let Some(row) = self.row(id)? else { return Ok(()) };
        let (table, alive, old) = (row.table, row.alive, row.unique.clone());
        let plain = old.is_empty() && row.shelved.is_none() && row.overlay.is_empty();
        if plain && self.schema(table)?.is_none_or(|schema| schema.unique.is_empty() && own_key(schema).is_none()) {
            return Ok(());
        }
        let mut keys: Vec<[u8; 16]> = Vec::new();
        if alive && let Some(view) = self.view(id)? {
            keys.extend(self.unique_keys(&view)?.into_iter().map(|key| key.hash));
        }
        for key in old.iter().chain(&keys) {
            affected.extend(self.store.unique_holders(table, key)?);
        }
        affected.insert(*id);
        for key in old.iter().filter(|key| !keys.contains(key)) {
            self.store.remove_unique(table, *key, *id)?;
        }
        for key in keys.iter().filter(|key| !old.contains(key)) {
            self.store.add_unique(table, *key, *id)?;
        }
        if old != keys
            && let Some(row) = self.row_mut(id)?
        {
            row.unique = keys;
        }
        Ok(())
    }

    /// Decides the components of the given rows. Returns the rows whose place on the shelf, or whose tag, changed.
    pub(super) fn decide_unique(&mut self, affected: BTreeSet<RowId>) -> Result<Vec<RowId>, S::Error> {
        let mut open = affected;
        let mut changed = Vec::new();
        while let Some(seed) = open.pop_first() {
            let component = self.component(seed)?;
            if component.len() > 1 {
                self.collided.extend(component.iter().map(|contender| contender.row));
            }
            for contender in &component {
                open.remove(&contender.row);
            }
            for (row, verdict) in decide(component) {
                if self.take_verdict(&row, verdict)? {
                    changed.push(row);
                }
            }
        }
        Ok(changed)
    }

    /// Takes over what was decided of a row. True when that changes what it shows.
    fn take_verdict(&mut self, row: &RowId, verdict: Verdict) -> Result<bool, S::Error> {
        let Some(record) = self.row(row)? else { return Ok(false) };
        let (old, old_overlay) = (record.shelved.clone(), record.overlay.clone());
        let (shelved, tagged) = match verdict {
            Ok(tagged) => {
                crate::sometimes!(!tagged.is_empty(), "unique: a tag tells two rows with one key apart");
                (None, tagged)
            }
            Err((index, holder)) => {
                crate::sometimes!("unique: one of two rows with one key goes to the shelf");
                (Some(Shelved::Unique { index, holder }), Vec::new())
            }
        };
        let overlay: Vec<(u16, Value)> =
            tagged.into_iter().map(|(column, value)| (column, Value::Text(with_tag(value, row)))).collect();
        let kept = match &old {
            Some(Shelved::Refused { .. }) => self.refused.contains(row),
            Some(Shelved::Parent { .. }) => true,
            Some(Shelved::Unique { .. }) | None => false,
        };
        let new = if shelved.is_none() && kept { old.clone() } else { shelved };
        if old == new && old_overlay == overlay {
            return Ok(false);
        }
        if let Some(record) = self.row_mut(row)? {
            (record.shelved, record.overlay) = (new, overlay);
        }
        Ok(true)
    }

    fn component(&mut self, seed: RowId) -> Result<Vec<Contender>, S::Error> {
        let mut seen = BTreeSet::from([seed]);
        let mut open = vec![seed];
        let mut component = Vec::new();
        while let Some(id) = open.pop() {
            let Some(alive) = self.row(&id)?.map(|row| row.alive) else { continue };
            let Some(view) = self.view(&id)? else { continue };
            let seniority = self.ranks.seniority(&id, &view);
            let mut keys = Vec::new();
            if alive {
                keys = self.unique_keys(&view)?;
                for key in &keys {
                    for other in self.store.unique_holders(view.table, &key.hash)? {
                        if seen.insert(other) {
                            open.push(other);
                        }
                    }
                }
            }
            component.push(Contender { row: id, seniority, keys, tagged: Vec::new() });
        }
        component.sort_by_key(|contender| contender.row);
        Ok(component)
    }

    /// Rows that met others under one UNIQUE key since the last call: those that [`Evaluator::mergeable`] must be asked about.
    pub fn collided(&mut self) -> BTreeSet<RowId> {
        std::mem::take(&mut self.collided)
    }

    /// R11: pairs of classes, among those of the given rows, that a merge shall join: born with one key under the policy to
    /// merge, and no split between them.
    pub fn mergeable(&mut self, rows: &BTreeSet<RowId>) -> Result<Vec<MergePair>, S::Error> {
        let mut pairs = BTreeSet::new();
        for id in rows {
            let Some(view) = self.view(id)?.filter(|view| view.alive) else { continue };
            let Some(schema) = self.schema(view.table)? else { continue };
            if self.collision_rule(view.table)? != Rule::UniqueMerge {
                continue;
            }
            for key in self.unique_keys(&view)?.into_iter().filter(|key| key.born && key.index != OWN_KEY) {
                let mut born = Vec::new();
                for other in self.store.unique_holders(view.table, &key.hash)? {
                    let Some(record) = self.view(&other)? else { continue };
                    let held = self.unique_keys(&record)?.into_iter().find(|held| held.hash == key.hash);
                    if let Some(held) = held.filter(|held| held.born) {
                        born.push(((held.written, self.ranks.seniority(&other, &record)), other));
                    }
                }
                born.sort();
                let Some((_, first)) = born.first().copied() else { continue };
                for (_, other) in born.into_iter().skip(1) {
                    if self.born_apart(&first, &other)? && !self.barred(&first, &other)? {
                        let (table, columns) = (schema.name.clone(), key.columns.clone());
                        pairs.insert(MergePair { table, row: first, other, columns });
                    }
                }
            }
        }
        Ok(pairs.into_iter().collect())
    }

    /// Whether the rows of two classes came from more than one origin. One file that held both had no such constraint: its
    /// rows are different rows, whatever this file says.
    fn born_apart(&mut self, one: &RowId, other: &RowId) -> Result<bool, S::Error> {
        let mut origins = BTreeSet::new();
        for id in [one, other] {
            for member in self.members(id)? {
                let Some(row) = self.row(&member)? else { continue };
                origins.extend(row.births.iter().map(|(dot, _)| dot.origin));
            }
        }
        Ok(origins.len() > 1 || origins.contains(&GENESIS_ORIGIN))
    }

    /// Whether a split keeps two classes apart.
    pub fn barred(&mut self, one: &RowId, other: &RowId) -> Result<bool, S::Error> {
        let others = self.members(other)?;
        for member in self.members(one)? {
            let links = self.row(&member)?.map(|row| row.links().to_vec()).unwrap_or_default();
            let bars =
                links.iter().any(|link| link.kind == LinkKind::Split && !link.void && others.contains(&link.other));
            if bars {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The UNIQUE keys a class holds. A rowid or surrogate id in a key never collides.
    fn unique_keys(&mut self, view: &Row) -> Result<Vec<HeldKey>, S::Error> {
        let Some(schema) = self.schema(view.table)? else { return Ok(Vec::new()) };
        let mut keys: Vec<HeldKey> = Vec::new();
        let own = own_key(schema);
        for unique in schema.unique.iter().chain(&own) {
            let key = match &unique.computed {
                Some(computed) => self.computed_key(view, schema, &unique.name, computed)?,
                None if unique.exact => self.unique_key(view, view.table, schema, unique)?,
                None => None,
            };
            if let Some(key) = key
                && keys.iter().all(|held| held.hash != key.hash)
            {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn unique_key(
        &mut self,
        view: &Row,
        table: TableId,
        schema: &TableSchema,
        unique: &UniqueKey,
    ) -> Result<Option<HeldKey>, S::Error> {
        let mut bytes = Vec::new();
        let mut written = view.births.first().map_or(Stamp(0), |(_, stamp)| *stamp);
        let (mut born, mut taggable, mut columns) = (true, None, Vec::new());
        let numbers = self.numbers_of(table, schema)?;
        for (position, collation) in &unique.columns {
            let name = &schema.columns[*position].name;
            columns.push(name.clone());
            Value::text(name).write_canonical(&mut bytes);
            if schema.identity == Identity::Surrogate(*position) {
                return Ok(None);
            }
            let number = numbers[*position];
            let state = number.and_then(|number| view.cell(number)).cloned();
            let cell = match &state {
                Some(state) => state.cell.clone(),
                None => Cell::Plain(schema.columns[*position].default.clone()),
            };
            let value = self.cell_value(&cell, 0)?;
            if value.is_null() {
                return Ok(None);
            }
            if let (Cell::Plain(Value::Text(text)), Some(number)) = (&cell, number)
                && !schema.key_columns().contains(position)
            {
                taggable = Some((number, text.clone()));
            }
            collation.fold(value).write_canonical(&mut bytes);
            if let Some(state) = state.filter(|state| !state.born) {
                written = written.max(state.stamp);
                born = false;
            }
        }
        let hash = hash_key(&bytes);
        let tags = self.collision_rule(table)? != Rule::UniqueShelve;
        let taggable = taggable.filter(|_| unique.name != OWN_KEY && tags);
        Ok(Some(HeldKey { index: unique.name.clone(), hash, written, born, columns, taggable }))
    }
}

impl<S: Store> Evaluator<'_, S> {
    /// A key over expressions, or of a partial index: SQLite says what it is.
    fn computed_key(
        &mut self,
        view: &Row,
        schema: &TableSchema,
        index: &str,
        computed: &ComputedKey,
    ) -> Result<Option<HeldKey>, S::Error> {
        if let Identity::Surrogate(id) = schema.identity
            && computed.terms.contains(&id)
        {
            return Ok(None);
        }
        let tags = self.collision_rule(view.table)? != Rule::UniqueShelve;
        // The true values: neither tags nor a whole row shown for another reason.
        let image = if view.overlay.is_empty() && view.whole.is_none() {
            self.image(view, schema)?
        } else {
            self.image(&Row { overlay: Vec::new(), whole: None, ..view.clone() }, schema)?
        };
        let Some(key) = computed.function.key(&image) else { return Ok(None) };
        let mut bytes = Vec::new();
        Value::text(index).write_canonical(&mut bytes);
        key.iter().for_each(|value| value.write_canonical(&mut bytes));
        let mut written = view.births.first().map_or(Stamp(0), |(_, stamp)| *stamp);
        let (mut born, mut taggable, mut columns) = (true, None, Vec::new());
        for position in &computed.depends_on {
            let name = &schema.columns[*position].name;
            columns.push(name.clone());
            let Some(number) = self.find_column(view.table, name)? else { continue };
            let Some(state) = view.cell(number) else { continue };
            if !state.born {
                written = written.max(state.stamp);
                born = false;
            }
            if let Cell::Plain(Value::Text(text)) = &state.cell
                && computed.terms.contains(position)
                && !schema.key_columns().contains(position)
                && tags
            {
                taggable = Some((number, text.clone()));
            }
        }
        let hash = hash_16("litemesh 1 computed unique key", &bytes);
        Ok(Some(HeldKey { index: index.to_string(), hash, written, born, columns, taggable }))
    }
}

/// What the key of a keyed table is called among its UNIQUE keys.
const OWN_KEY: &str = "PRIMARY KEY";

/// The value of a row whose key another row shows: `value~tag`, the tag a hash of its birth.
fn with_tag(mut value: Vec<u8>, row: &RowId) -> Vec<u8> {
    let hash = blake3::hash(&row.to_bytes());
    let tag = data_encoding::BASE32_NOPAD.encode(&hash.as_bytes()[..5]).to_ascii_lowercase();
    value.push(b'~');
    value.extend_from_slice(&tag.as_bytes()[..4]);
    value
}

/// The key of a keyed table, where references in it can make two rows show the same.
fn own_key(schema: &TableSchema) -> Option<UniqueKey> {
    let Identity::Keyed(columns) = &schema.identity else { return None };
    let refers = |column: &usize| schema.foreign_keys.iter().any(|key| key.columns.contains(column));
    let columns: Vec<_> = columns.iter().map(|column| (*column, Collation::Binary)).collect();
    let needed = columns.iter().any(|(column, _)| refers(column));
    needed.then(|| UniqueKey { name: OWN_KEY.to_string(), columns, exact: true, computed: None })
}

/// Under this hash the store keeps who holds a key: of the names and folded values of its columns.
pub(super) fn hash_key(bytes: &[u8]) -> [u8; 16] {
    hash_16("litemesh 1 unique key", bytes)
}

/// Shows, tags and shelves the classes of one component.
fn decide(component: Vec<Contender>) -> Vec<(RowId, Verdict)> {
    let mut groups: BTreeMap<[u8; 16], BTreeSet<(Order, RowId)>> = BTreeMap::new();
    for contender in &component {
        for key in &contender.keys {
            groups.entry(key.hash).or_default().insert(((key.written, contender.seniority), contender.row));
        }
    }
    let mut verdicts: Vec<(RowId, Verdict)> = Vec::new();
    let mut open: BTreeMap<RowId, Contender> =
        component.into_iter().map(|contender| (contender.row, contender)).collect();
    while !open.is_empty() {
        let first_everywhere = |contender: &&Contender| {
            let first = |key: &HeldKey| groups[&key.hash].first().is_none_or(|(_, row)| *row == contender.row);
            contender.keys.iter().all(first)
        };
        // No row is first in all its keys only where orders contradict each other in a ring: the most senior breaks it.
        let next = open.values().find(first_everywhere).or_else(|| open.values().min_by_key(|one| one.seniority));
        let Some(shown) = next.map(|contender| contender.row).and_then(|row| open.remove(&row)) else { break };
        for key in &shown.keys {
            let rivals = groups.remove(&key.hash).unwrap_or_default();
            for (_, row) in rivals {
                let Some(rival) = open.get_mut(&row) else { continue };
                let Some(at) = rival.keys.iter().position(|held| held.hash == key.hash) else { continue };
                let lost = rival.keys.remove(at);
                match lost.taggable {
                    Some(tag) => rival.tagged.push(tag),
                    None => {
                        for other in &rival.keys {
                            let order = (other.written, rival.seniority);
                            groups.entry(other.hash).or_default().remove(&(order, row));
                        }
                        open.remove(&row);
                        verdicts.push((row, Err((lost.index, shown.row))));
                    }
                }
            }
            groups.insert(key.hash, BTreeSet::new());
        }
        let mut tagged = shown.tagged;
        tagged.sort();
        tagged.dedup();
        verdicts.push((shown.row, Ok(tagged)));
    }
    verdicts
}
