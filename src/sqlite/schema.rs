//! Reads what is replicated, and how, out of an app's file.
//!
//! Invariant: a function of the file's schema and the settings alone, so equal files give equal schemas on every node;
//! reads only. Callers: enroll (installs triggers from it), drain, apply, scan, preflight.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::keys;
use super::plan::{ConflictKey, TablePlan};
use super::quote::{self, check_name, matches_pattern};
use super::search::{self, SearchTable};
use super::{FileSettings, SqliteError};
use crate::model::{Collation, Column, DatabaseSchema, ForeignKey, Identity, Rule, TableSchema, UniqueKey, Value};

/// Everything known of a file's schema at one `schema_version`.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// `PRAGMA schema_version` it was read at.
    pub(super) version: i64,
    /// The replicated part.
    pub(super) schema: DatabaseSchema,
    /// Statements, by position in `schema.tables`.
    pub(super) plans: Vec<TablePlan>,
    /// Full-text tables that can be rebuilt from replicated tables.
    pub(super) search: Vec<SearchTable>,
}

/// One column as `PRAGMA table_xinfo` tells it.
#[derive(Debug)]
struct RawColumn {
    name: String,
    declared_type: String,
    not_null: bool,
    /// Position in the primary key from 1; 0 outside.
    key_position: i64,
    /// 0 for stored, 2 and 3 for generated ones.
    hidden: i64,
    /// Text of its DEFAULT clause.
    default: Option<String>,
    /// Position among the stored columns.
    stored: Option<usize>,
}

/// One UNIQUE index as `PRAGMA index_list` and `index_xinfo` tell it.
#[derive(Debug)]
struct RawIndex {
    name: String,
    unique: bool,
    primary: bool,
    partial: bool,
    /// CREATE INDEX text; empty for constraints.
    sql: String,
    /// (position in the table or negative for rowid (-1) and expressions (-2), collation), key columns only.
    columns: Vec<(i64, String)>,
}

/// One row of `PRAGMA foreign_key_list`, grouped by id.
#[derive(Debug, Default)]
struct RawReference {
    parent: String,
    from: Vec<String>,
    to: Vec<Option<String>>,
    on_delete: String,
}

/// A table's name with what the schema table says of it.
struct RawTable {
    name: String,
    without_rowid: bool,
}

impl Layout {
    /// Position and plan of a replicated table.
    pub(super) fn find(&self, table: &str) -> Result<(&TableSchema, &TablePlan), SqliteError> {
        // Tables are sorted by name; callers use the exact name nearly always.
        let exact = self.schema.tables.binary_search_by(|probe| probe.name.as_str().cmp(table));
        let position = exact
            .ok()
            .or_else(|| self.schema.tables.iter().position(|candidate| candidate.name.eq_ignore_ascii_case(table)));
        let position = position.ok_or_else(|| SqliteError::UnknownTable(table.to_owned()))?;
        Ok((&self.schema.tables[position], &self.plans[position]))
    }
}

/// `PRAGMA schema_version`: in a transaction, that of its snapshot.
pub(super) fn schema_version(connection: &Connection) -> Result<i64, SqliteError> {
    Ok(connection.prepare_cached("PRAGMA main.schema_version")?.query_row([], |row| row.get(0))?)
}

/// Reads the whole schema. Call inside a transaction for one snapshot.
pub(super) fn read_layout(connection: &Connection, settings: &FileSettings) -> Result<Layout, SqliteError> {
    let version = schema_version(connection)?;
    let (tables, mut left_out, search) = list_tables(connection, settings)?;
    let mut found: Vec<(TableSchema, TablePlan, Vec<RawReference>)> = Vec::new();
    for table in tables {
        match read_table(connection, settings, &table)? {
            Ok((schema, plan, references)) => found.push((schema, plan, references)),
            Err(reason) => left_out.push((table.name, reason)),
        }
    }
    found.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    left_out.sort();
    resolve_references(&mut found, settings);
    let mut layout = Layout { version, search, ..Layout::default() };
    for (schema, plan, _) in found {
        layout.schema.tables.push(schema);
        layout.plans.push(plan);
    }
    layout.schema.database = settings.name.clone();
    layout.schema.left_out = left_out;
    layout.schema.fingerprint = fingerprint(&layout.schema.tables);
    Ok(layout)
}

