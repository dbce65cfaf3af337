//! Tries a steered table out before any row of an app depends on it: the same battery of statements runs on a plain and on
//! a steered copy of the table, and must give the same results up to the ids.
//!
//! Invariant: any difference, and anything that cannot be tried, is an error in words, and the table's ids stay plain.
//! Caller: decide.

use std::collections::BTreeSet;

use rusqlite::params_from_iter;

use super::super::quote::quote;
use super::super::value;
use super::Subject;
use super::twins::Twins;
use crate::model::{Identity, Value};

/// Rows inserted one by one at the beginning: more than a run.
const FIRST_ROWS: usize = 20;

/// Tries one table; an error says what went wrong.
pub(super) fn run(subject: &Subject<'_>) -> Result<(), String> {
    let mut trial = Trial::new(subject)?;
    trial.check_made_up_row()?;
    trial.first_rows()?;
    trial.deletes()?;
    trial.transactions()?;
    for recursive in ["OFF", "ON"] {
        let pragma = format!("PRAGMA recursive_triggers = {recursive}");
        trial.twins.step(&pragma, &pragma, &[])?;
        trial.conflicts(recursive == "OFF")?;
    }
    trial.many_rows()?;
    trial.twins.check_marks()
}

struct Trial<'s> {
    subject: &'s Subject<'s>,
    twins: Twins,
    id: String,
    /// Columns that the trial's inserts name, and their positions.
    columns: Vec<String>,
    positions: Vec<usize>,
    /// Columns whose values must differ from row to row.
    distinct: BTreeSet<usize>,
    /// Rows made up so far.
    made: i64,
}

