//! Full-text tables over replicated tables: the app's triggers keep them up to date for its own writes; after ours they
//! are rebuilt.
//!
//! An index that lacks a row is more than a search that misses it: the app's own trigger takes the row out of the index
//! when the app changes it, and FTS5 answers that with SQLITE_CORRUPT, which fails the app's write. So indexes over small
//! tables are rebuilt in the transaction that writes the rows; large ones later, for the sake of short write locks.
//! Invariant: a rebuild is noted in the file before it is due and forgotten only when done, so a crash cannot lose it.
//! Callers: schema (finds them), apply (rebuilds or notes), node (rebuilds, when things are quiet).

use rusqlite::Connection;

use super::meta;
use super::quote::quote;
use super::{AppFile, SqliteError};

/// Up to this many rows are indexed anew inside an apply: a few milliseconds.
const ROWS_AT_ONCE: i64 = 2_000;

/// A full-text table whose text lives in an ordinary table or view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SearchTable {
    /// Its name.
    pub(super) name: String,
    /// The table or view that holds the text.
    pub(super) content: String,
}

/// Reads a virtual table's definition; the error says why it is left out.
pub(super) fn parse(name: &str, sql: &str) -> Result<SearchTable, String> {
    let own = || "a virtual table: triggers cannot watch it".to_owned();
    let lower = sql.to_ascii_lowercase();
    let using = lower.find(" using ").ok_or_else(own)? + " using ".len();
    let module: String = lower[using..].trim_start().chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
    if module != "fts5" && module != "fts4" {
        return Err(format!("a virtual table ({module}): triggers cannot watch it"));
    }
    let open = sql[using..].find('(').map(|at| using + at + 1);
    let close = sql.rfind(')');
    let (Some(open), Some(close)) = (open, close) else { return Err(own()) };
    for argument in split_arguments(sql.get(open..close).unwrap_or_default()) {
        let Some((option, value)) = argument.split_once('=') else { continue };
        if option.trim().eq_ignore_ascii_case("content") {
            let content = unquote(value.trim());
            if content.is_empty() {
                return Err("a contentless full-text index: it cannot be rebuilt from rows".to_owned());
            }
            return Ok(SearchTable { name: name.to_owned(), content });
        }
    }
    Err("a full-text table with its own content: triggers cannot watch it (give it an external content table)"
        .to_owned())
}

/// Splits at commas outside quotes.
fn split_arguments(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut quoted: Option<char> = None;
    for c in text.chars() {
        match quoted {
            Some(end) if c == end => quoted = None,
            None if c == ',' => {
                arguments.push(String::new());
                continue;
            }
            None if matches!(c, '\'' | '"' | '`' | '[') => quoted = Some(if c == '[' { ']' } else { c }),
            Some(_) | None => {}
        }
        arguments.last_mut().expect("never empty").push(c);
    }
    arguments
}

fn unquote(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next_back()) {
        (Some('['), Some(']')) => chars.as_str().to_owned(),
        (Some(open @ ('\'' | '"' | '`')), Some(close)) if open == close => {
            let doubled: String = [open, open].iter().collect();
            chars.as_str().replace(&doubled, &open.to_string())
        }
        _ => text.to_owned(),
    }
}

impl AppFile {
    /// Whether remote changes wait for a rebuild of full-text indexes.
    pub fn search_is_stale(&self) -> Result<bool, SqliteError> {
        Ok(!self.layout.search.is_empty() && meta::read_flag(&self.connection, meta::SEARCH_STALE)?)
    }

    /// Rebuilds the full-text indexes over tables that were written by [`super::Apply`] since the last rebuild; returns
    /// their names. Takes the write lock for as long as SQLite needs to read the indexed tables: call it when the app is
    /// quiet.
    pub fn rebuild_search(&mut self) -> Result<Vec<String>, SqliteError> {
        if !self.search_is_stale()? {
            return Ok(Vec::new());
        }
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let rebuilt = rebuild_all(&transaction, &self.layout.search)?;
        transaction.commit()?;
        Ok(rebuilt)
    }

    /// Inside an apply that wrote indexed rows: rebuilds the indexes when all of them are small, else notes that they are
    /// due.
    pub(super) fn follow_search(&self) -> Result<(), SqliteError> {
        for table in &self.layout.search {
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM main.{} LIMIT {})",
                quote(&table.content),
                ROWS_AT_ONCE + 1
            );
            // A view that only the app can read is left to the rebuild, which says so.
            let rows = self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap_or(i64::MAX);
            if rows > ROWS_AT_ONCE {
                return meta::write_flag(&self.connection, meta::SEARCH_STALE, true);
            }
        }
        rebuild_all(&self.connection, &self.layout.search).map(drop)
    }
}

/// Rebuilds all indexes; the names of those that could be.
fn rebuild_all(connection: &Connection, tables: &[SearchTable]) -> Result<Vec<String>, SqliteError> {
    let mut rebuilt = Vec::new();
    for table in tables {
        let name = quote(&table.name);
        match connection.execute_batch(&format!("INSERT INTO main.{name}({name}) VALUES ('rebuild')")) {
            Ok(()) => rebuilt.push(table.name.clone()),
            // A tokenizer that only the app has: trying again would not help, and rows do not depend on it.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown) => {
                tracing::warn!(index = table.name, %error, "a full-text index cannot be rebuilt here");
            }
            Err(error) => return Err(error.into()),
        }
    }
    meta::write_flag(connection, meta::SEARCH_STALE, false)?;
    Ok(rebuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_table_is_found_in_every_spelling() {
        for (sql, content) in [
            ("CREATE VIRTUAL TABLE s USING fts5(title, body, content='notes', content_rowid='id')", "notes"),
            ("CREATE VIRTUAL TABLE s USING fts5(title, content=notes)", "notes"),
            ("create virtual table s using FTS4(content=\"it's, here\", title)", "it's, here"),
            ("CREATE VIRTUAL TABLE s USING fts5(a, tokenize = 'porter, ascii', content = [no tes])", "no tes"),
        ] {
            assert_eq!(parse("s", sql).map(|table| table.content), Ok(content.to_owned()), "{sql}");
        }
        for sql in [
            "CREATE VIRTUAL TABLE s USING fts5(title, body)",
            "CREATE VIRTUAL TABLE s USING fts5(title, content='')",
            "CREATE VIRTUAL TABLE s USING rtree(id, a, b)",
        ] {
            assert!(parse("s", sql).is_err(), "{sql}");
        }
    }
}
