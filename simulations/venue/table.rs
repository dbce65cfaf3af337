//! What a command found: a table for people, one document for machines, and figures against their targets.
//!
//! Invariant: a figure that misses its target is never hidden; it fails the run only when that was asked for, because
//! other work on the machine makes it miss, too. Callers: `main`, the commands.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
    targets: Vec<Target>,
    notes: Vec<String>,
    wrong: Vec<String>,
}

#[derive(Debug)]
struct Target {
    what: String,
    found: f64,
    at_most: f64,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&'static str]) -> Table {
        Table { columns: columns.to_vec(), ..Table::default() }
    }

    /// Adds a row, one value for each column.
    pub fn row(&mut self, values: Vec<Value>) {
        assert_eq!(values.len(), self.columns.len(), "a row has as many values as the table has columns");
        self.rows.push(values);
    }

    /// Holds a figure against its target.
    pub fn target(&mut self, what: &str, found: f64, at_most: f64) {
        self.targets.push(Target { what: what.to_owned(), found, at_most });
    }

    /// Says something that no column says.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Something is wrong that leaves the other rows as they are; it fails the run.
    pub fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Whether something was wrong.
    pub fn is_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// How many targets were missed.
    pub fn missed(&self) -> usize {
        self.targets.iter().filter(|target| target.missed()).count()
    }

    /// For people.
    pub fn text(&self) -> String {
        let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut lines: Vec<Vec<String>> = vec![self.columns.iter().map(|name| name.replace('_', " ")).collect()];
        lines.extend(self.rows.iter().map(|row| row.iter().map(cell).collect()));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text += padded.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        for target in &self.targets {
            let word = if target.missed() { "MISSED" } else { "met" };
            text += &format!("target {word}: {} is {:.2}, at most {}\n", target.what, target.found, target.at_most);
        }
        for wrong in &self.wrong {
            text += &format!("WRONG: {wrong}\n");
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let named = |row: &Vec<Value>| -> Map<String, Value> {
            self.columns.iter().map(|name| (*name).to_owned()).zip(row.iter().cloned()).collect()
        };
        let target = |target: &Target| {
            json!({ "what": target.what, "found": target.found, "at_most": target.at_most,
            "met": !target.missed() })
        };
        json!({
            "rows": self.rows.iter().map(named).collect::<Vec<_>>(),
            "targets": self.targets.iter().map(target).collect::<Vec<_>>(),
            "notes": self.notes,
            "wrong": self.wrong,
        })
    }
}

impl Target {
    fn missed(&self) -> bool {
        self.found.is_nan() || self.found > self.at_most
    }
}

/// Times in ascending order, and what is asked of them.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Another one.
    pub fn add(&mut self, time: Duration) {
        let position = self.0.partition_point(|other| *other <= time);
        self.0.insert(position, time);
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many in a hundred do not exceed (nearest rank); not a number when there is none.
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    /// The same as a value of a table, in ms with one digit.
    pub fn ms(&self, percent: usize) -> Value {
        round(self.percentile(percent), 1)
    }
}

/// A number with so many digits behind the point; `null` for none.
pub fn round(number: f64, digits: i32) -> Value {
    let scale = 10f64.powi(digits);
    json!((number * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut times = Times::default();
        assert!(times.percentile(50).is_nan());
        for ms in [5, 1, 4, 2, 3] {
            times.add(Duration::from_millis(ms));
        }
        assert_eq!([0, 50, 99, 100].map(|percent| times.percentile(percent)), [1.0, 3.0, 5.0, 5.0]);
    }

    #[test]
    fn a_missed_target_is_told() {
        let mut table = Table::new(&["a_b", "c"]);
        table.row(vec![json!("x"), json!(1.5)]);
        table.target("p99 in ms", 3.0, 3.0);
        assert_eq!(table.missed(), 0);
        table.target("share of a core", f64::NAN, 1.0);
        assert_eq!(table.missed(), 1);
        assert!(table.text().starts_with("a b  c\nx    1.5\n") && table.text().contains("MISSED"));
        assert_eq!(table.json()["rows"][0]["c"], 1.5);
    }
}