/// Candidates for replication, what is left out with reasons, and full-text tables that can be rebuilt.
#[allow(clippy::type_complexity)]
fn list_tables(
    connection: &Connection,
    settings: &FileSettings,
) -> Result<(Vec<RawTable>, Vec<(String, String)>, Vec<SearchTable>), SqliteError> {
    let mut statement = connection.prepare(
        "SELECT l.name, l.type, l.wr, coalesce(m.sql, '') FROM pragma_table_list AS l \
         LEFT JOIN main.sqlite_master AS m ON m.name = l.name AND m.type IN ('table', 'view') \
         WHERE l.schema = 'main' ORDER BY l.name",
    )?;
    let rows =
        statement.query_map([], |row| Ok((text(row, 0)?, text(row, 1)?, row.get::<_, i64>(2)? != 0, text(row, 3)?)))?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let virtual_tables: Vec<&str> = rows.iter().filter(|row| row.1 == "virtual").map(|row| row.0.as_str()).collect();
    let (mut tables, mut left_out, mut search_tables) = (Vec::new(), Vec::new(), Vec::new());
    for (name, kind, without_rowid, sql) in &rows {
        if has_prefix(name, "sqlite_") || has_prefix(name, "_litemesh_") {
            continue;
        }
        check_name(name)?;
        let reason = match kind.as_str() {
            "view" => "a view: it holds no rows of its own".to_owned(),
            "shadow" => "belongs to a virtual table".to_owned(),
            "virtual" => match search::parse(name, sql) {
                Ok(table) => {
                    let reason =
                        format!("a full-text index over {:?}: rebuilt here after changes arrive", table.content);
                    search_tables.push(table);
                    reason
                }
                Err(reason) => reason,
            },
            _ => match leave_out(name, &virtual_tables, connection, settings)? {
                Some(reason) => reason,
                None => {
                    tables.push(RawTable { name: name.clone(), without_rowid: *without_rowid });
                    continue;
                }
            },
        };
        left_out.push((name.clone(), reason));
    }
    Ok((tables, left_out, search_tables))
}

/// Why an ordinary table is not replicated, if so.
fn leave_out(
    name: &str,
    virtual_tables: &[&str],
    connection: &Connection,
    settings: &FileSettings,
) -> Result<Option<String>, SqliteError> {
    if let Some(pattern) = settings.exclude.iter().find(|pattern| matches_pattern(pattern, name)) {
        return Ok(Some(format!("excluded by the configuration ({pattern:?})")));
    }
    if !settings.include.is_empty() && !settings.include.iter().any(|pattern| matches_pattern(pattern, name)) {
        return Ok(Some("not among the tables that the configuration includes".to_owned()));
    }
    // Shadow tables of modules that this SQLite does not have are known by their names only.
    for owner in virtual_tables {
        let behind = name.len() > owner.len() + 1 && has_prefix(name, owner) && name.as_bytes()[owner.len()] == b'_';
        if behind && !is_module_known(connection, owner)? {
            return Ok(Some(format!("belongs, by its name, to the virtual table {owner:?}")));
        }
    }
    Ok(None)
}

fn is_module_known(connection: &Connection, virtual_table: &str) -> Result<bool, SqliteError> {
    let columns: rusqlite::Result<i64> =
        connection.query_row("SELECT count(*) FROM pragma_table_xinfo(?1)", [virtual_table], |row| row.get(0));
    Ok(columns.unwrap_or(0) > 0)
}

type TableParts = (TableSchema, TablePlan, Vec<RawReference>);

