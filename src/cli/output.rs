//! Results on stdout, everything else on stderr.
//!
//! Invariant: the one place that writes to either; a reader that closes the pipe ends the program quietly. Callers: all
//! of `cli`.

use std::io::{IsTerminal, Write};

use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// One JSON document instead of text.
    pub(super) json: bool,
    quiet: bool,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Output {
        Output { json, quiet }
    }

    /// The result: the document with `--json`, else its text.
    pub(super) fn result<T: Serialize>(&self, document: &T, text: impl FnOnce(&T) -> String) {
        if self.json { self.document(document) } else { self.text(&text(document)) }
    }

    /// A document, over several lines.
    pub(super) fn document<T: Serialize>(&self, document: &T) {
        write_out(&serde_json::to_string_pretty(document).expect("documents are plain structs: they serialise"));
    }

    /// A document on one line.
    pub(super) fn line<T: Serialize>(&self, document: &T) {
        write_out(&serde_json::to_string(document).expect("documents are plain structs: they serialise"));
    }

    /// Text.
    pub(super) fn text(&self, text: &str) {
        write_out(text.trim_end());
    }

    /// What is not a result: stderr, and nothing with `--quiet`.
    pub(super) fn notice(&self, text: &str) {
        if !self.quiet {
            write_error(text);
        }
    }

    /// Whether a person is looking.
    pub(super) fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        // The reader has gone (`litemesh log | head`): nothing more is wanted.
        std::process::exit(0);
    }
}

/// A line on stderr.
pub(super) fn write_error(text: &str) {
    // Without stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Aligned columns under headings.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let heading = headings.iter().map(|text| text.to_uppercase()).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(heading).chain(rows.iter().map(|row| row.iter().map(|t| one_line(t)).collect())).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let shown = |line: &Vec<String>| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    lines.iter().map(shown).collect::<Vec<_>>().join("\n")
}

/// Control characters must not move the reader's cursor.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// (column, value) pairs on one line.
pub(super) fn pairs(cells: &[(String, String)]) -> String {
    one_line(&cells.iter().map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(" "))
}

pub(super) use crate::model::counted as count;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_keep_control_characters_out() {
        let rows = [vec!["a".to_string(), "x\ty".to_string()], vec!["longer".to_string(), String::new()]];
        assert_eq!(table(&["name", "value"], &rows), "NAME    VALUE\na       x y\nlonger");
    }
}
