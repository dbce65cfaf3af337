//! Every table of the log's redb file: key, value, who writes it.
//!
//! Invariant: keys are fixed-width and big-endian, so that byte order is the order of the numbers and bulk writes ascend;
//! values that are not fixed-width carry a check (see [`super::record`]). A change of meaning raises
//! [`STORE_VERSION`]. The archive's tables stand in [`super::archive`]. Callers: the files of this room.

use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use super::LogError;

/// Version of this layout. A store with a greater one is refused.
pub(super) const STORE_VERSION: u32 = 1;
/// Key of the layout's version in [`META`].
pub(super) const STORE_VERSION_KEY: &str = "store version";
/// Key of the clock's last stamp in [`META`].
pub(super) const CLOCK_KEY: &str = "clock";

/// Name -> bytes. The node's own settings and cursors; written by the node, the version by `Log::open`.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Origin (16), seq (8) -> stored event (see `super::stored`). Append only; written by `append`.
pub(super) const EVENTS: TableDefinition<&[u8; 24], &[u8]> = TableDefinition::new("events");
/// Origin (16) -> head record. Written by `append`.
pub(super) const HEADS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("heads");
/// Arrival number, from 1 -> origin, seq. Written by `append`.
pub(super) const ARRIVALS: TableDefinition<u64, &[u8; 24]> = TableDefinition::new("arrivals");
/// Name of a database -> its number, events and audit records. Written by `append` and `add_audit`.
pub(super) const DATABASES: TableDefinition<&str, &[u8]> = TableDefinition::new("databases");
/// Database number (4), origin (16), seq (8): which events are of a database. Written by `append`.
pub(super) const DATABASE_EVENTS: TableDefinition<&[u8; 28], ()> = TableDefinition::new("database events");
/// Database number (4), origin (16), seq (8) -> full cut record of that event, where it changed. Written by `append`.
pub(super) const CUTS: TableDefinition<&[u8; 28], &[u8]> = TableDefinition::new("cuts");
/// Database number (4), own seq (8) -> record of the marks (rids) that event holds and the file may still hold. Written by
/// the node's capture.
pub(super) const RIDS: TableDefinition<&[u8; 12], &[u8]> = TableDefinition::new("rids");
/// Name of a database -> record of the cut its file shows and the file's epoch. Written by the node with every apply.
pub(super) const CURSORS: TableDefinition<&str, &[u8]> = TableDefinition::new("cursors");
/// Database number (4), origin (16), seq (8) -> record of what the file lacks to show all of that event. Written by the
/// node with every apply.
pub(super) const HELD: TableDefinition<&[u8; 28], &[u8]> = TableDefinition::new("held");

/// Hash of a member record (32) -> the signed record. Written by the node.
pub(super) const MEMBERS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("members");
/// Multiaddr, peer's key in hex (or empty) -> nothing. Ways to reach peers; written by the node.
pub(super) const ADDRESSES: TableDefinition<(&str, &str), ()> = TableDefinition::new("addresses");
/// Of these, the ones that ever led to their peer -> the wall time (ms) when last. Made when first needed.
pub(super) const REACHED: TableDefinition<(&str, &str), u64> = TableDefinition::new("addresses reached");

