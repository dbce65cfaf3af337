//! Columns that look like references and are declared by nobody, and the lines of configuration that would declare them.
//!
//! A column is proposed by its name (`user_id`, `teamId`, `id_event`, `locked_by_user_id`), by the role it names
//! (`scout_id`, `created_by`: a person, so a table that holds accounts), or by its values where they are ids of one table
//! only. Ids and names inside texts (`"111,222"`, JSON, a username) are told, not proposed: nobody can rewrite them safely.
//! Invariant: reads only, a bounded sample of each column. Caller: daemon (preflight of all files of a node).

use serde::{Deserialize, Serialize};

use super::quote::quote;
use super::{AppFile, SqliteError, value};
use crate::model::{Identity, TableSchema, Value};

/// Distinct values of a column that are looked at.
const SAMPLE_MAX: usize = 200;

/// Values that must all be ids of one table before that alone counts.
const VALUES_MIN: usize = 5;

/// What people are called in names of columns.
const PEOPLE: [&str; 12] = [
    "scout", "owner", "author", "creator", "editor", "reviewer", "assignee", "person", "member", "account", "login",
    "by",
];

/// A reference that somebody should declare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceProposal {
    /// The table.
    pub table: String,
    /// Its column.
    pub column: String,
    /// What it seems to refer to: `database.table.column`.
    pub to: String,
    /// Why.
    pub reason: String,
    /// How many of the values looked at are ids there.
    pub found: u64,
    /// How many were looked at.
    pub looked_at: u64,
}

/// All that one database's columns suggest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggestions {
    /// References to declare.
    pub references: Vec<ReferenceProposal>,
    /// (table, what a person should know of a column that holds ids or names in a text).
    pub told: Vec<(String, String)>,
    /// The lines of configuration that declare [`Suggestions::references`]; empty when there are none.
    pub config: String,
}

/// A table that can be referred to.
struct Target<'f> {
    file: &'f AppFile,
    table: &'f TableSchema,
    key: &'f str,
}

/// What the columns of these files suggest, file by file.
pub fn suggest(files: &[AppFile]) -> Result<Vec<Suggestions>, SqliteError> {
    let mut targets = Vec::new();
    for file in files {
        for table in &file.schema().tables {
            if let Identity::Surrogate(column) = table.identity {
                targets.push(Target { file, table, key: &table.columns[column].name });
            }
        }
    }
    files.iter().map(|file| suggest_for(file, &targets)).collect()
}