/// One table; the inner error says why it cannot be replicated.
fn read_table(
    connection: &Connection,
    settings: &FileSettings,
    table: &RawTable,
) -> Result<Result<TableParts, String>, SqliteError> {
    let columns = read_columns(connection, &table.name)?;
    let indexes = read_indexes(connection, &table.name)?;
    let references = read_references(connection, &table.name)?;
    for column in &columns {
        check_name(&column.name)?;
    }
    for index in &indexes {
        if let Some((_, collation)) = index.columns.iter().find(|(_, name)| parse_collation(name).is_none()) {
            return Ok(Err(format!("index {:?} uses the collation {collation:?}, which only the app has", index.name)));
        }
    }
    let rowid = if table.without_rowid { None } else { rowid_name(&columns) };
    let (identity, key_index) = identify(settings, table, &columns, &indexes, &references);
    if identity == Identity::Rowid && rowid.is_none() {
        return Ok(Err("it has no key, and its columns hide the names of the rowid".to_owned()));
    }
    let mut unique = Vec::new();
    let (mut conflicts, mut blind) = (Vec::new(), Vec::new());
    for index in indexes.iter().filter(|index| index.unique) {
        let is_key = key_index.as_deref() == Some(index.name.as_str());
        match conflict_key(index, &columns, is_key) {
            Some(conflict) => conflicts.push(conflict),
            None => blind.push(index.name.clone()),
        }
        if !is_key {
            unique.push(unique_key(index, &columns));
        }
    }
    unique.sort_by(|a, b| (&a.columns.len(), &a.name).cmp(&(&b.columns.len(), &b.name)));
    conflicts.sort_by(|a: &ConflictKey, b| (&a.columns, &a.partial).cmp(&(&b.columns, &b.partial)));
    conflicts.dedup();
    let mut schema = TableSchema {
        name: table.name.clone(),
        columns: stored(&columns).map(describe).collect(),
        identity,
        foreign_keys: Vec::new(),
        unique,
        collisions: Rule::UniqueMerge,
        without_rowid: table.without_rowid,
    };
    if schema.holds_accounts() {
        schema.collisions = Rule::UniqueSuffix;
    }
    compute_keys(connection, &mut schema, &indexes)?;
    let alias = alias_column(table, &columns, &indexes).map(|position| columns[position].name.clone());
    let key_collations = key_collations(&schema, &columns, &indexes, key_index.as_deref());
    let plan = TablePlan::new(&schema, rowid, alias, (conflicts, blind), &key_collations);
    Ok(Ok((schema, plan, references)))
}

fn describe(column: &RawColumn) -> Column {
    Column {
        name: column.name.clone(),
        declared_type: column.declared_type.clone(),
        not_null: column.not_null,
        default: column.default.as_deref().map_or(Value::Null, |text| constant_default(&column.declared_type, text)),
    }
}

/// The value that ADD COLUMN gives to rows that are there: only a constant can do that, anything else reads as NULL. A
/// scratch table of the column's own type says what is stored, affinity included.
fn constant_default(declared_type: &str, text: &str) -> Value {
    let computed = text.contains('(') || text.to_ascii_uppercase().starts_with("CURRENT_");
    if computed {
        return Value::Null;
    }
    let stored = Connection::open_in_memory().and_then(|scratch| {
        scratch.execute_batch(&format!(
            "CREATE TABLE t (c {declared_type} DEFAULT {text}, k); INSERT INTO t (k) VALUES (1)"
        ))?;
        scratch.query_row("SELECT c FROM t", [], |row| row.get_ref(0).map(super::value::read))
    });
    stored.unwrap_or(Value::Null)
}

fn stored(columns: &[RawColumn]) -> impl Iterator<Item = &RawColumn> {
    columns.iter().filter(|column| column.stored.is_some())
}

fn read_columns(connection: &Connection, table: &str) -> Result<Vec<RawColumn>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT name, type, \"notnull\", pk, hidden, dflt_value FROM pragma_table_xinfo(?1) ORDER BY cid",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(RawColumn {
            name: text(row, 0)?,
            declared_type: text(row, 1)?,
            not_null: row.get::<_, i64>(2)? != 0,
            key_position: row.get(3)?,
            hidden: row.get(4)?,
            default: row.get(5)?,
            stored: None,
        })
    })?;
    let mut columns = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for (position, column) in columns.iter_mut().filter(|column| column.hidden == 0).enumerate() {
        column.stored = Some(position);
    }
    Ok(columns)
}