/// Table number -> record of database, table and columns. Written by the evaluator, as everything below.
pub(super) const NAMES: TableDefinition<u32, &[u8]> = TableDefinition::new("names");
/// Table -> record of all rules that events said of it.
pub(super) const RULES: TableDefinition<u32, &[u8]> = TableDefinition::new("rules");
/// Row (29) -> row record.
pub(super) const ROWS: TableDefinition<&[u8; 29], &[u8]> = TableDefinition::new("rows");
/// Table (4), row (29): the rows of a table.
pub(super) const TABLE_ROWS: TableDefinition<&[u8; 33], ()> = TableDefinition::new("table rows");
/// Table (4), canonical key values (hashed when long) -> the row shown under that key.
pub(super) const SHOWN: TableDefinition<&[u8], &[u8; 29]> = TableDefinition::new("shown");
/// Table (4), remainder of the id (4), id with its sign bit flipped (8), row (29): who claims which id.
pub(super) const CLAIMS: TableDefinition<&[u8; 45], ()> = TableDefinition::new("claims");
/// Parent (29), child (29): who refers to whom.
pub(super) const REFERRERS: TableDefinition<&[u8; 58], ()> = TableDefinition::new("referrers");
/// Table (4), hashed UNIQUE key (16), row (29): live holders of a key.
pub(super) const UNIQUE: TableDefinition<&[u8; 49], ()> = TableDefinition::new("unique");
/// Table -> fingerprint record of its shown rows.
pub(super) const FINGERPRINTS: TableDefinition<u32, &[u8]> = TableDefinition::new("fingerprints");
/// Audit number, from 1 -> audit record. Append only.
pub(super) const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
/// Row (29), audit number (8): the audit of a row.
pub(super) const AUDIT_ROWS: TableDefinition<&[u8; 37], ()> = TableDefinition::new("audit rows");
/// Row (29): rows on the shelf.
pub(super) const SHELF: TableDefinition<&[u8; 29], ()> = TableDefinition::new("shelf");
/// Table (4), row (29): rows whose file image must be written.
pub(super) const DIRTY: TableDefinition<&[u8; 33], ()> = TableDefinition::new("dirty");

/// Joins parts into a fixed-width key. Panics when the widths do not add up: they are constants of the callers.
pub(super) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0u8; N];
    let mut at = 0;
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert!(at == N, "a key of {N} bytes was given {at}");
    key
}

/// The range of all keys with this prefix.
pub(super) fn prefix<const N: usize>(prefix: &[u8]) -> ([u8; N], [u8; N]) {
    let (mut from, mut through) = ([0u8; N], [0xff; N]);
    from[..prefix.len()].copy_from_slice(prefix);
    through[..prefix.len()].copy_from_slice(prefix);
    (from, through)
}

/// The layout's version; `None` in an empty file.
pub(super) fn version(database: &Database) -> Result<Option<u32>, LogError> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(stored) = meta.get(STORE_VERSION_KEY)? else { return Ok(None) };
    let bytes = stored.value().try_into().map_err(|_| LogError::Corruption("format version".to_owned()))?;
    Ok(Some(u32::from_be_bytes(bytes)))
}

/// Makes every table, and the version last, in one durable transaction.
pub(super) fn create_all(database: &Database) -> Result<(), LogError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(EVENTS)?;
    transaction.open_table(HEADS)?;
    transaction.open_table(ARRIVALS)?;
    transaction.open_table(DATABASES)?;
    transaction.open_table(DATABASE_EVENTS)?;
    transaction.open_table(CUTS)?;
    transaction.open_table(RIDS)?;
    transaction.open_table(CURSORS)?;
    transaction.open_table(HELD)?;
    transaction.open_table(MEMBERS)?;
    transaction.open_table(ADDRESSES)?;
    create_state(&transaction)?;
    transaction.open_table(AUDIT)?;
    transaction.open_table(AUDIT_ROWS)?;
    transaction.open_table(META)?.insert(STORE_VERSION_KEY, STORE_VERSION.to_be_bytes().as_slice())?;
    transaction.commit()?;
    Ok(())
}

/// Makes the tables of what is derived from events, where they are missing.
pub(super) fn create_state(transaction: &WriteTransaction) -> Result<(), LogError> {
    transaction.open_table(NAMES)?;
    transaction.open_table(RULES)?;
    transaction.open_table(ROWS)?;
    transaction.open_table(TABLE_ROWS)?;
    transaction.open_table(SHOWN)?;
    transaction.open_table(CLAIMS)?;
    transaction.open_table(REFERRERS)?;
    transaction.open_table(UNIQUE)?;
    transaction.open_table(FINGERPRINTS)?;
    transaction.open_table(super::prints::PRINTS)?;
    transaction.open_table(SHELF)?;
    transaction.open_table(DIRTY)?;
    Ok(())
}
