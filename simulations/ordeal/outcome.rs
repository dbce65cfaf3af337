//! How a command ends: with figures, with something wrong, or because it cannot run here.
//!
//! Invariant: the exit code is a function of the end alone (0 fine, 1 wrong, 2 usage, 4 cannot run here), and what goes
//! wrong in the tool itself counts as wrong, never as fine. Callers: all of `ordeal`.

use std::fmt;

use serde_json::{Map, Value};

/// Why a command has no figures to show.
#[derive(Debug)]
pub enum Trouble {
    /// Something was lost, doubled, cannot be opened, or took too long. In words, with the place.
    Wrong(String),
    /// A tool or a right is missing on this machine.
    Cannot {
        /// What is missing.
        because: String,
        /// What to do about it.
        next: String,
    },
}

impl Trouble {
    /// Something is wrong.
    pub fn wrong(what: impl Into<String>) -> Trouble {
        Trouble::Wrong(what.into())
    }

    /// This machine cannot do it.
    pub fn cannot(because: impl Into<String>, next: impl Into<String>) -> Trouble {
        Trouble::Cannot { because: because.into(), next: next.into() }
    }

    /// The same trouble, with where it was met.
    pub fn at(self, place: &str) -> Trouble {
        match self {
            Trouble::Wrong(what) => Trouble::Wrong(format!("{place}: {what}")),
            cannot => cannot,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Trouble::Wrong(_) => 1,
            Trouble::Cannot { .. } => 4,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Wrong(what) => write!(f, "WRONG: {what}"),
            Trouble::Cannot { because, next } => write!(f, "cannot run here, because {because}. Next: {next}"),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Wrong(format!("the ordeal itself failed: {error}"))
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        Trouble::Wrong(format!("the app's file cannot be read: {error}"))
    }
}

/// What a command found: its figures, in the order they are told.
#[derive(Debug, Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    /// Adds a figure.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let figure = |(name, value): (&String, &Value)| match value {
            Value::String(text) => format!("{} {text}", name.replace('_', " ")),
            other => format!("{} {other}", name.replace('_', " ")),
        };
        self.0.iter().map(figure).collect::<Vec<_>>().join(", ")
    }

    /// One document for machines.
    pub fn json(self) -> Value {
        Value::Object(self.0)
    }
}

/// So many in so much time, per minute, in whole numbers.
pub fn per_minute(count: u64, within: std::time::Duration) -> u64 {
    (count as f64 * 60.0 / within.as_secs_f64().max(0.001)) as u64
}