fn read_indexes(connection: &Connection, table: &str) -> Result<Vec<RawIndex>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT l.name, l.\"unique\", l.origin, l.partial, coalesce(m.sql, '') FROM pragma_index_list(?1) AS l \
             LEFT JOIN main.sqlite_master AS m ON m.type = 'index' AND m.name = l.name ORDER BY l.name",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(RawIndex {
            name: text(row, 0)?,
            unique: row.get::<_, i64>(1)? != 0,
            primary: text(row, 2)? == "pk",
            partial: row.get::<_, i64>(3)? != 0,
            sql: text(row, 4)?,
            columns: Vec::new(),
        })
    })?;
    let mut indexes = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut statement = connection
        .prepare_cached("SELECT cid, coalesce(coll, '') FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno")?;
    for index in &mut indexes {
        let rows = statement.query_map([&index.name], |row| Ok((row.get(0)?, text(row, 1)?)))?;
        index.columns = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    }
    Ok(indexes)
}

fn read_references(connection: &Connection, table: &str) -> Result<Vec<RawReference>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, \"table\", \"from\", \"to\", on_delete FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
    )?;
    let mut references: BTreeMap<i64, RawReference> = BTreeMap::new();
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        let reference = references.entry(row.get(0)?).or_default();
        reference.parent = text(row, 1)?;
        reference.from.push(text(row, 2)?);
        reference.to.push(row.get_ref(3)?.as_bytes_or_null().ok().flatten().map(lossy));
        reference.on_delete = text(row, 4)?;
    }
    Ok(references.into_values().collect())
}

/// The position of the column that is the rowid under another name. Only such a key has no index of its own.
fn alias_column(table: &RawTable, columns: &[RawColumn], indexes: &[RawIndex]) -> Option<usize> {
    let key: Vec<usize> = (0..columns.len()).filter(|&position| columns[position].key_position > 0).collect();
    let alias = !table.without_rowid && key.len() == 1 && !indexes.iter().any(|index| index.primary);
    if alias { Some(key[0]) } else { None }
}

/// How rows of a table are told apart, and the index that is their key, where it is one.
fn identify(
    settings: &FileSettings,
    table: &RawTable,
    columns: &[RawColumn],
    indexes: &[RawIndex],
    references: &[RawReference],
) -> (Identity, Option<String>) {
    if let Some(alias) = alias_column(table, columns, indexes) {
        let name = &columns[alias].name;
        let position = columns[alias].stored.expect("a primary key column is never generated");
        // Joined-table inheritance: the id is the parent's id, so the parent's identity is the row's.
        let inherits = references.iter().any(|reference| reference.from.iter().any(|c| c.eq_ignore_ascii_case(name)))
            || settings
                .references
                .iter()
                .any(|(t, column, _)| t.eq_ignore_ascii_case(&table.name) && column.eq_ignore_ascii_case(name));
        let natural = settings.natural_keys.iter().any(|pattern| matches_pattern(pattern, &table.name));
        let keyed = inherits || natural;
        let identity = if keyed { Identity::Keyed(vec![position]) } else { Identity::Surrogate(position) };
        return (identity, None);
    }
    let mut key: Vec<&RawColumn> = columns.iter().filter(|column| column.key_position > 0).collect();
    if !key.is_empty() {
        key.sort_by_key(|column| column.key_position);
        let positions = key.iter().filter_map(|column| column.stored).collect();
        let index = indexes.iter().find(|index| index.primary).map(|index| index.name.clone());
        return (Identity::Keyed(positions), index);
    }
    // The narrowest UNIQUE NOT NULL index stands in; ties go by column order, so that every node chooses the same.
    let mut candidates: Vec<(Vec<usize>, &RawIndex)> = indexes
        .iter()
        .filter(|index| index.unique && !index.partial)
        .filter_map(|index| Some((plain_not_null(index, columns)?, index)))
        .collect();
    candidates.sort_by(|a, b| (a.0.len(), &a.0, &a.1.name).cmp(&(b.0.len(), &b.0, &b.1.name)));
    match candidates.into_iter().next() {
        Some((positions, index)) => (Identity::Keyed(positions), Some(index.name.clone())),
        None => (Identity::Rowid, None),
    }
}