fn suggest_for(file: &AppFile, targets: &[Target<'_>]) -> Result<Suggestions, SqliteError> {
    let mut suggestions = Suggestions::default();
    for table in &file.schema().tables {
        let key = table.key_columns();
        for position in 0..table.columns.len() {
            let refers = table.foreign_keys.iter().any(|key| key.columns.contains(&position));
            if refers || key == [position] {
                continue;
            }
            let name = &table.columns[position].name;
            let sample = file.sample(&table.name, name)?;
            let numbers: Vec<i64> = sample.iter().filter_map(Value::as_integer).collect();
            let declared = table.columns[position].declared_type.to_ascii_uppercase();
            if numbers.len() == sample.len() && (declared.contains("INT") || !numbers.is_empty()) {
                if let Some(proposal) = propose(file, table, name, &numbers, targets)? {
                    suggestions.references.push(proposal);
                }
            } else if let Some(what) = told(file, (table, name), &sample, targets)? {
                suggestions.told.push((table.name.clone(), what));
            }
        }
    }
    suggestions.config = config(&file.schema().database, &suggestions.references);
    Ok(suggestions)
}

/// The one table that a column of numbers seems to refer to.
fn propose(
    file: &AppFile,
    table: &TableSchema,
    column: &str,
    numbers: &[i64],
    targets: &[Target<'_>],
) -> Result<Option<ReferenceProposal>, SqliteError> {
    let stem = stem(column);
    let own = |target: &&Target<'_>| std::ptr::eq(target.file, file);
    let named = |target: &&Target<'_>| stem.as_ref().is_some_and(|stem| names(stem, &target.table.name));
    let person = stem.as_ref().is_some_and(|stem| is_person(stem)) || is_person(&words(column));
    // Without values to look at, a role alone says too little: "invited_by" may be a team's number.
    let accounts = |target: &&Target<'_>| person && !numbers.is_empty() && holds_people(target.table);
    // The same file comes first: a name is meant where it is written.
    let by_name = targets.iter().filter(own).find(named).or_else(|| targets.iter().find(named));
    let by_role = by_name.or_else(|| targets.iter().find(accounts));
    let (target, reason) = match (by_name, by_role) {
        (Some(target), _) => (target, format!("its name says {}", target.table.name)),
        (None, Some(target)) => (target, format!("its name says a person, and {} holds accounts", target.table.name)),
        (None, None) => {
            let Some(_) = stem.filter(|_| numbers.len() >= VALUES_MIN) else { return Ok(None) };
            let mut fitting = Vec::new();
            for target in targets.iter().filter(|target| target.table.name != table.name) {
                if target.file.count_ids(&target.table.name, numbers)? == numbers.len() {
                    fitting.push(target);
                }
            }
            match fitting[..] {
                [only] => (only, format!("its values are ids of {} and of no other table", only.table.name)),
                _ => return Ok(None),
            }
        }
    };
    let found = target.file.count_ids(&target.table.name, numbers)?;
    if found * 2 < numbers.len() {
        return Ok(None);
    }
    Ok(Some(ReferenceProposal {
        table: table.name.clone(),
        column: column.to_owned(),
        to: format!("{}.{}.{}", target.file.schema().database, target.table.name, target.key),
        reason,
        found: found as u64,
        looked_at: numbers.len() as u64,
    }))
}

/// What a column of texts holds besides text.
fn told(
    file: &AppFile,
    (table, column): (&TableSchema, &str),
    sample: &[Value],
    targets: &[Target<'_>],
) -> Result<Option<String>, SqliteError> {
    let texts: Vec<&str> = sample
        .iter()
        .filter_map(|value| match value {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
        .filter(|text| !text.is_empty())
        .collect();
    if texts.is_empty() {
        return Ok(None);
    }
    let most = |fits: &dyn Fn(&str) -> bool| texts.iter().filter(|text| fits(text)).count() * 2 > texts.len();
    let is_json = |text: &str| (text.starts_with('[') || text.starts_with('{')) && file.is_json(text);
    let is_list = |text: &str| text.contains(',') && text.split(',').all(|part| part.trim().parse::<i64>().is_ok());
    let inside = "what stands inside a text is not rewritten when an id moves or a name changes";
    if most(&is_list) {
        return Ok(Some(format!("column {column:?} holds lists of numbers: if they are ids, {inside}")));
    }
    if most(&is_json) {
        let numbers = texts.iter().any(|text| text.bytes().any(|byte| byte.is_ascii_digit()));
        let what = format!("column {column:?} holds JSON: if there are ids in it, {inside}");
        return Ok(numbers.then_some(what));
    }
    for target in targets.iter().filter(|target| holds_people(target.table)) {
        for unique in target.table.unique.iter().filter(|unique| unique.exact && unique.columns.len() == 1) {
            let name = &target.table.columns[unique.columns[0].0].name;
            if std::ptr::eq(target.table, table) {
                continue;
            }
            let found = target.file.count_texts(&target.table.name, name, &texts)?;
            if found * 2 > texts.len() {
                let table = format!("{}.{}", target.file.schema().database, target.table.name);
                return Ok(Some(format!(
                    "column {column:?} holds values of {name:?} of {table}: it keeps them when that row's {name} changes, \
                     and it cannot tell two rows apart that once had the same one"
                )));
            }
        }
    }
    Ok(None)
}

/// Whether the rows of a table are people who log in; a table with tokens alone is something else.
fn holds_people(table: &TableSchema) -> bool {
    let name = |column: &crate::model::Column| column.name.to_ascii_lowercase();
    table.holds_accounts()
        && table
            .columns
            .iter()
            .any(|column| ["password", "passwd", "username"].iter().any(|word| name(column).contains(word)))
}

/// The lines to add under a database, ready to paste.
fn config(database: &str, references: &[ReferenceProposal]) -> String {
    let mut text = String::new();
    let mut tables: Vec<&str> = references.iter().map(|one| one.table.as_str()).collect();
    tables.dedup();
    for table in tables {
        let of_table = references.iter().filter(|one| one.table == table);
        let entries: Vec<String> =
            of_table.map(|one| format!("{{ column = {:?}, to = {:?} }}", one.column, one.to)).collect();
        text += &format!("[[database.table]]\nname = {table:?}\nreferences = [{}]\n", entries.join(", "));
    }
    if text.is_empty() { text } else { format!("# under [[database]] name = {database:?}\n{text}") }
}

/// The words of a name: `lockedByUserId` and `locked_by_user_id` alike.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        let starts = letter == '_' || letter.is_ascii_uppercase() && words.last().is_some_and(|word| !word.is_empty());
        if starts {
            words.push(String::new());
        }
        if letter != '_'
            && let Some(word) = words.last_mut()
        {
            word.push(letter.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The words beside `id`: what the id is of.
fn stem(column: &str) -> Option<Vec<String>> {
    let mut words = words(column);
    if words.len() < 2 {
        return None;
    }
    if words.last().is_some_and(|word| word == "id") {
        words.pop();
    } else if words[0] == "id" {
        words.remove(0);
    } else {
        return None;
    }
    Some(words)
}

/// Whether the last words of a stem are a table's name, singular or plural.
fn names(stem: &[String], table: &str) -> bool {
    let table = words(table);
    let singular = |word: &String| word.strip_suffix('s').unwrap_or(word).to_owned();
    let same = |(a, b): (&String, &String)| singular(a) == singular(b);
    !table.is_empty() && stem.len() >= table.len() && stem.iter().rev().zip(table.iter().rev()).all(same)
}

fn is_person(words: &[String]) -> bool {
    words.last().is_some_and(|word| PEOPLE.contains(&word.as_str()))
}

impl AppFile {
    /// Some distinct values of a column that are not NULL.
    fn sample(&self, table: &str, column: &str) -> Result<Vec<Value>, SqliteError> {
        let (table, column) = (quote(table), quote(column));
        let sql = format!(
            "SELECT DISTINCT {column} FROM (SELECT {column} FROM main.{table} WHERE {column} IS NOT NULL LIMIT 5000) \
             LIMIT {SAMPLE_MAX}"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut values = Vec::new();
        while let Some(row) = rows.next()? {
            values.push(value::read(row.get_ref(0)?));
        }
        Ok(values)
    }

    /// How many of these are ids of rows of a table.
    fn count_ids(&self, table: &str, ids: &[i64]) -> Result<usize, SqliteError> {
        let mut statement =
            self.connection.prepare(&format!("SELECT 1 FROM main.{} WHERE rowid = ?1", quote(table)))?;
        let mut found = 0;
        for id in ids {
            found += usize::from(statement.exists([id])?);
        }
        Ok(found)
    }

    fn is_json(&self, text: &str) -> bool {
        self.connection.query_row("SELECT json_valid(?1)", [text], |row| row.get(0)).unwrap_or(false)
    }

    /// How many of these stand in a column.
    fn count_texts(&self, table: &str, column: &str, texts: &[&str]) -> Result<usize, SqliteError> {
        let sql = format!("SELECT 1 FROM main.{} WHERE {} = ?1", quote(table), quote(column));
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = 0;
        for text in texts {
            found += usize::from(statement.exists([text])?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FileSettings;
    use super::*;

    fn file(directory: &std::path::Path, name: &str, sql: &str) -> AppFile {
        let path = directory.join(format!("{name}.db"));
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        AppFile::open(FileSettings { name: name.into(), path, ..FileSettings::default() }).unwrap()
    }

    #[test]
    fn proposes_by_name_by_role_and_by_values_and_tells_of_texts() {
        let directory = tempfile::tempdir().unwrap();
        let scouting = file(
            directory.path(),
            "scouting",
            "CREATE TABLE share(id INTEGER PRIMARY KEY, token TEXT, invited_by INTEGER, last_login DATETIME);
             CREATE TABLE team(id INTEGER PRIMARY KEY, number INTEGER); INSERT INTO team VALUES (101, 7), (102, 8);
             CREATE TABLE part(id INTEGER PRIMARY KEY, x);
             INSERT INTO part VALUES (5001, 1), (5002, 1), (5003, 1), (5004, 1), (5005, 1);
             CREATE TABLE entry(id INTEGER PRIMARY KEY, team_id INTEGER, lockedByUserId INTEGER, scout_id INTEGER,
                 odd_id INTEGER, thing_id INTEGER, created_by INTEGER, alliance TEXT, data TEXT, scout_name TEXT, year INTEGER,
                 match_id INTEGER);
             INSERT INTO entry VALUES (1, 101, 1, 1, 99, 5001, 2, '111,222', '{\"a\": 1}', 'anna', 2025, NULL),
                 (2, 102, 2, 2, 98, 5002, 1, '1,2,3', '[1]', 'ben', 2025, NULL), (3, 101, 1, 2, 97, 5003, 1, '5,6', '[]', 'anna', 2025, NULL),
                 (4, 101, 1, 2, 97, 5004, 1, '5,6', '[]', 'anna', 2025, NULL), (5, 101, 1, 2, 97, 5005, 1, '5,6', '[]', 'anna', 2025, NULL);",
        );
        let users = file(
            directory.path(),
            "users",
            "CREATE TABLE user(id INTEGER PRIMARY KEY, username TEXT UNIQUE, password_hash TEXT);
             INSERT INTO user VALUES (1, 'anna', 'x'), (2, 'ben', 'y');
             CREATE TABLE user_roles(user_id INTEGER, role_id INTEGER, PRIMARY KEY (user_id, role_id));
             INSERT INTO user_roles VALUES (1, 3);",
        );
        let suggestions = suggest(&[scouting, users]).unwrap();
        let to: Vec<(&str, &str)> =
            suggestions[0].references.iter().map(|one| (one.column.as_str(), one.to.as_str())).collect();
        let wanted = [
            ("team_id", "scouting.team.id"),
            ("lockedByUserId", "users.user.id"),
            ("scout_id", "users.user.id"),
            ("thing_id", "scouting.part.id"),
            ("created_by", "users.user.id"),
        ];
        assert_eq!(to, wanted);
        let told: Vec<&str> = suggestions[0].told.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("alliance") && told[1].contains("data") && told[2].contains("username"), "{told:?}");
        assert_eq!(
            suggestions[1].config,
            "# under [[database]] name = \"users\"\n[[database.table]]\nname = \"user_roles\"\n\
             references = [{ column = \"user_id\", to = \"users.user.id\" }]\n"
        );
    }
}