impl<'s> Trial<'s> {
    fn new(subject: &'s Subject<'s>) -> Result<Trial<'s>, String> {
        let schema = subject.schema;
        let Identity::Surrogate(id) = schema.identity else { return Err("SQLite does not make its ids".to_owned()) };
        let checked = &subject.holder.checked;
        let mut distinct = BTreeSet::new();
        for (column, _) in subject.plan.conflicts.iter().flat_map(|conflict| &conflict.columns) {
            distinct.extend(schema.column(column).filter(|at| *at != id && !checked.contains(at)));
        }
        let looked_at = |at: &usize| schema.columns[*at].not_null || distinct.contains(at) || checked.contains(at);
        let mut positions: Vec<usize> = (0..schema.columns.len()).filter(|at| *at != id && looked_at(at)).collect();
        if positions.is_empty() {
            positions.extend((0..schema.columns.len()).find(|at| *at != id));
        }
        let columns: Vec<String> = positions.iter().map(|at| quote(&schema.columns[*at].name)).collect();
        let id = quote(&schema.columns[id].name);
        let mut twins = Twins::new(subject, &id)?;
        let names: Vec<&str> = positions.iter().map(|at| schema.columns[*at].name.as_str()).collect();
        twins.compare(&schema.name, &names);
        Ok(Trial { subject, twins, id, columns, positions, distinct, made: 0 })
    }

    /// Without a row that the table takes there is nothing to try.
    fn check_made_up_row(&mut self) -> Result<(), String> {
        let row = self.row();
        let sql = self.insert("", 1, "");
        let plain = self.twins.plain();
        let taken = plain.execute_batch("SAVEPOINT made_up").and_then(|()| {
            let taken = plain.execute(&sql, params_from_iter(row.iter().map(value::Bound)));
            plain.execute_batch("ROLLBACK TO made_up; RELEASE made_up")?;
            taken
        });
        taken.map(|_| ()).map_err(|error| {
            let empty = if self.subject.sample.is_some() { "" } else { ", and it holds none" };
            format!("no row could be made up to try it out with ({error}){empty}")
        })
    }

    fn first_rows(&mut self) -> Result<(), String> {
        let sql = self.insert("", 1, "");
        for _ in 0..=FIRST_ROWS {
            let row = self.row();
            self.twins.own_step("an insert", &sql, &row)?;
        }
        Ok(())
    }

    fn deletes(&mut self) -> Result<(), String> {
        let (table, id) = (&self.subject.plan.table, &self.id);
        let last = format!("DELETE FROM {table} WHERE {id} = (SELECT {id} FROM {table} ORDER BY {id} DESC LIMIT 1)");
        let sql = self.insert("", 1, "");
        for _ in 0..3 {
            self.twins.step("the delete of the last row", &last, &[])?;
            let (before, row) = (self.twins.greatest(), self.row());
            self.twins.own_step("an insert after a delete", &sql, &row)?;
            if self.twins.greatest() <= before {
                return Err("the id of a deleted row is used again".to_owned());
            }
        }
        Ok(())
    }

    fn transactions(&mut self) -> Result<(), String> {
        let sql = self.insert("", 1, "");
        for (begin, end) in
            [("BEGIN", "ROLLBACK"), ("BEGIN", "COMMIT"), ("SAVEPOINT a", "ROLLBACK TO a"), ("SAVEPOINT b", "RELEASE b")]
        {
            self.foreign_row()?;
            self.twins.step(begin, begin, &[])?;
            let row = self.row();
            self.twins.own_step("an insert in a transaction", &sql, &row)?;
            self.twins.step(end, end, &[])?;
            let row = self.row();
            self.twins.own_step("an insert behind a transaction", &sql, &row)?;
        }
        self.twins.step("RELEASE a", "RELEASE a", &[]).map(|_| ())
    }

    /// Every way an insert can be refused, skipped or turned into something else, each where a placeholder is due.
    fn conflicts(&mut self, all: bool) -> Result<(), String> {
        let clauses: &[&str] = if all { &["", "OR FAIL", "OR IGNORE", "OR REPLACE"] } else { &["", "OR REPLACE"] };
        let mut tails: Vec<(&str, String)> = clauses.iter().map(|clause| (*clause, String::new())).collect();
        for conflict in self.subject.plan.conflicts.iter().filter(|conflict| all && conflict.partial.is_none()) {
            let target: Vec<String> = conflict
                .columns
                .iter()
                .map(|(column, collation)| format!("{} COLLATE {collation}", quote(column)))
                .collect();
            let target = target.join(", ");
            tails.push(("", format!(" ON CONFLICT ({target}) DO NOTHING")));
            let set = |column: &String| ("", format!(" ON CONFLICT ({target}) DO UPDATE SET {column} = {column}"));
            tails.extend(self.columns.first().map(set));
        }
        for (clause, tail) in tails {
            let sql = self.insert(clause, 1, &tail);
            let row = self.row();
            self.foreign_row()?;
            self.twins.own_step(&format!("INSERT {clause}{tail}"), &sql, &row)?;
            self.foreign_row()?;
            self.twins.step(&format!("INSERT {clause}{tail} of a row that is there"), &sql, &row)?;
            for at in 0..self.positions.len() {
                let mut row = self.row();
                row[at] = Value::Null;
                self.foreign_row()?;
                self.twins.step(&format!("INSERT {clause}{tail} of a NULL"), &sql, &row)?;
            }
        }
        Ok(())
    }

    fn many_rows(&mut self) -> Result<(), String> {
        let returning = format!(" RETURNING {}", self.id);
        for (count, tail) in [(20, ""), (1, returning.as_str()), (3, returning.as_str())] {
            self.foreign_row()?;
            let rows: Vec<Value> = (0..count).flat_map(|_| self.row()).collect();
            self.twins.own_step(&format!("an insert of {count} rows{tail}"), &self.insert("", count, tail), &rows)?;
        }
        // Some rows of one statement are skipped, others come.
        self.foreign_row()?;
        let twice = self.row();
        let rows: Vec<Value> = [twice.clone(), self.row(), twice, self.row()].concat();
        self.twins.step("INSERT OR IGNORE of many rows", &self.insert("OR IGNORE", 4, ""), &rows).map(|_| ())
    }

    fn foreign_row(&mut self) -> Result<(), String> {
        let row = self.row();
        self.twins.foreign_row(&self.columns, &row)
    }

    fn insert(&self, clause: &str, rows: usize, tail: &str) -> String {
        let table = &self.subject.plan.table;
        let (names, row) = match self.columns.len() {
            0 => (self.id.clone(), "(NULL)".to_owned()),
            width => (self.columns.join(", "), format!("({})", vec!["?"; width].join(", "))),
        };
        format!("INSERT {clause} INTO {table} ({names}) VALUES {}{tail}", vec![row; rows].join(", "))
    }

    /// A row like no other.
    fn row(&mut self) -> Vec<Value> {
        self.made += 1;
        let value = |at: &usize| match &self.subject.sample {
            Some(sample) if !self.distinct.contains(at) => sample[*at].clone(),
            Some(_) | None => made_up(&self.subject.schema.columns[*at].declared_type, self.made),
        };
        self.positions.iter().map(value).collect()
    }
}

/// A value that a column of this type (STRICT too) stores as it is.
fn made_up(declared_type: &str, number: i64) -> Value {
    let declared = declared_type.to_ascii_uppercase();
    let is = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if is(&["INT"]) {
        Value::Integer(number)
    } else if is(&["CHAR", "CLOB", "TEXT"]) {
        Value::text(&format!("v{number}"))
    } else if is(&["BLOB"]) {
        Value::Blob(number.to_be_bytes().to_vec())
    } else if is(&["REAL", "FLOA", "DOUB"]) {
        Value::real(number as f64 + 0.5)
    } else {
        Value::Integer(number)
    }
}