fn plain_not_null(index: &RawIndex, columns: &[RawColumn]) -> Option<Vec<usize>> {
    index
        .columns
        .iter()
        .map(|(cid, _)| {
            let column = columns.get(usize::try_from(*cid).ok()?)?;
            if column.not_null { column.stored } else { None }
        })
        .collect()
}

fn unique_key(index: &RawIndex, columns: &[RawColumn]) -> UniqueKey {
    let exact: Option<Vec<(usize, Collation)>> = index
        .columns
        .iter()
        .map(|(cid, collation)| {
            let position = columns.get(usize::try_from(*cid).ok()?)?.stored?;
            Some((position, parse_collation(collation)?))
        })
        .collect();
    let name = index.name.clone();
    match exact {
        Some(columns) if !index.partial => UniqueKey { name, columns, exact: true, computed: None },
        Some(_) | None => UniqueKey { name, columns: Vec::new(), exact: false, computed: None },
    }
}

/// Asks SQLite for the keys that only it can compute.
fn compute_keys(connection: &Connection, schema: &mut TableSchema, indexes: &[RawIndex]) -> Result<(), SqliteError> {
    let bare = schema.clone();
    for key in schema.unique.iter_mut().filter(|key| !key.exact) {
        let Some(index) = indexes.iter().find(|index| index.name == key.name) else { continue };
        let collations = index.columns.iter().filter_map(|(_, name)| parse_collation(name)).collect();
        let sql = "SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?1";
        let table_sql: String = connection.prepare_cached(sql)?.query_row([&schema.name], |row| text(row, 0))?;
        key.computed = keys::computed_key(&bare, &table_sql, &index.sql, collations);
    }
    Ok(())
}

/// What a trigger can compare to find the row that an insert would evict; `None` where only SQLite knows (expressions).
fn conflict_key(index: &RawIndex, columns: &[RawColumn], is_key: bool) -> Option<ConflictKey> {
    let partial = if index.partial { Some(quote::partial_condition(&index.sql)?) } else { None };
    let mut any_update = index.partial;
    let named = index
        .columns
        .iter()
        .map(|(cid, collation)| {
            let column = columns.get(usize::try_from(*cid).ok()?)?;
            any_update |= column.stored.is_none();
            Some((column.name.clone(), collation.clone()))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(ConflictKey { columns: named, is_key, any_update, partial })
}

fn key_collations(
    schema: &TableSchema,
    columns: &[RawColumn],
    indexes: &[RawIndex],
    key_index: Option<&str>,
) -> Vec<Collation> {
    let Some(index) = key_index.and_then(|name| indexes.iter().find(|index| index.name == name)) else {
        return vec![Collation::Binary; schema.key_columns().len()];
    };
    let by_position: BTreeMap<usize, Collation> = index
        .columns
        .iter()
        .filter_map(|(cid, name)| Some((columns.get(usize::try_from(*cid).ok()?)?.stored?, parse_collation(name)?)))
        .collect();
    schema.key_columns().iter().map(|position| *by_position.get(position).unwrap_or(&Collation::Binary)).collect()
}

/// A name of the rowid that no column hides.
fn rowid_name(columns: &[RawColumn]) -> Option<String> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(name)))
        .map(str::to_owned)
}

fn resolve_references(found: &mut [TableParts], settings: &FileSettings) {
    let tables: Vec<TableSchema> = found.iter().map(|(schema, _, _)| schema.clone()).collect();
    let find = |name: &str| tables.iter().find(|table| table.name.eq_ignore_ascii_case(name));
    for (schema, _, references) in found.iter_mut() {
        let mut keys: Vec<ForeignKey> =
            references.iter().filter_map(|raw| declared_key(schema, raw, find(&raw.parent)?)).collect();
        for (table, column, to) in &settings.references {
            if table.eq_ignore_ascii_case(&schema.name)
                && let Some(key) = configured_key(schema, settings, column, to)
                && !keys.iter().any(|other| other.columns == key.columns)
            {
                keys.push(key);
            }
        }
        keys.sort_by(|a, b| {
            (&a.columns, &a.parent, &a.parent_columns).cmp(&(&b.columns, &b.parent, &b.parent_columns))
        });
        keys.dedup();
        schema.foreign_keys = keys;
    }
}

/// A declared foreign key whose parent is replicated; others travel as plain values.
fn declared_key(child: &TableSchema, raw: &RawReference, parent: &TableSchema) -> Option<ForeignKey> {
    let columns = raw.from.iter().map(|name| child.column(name)).collect::<Option<Vec<_>>>()?;
    let parent_columns: Vec<String> = if raw.to.iter().all(Option::is_some) {
        raw.to.iter().flatten().filter_map(|name| parent.column(name)).map(|p| parent.columns[p].name.clone()).collect()
    } else {
        parent.key_columns().iter().map(|&position| parent.columns[position].name.clone()).collect()
    };
    if parent_columns.len() != columns.len() {
        return None;
    }
    let nullable = columns.iter().any(|&position| !child.columns[position].not_null);
    let keeps_parent = !(raw.on_delete.eq_ignore_ascii_case("SET NULL") && nullable);
    let parent = parent.name.clone();
    Some(ForeignKey { columns, database: None, parent, parent_columns, keeps_parent, declared: true })
}

fn configured_key(child: &TableSchema, settings: &FileSettings, column: &str, to: &str) -> Option<ForeignKey> {
    let parts: Vec<&str> = to.split('.').collect();
    let (database, parent, parent_column) = match parts.as_slice() {
        [table, column] => (None, *table, *column),
        [database, table, column] => (Some(*database), *table, *column),
        _ => return None,
    };
    Some(ForeignKey {
        columns: vec![child.column(column)?],
        database: database.filter(|name| *name != settings.name).map(str::to_owned),
        parent: parent.to_owned(),
        parent_columns: vec![parent_column.to_owned()],
        keeps_parent: false,
        declared: false,
    })
}

/// A hash of what matters of the tables' definitions; spelling and comments of the SQL text do not.
fn fingerprint(tables: &[TableSchema]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 schema");
    for table in tables {
        hasher.update(&table_shape(table, true));
    }
    crate::model::identity::first_16(&hasher)
}

/// Canonical bytes of a table's definition.
pub(super) fn table_shape(table: &TableSchema, with_name: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |word: &str| Value::text(word).write_canonical(&mut out);
    if with_name {
        put(&table.name);
    }
    for column in &table.columns {
        put(&column.name);
        put(&column.declared_type.to_ascii_uppercase());
        put(if column.not_null { "not null" } else { "" });
    }
    put(&format!("{:?} {}", table.identity, table.without_rowid));
    for key in &table.foreign_keys {
        put(&format!("{key:?}"));
    }
    for key in &table.unique {
        put(&format!("{:?} {}", key.columns, key.exact));
    }
    out
}

/// The distinct replicated tables that have no key of their own.
pub(super) fn keyless_tables(schema: &DatabaseSchema) -> BTreeSet<&str> {
    schema.tables.iter().filter(|table| table.identity == Identity::Rowid).map(|table| table.name.as_str()).collect()
}

fn parse_collation(name: &str) -> Option<Collation> {
    match name.to_ascii_uppercase().as_str() {
        "BINARY" => Some(Collation::Binary),
        "NOCASE" => Some(Collation::NoCase),
        "RTRIM" => Some(Collation::RTrim),
        _ => None,
    }
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.len() >= prefix.len() && name.as_bytes()[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes())
}

/// Names and SQL as text, even where their bytes are not.
pub(super) fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(row.get_ref(column)?.as_bytes_or_null().ok().flatten().map(lossy).unwrap_or_default())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
