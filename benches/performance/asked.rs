//! What the command line asks for: which items, how thoroughly, where results go.
//!
//! Invariant: sizes are chosen in one place ([`Asked::of`]), so that `--quick`, the default and `--full` differ in size
//! only, never in what is on. Caller: main, every item.

use std::path::PathBuf;

/// One item of PERFORMANCE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    App,
    Capture,
    Receive,
    EndToEnd,
    Compare,
    Joining,
    Footprint,
    Scale,
}

/// How thoroughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Shows that everything works; the figures mean little.
    Quick,
    /// Within twelve minutes.
    Usual,
    /// A million rows, ten million fingerprints; an hour or so.
    Full,
}

/// The command line.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) items: Vec<Item>,
    pub(crate) size: Size,
    rounds: Option<usize>,
    pub(crate) json: PathBuf,
    pub(crate) write: bool,
    pub(crate) folder: PathBuf,
}

pub(crate) const HELP: &str = "\
cargo bench [-- [ITEM]... [--quick | --full] [--rounds N] [--json FILE] [--write] [--dir FOLDER]]

  app         what an app's writes cost: plain SQLite, capture, capture and steering
  capture     marks to durable events; how soon the node wakes
  receive     receive, verify, merge and apply: rows per second, against a bare upsert and a hand-written sync
  end-to-end  real processes: commit on one server to visible on another; backlogs
  compare     range fingerprints: bytes, round trips, time to find the rows that differ
  joining     a new server: by events and by a snapshot
  footprint   memory, disk, start-up, idle CPU, size of the program
  scale       2 to 64 servers on a virtual network: frames, bytes, time per change

Without ITEM all of them, within about twelve minutes on a quiet machine with two cores. --quick takes a minute or two and shows
only that everything works; --full goes to 1,000,000 rows. Results so far are kept when the run is interrupted: in
FILE (target/tmp/performance.json), and with --write in PERFORMANCE.md between its markers, part by part. Files lie in FOLDER
(target/tmp), which must be on a real disk: a file system in memory has no fsync to measure.";

impl Item {
    pub(crate) const ALL: [Item; 8] = [
        Item::App,
        Item::Capture,
        Item::Receive,
        Item::EndToEnd,
        Item::Compare,
        Item::Joining,
        Item::Footprint,
        Item::Scale,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Item::App => "app",
            Item::Capture => "capture",
            Item::Receive => "receive",
            Item::EndToEnd => "end-to-end",
            Item::Compare => "compare",
            Item::Joining => "joining",
            Item::Footprint => "footprint",
            Item::Scale => "scale",
        }
    }
}

impl Asked {
    /// What is asked; `None`: only how to ask.
    pub(crate) fn from_arguments(mut words: impl Iterator<Item = String>) -> Result<Option<Asked>, String> {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let mut asked = Asked {
            items: Vec::new(),
            size: Size::Usual,
            rounds: None,
            json: target.join("performance.json"),
            write: false,
            folder: target,
        };
        while let Some(word) = words.next() {
            let mut value = |what: &str| words.next().ok_or(format!("{word} needs {what}"));
            match word.as_str() {
                // Cargo's own word for a benchmark target.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--quick" => asked.size = Size::Quick,
                "--full" => asked.size = Size::Full,
                "--write" => asked.write = true,
                "--json" => asked.json = value("a file")?.into(),
                "--dir" => asked.folder = value("a folder")?.into(),
                "--rounds" => {
                    let rounds = value("a number")?;
                    asked.rounds = Some(
                        rounds.parse().ok().filter(|n| *n > 0).ok_or(format!("--rounds {rounds}: a number from 1"))?,
                    );
                }
                name => {
                    let known = Item::ALL.into_iter().find(|item| item.name() == name);
                    asked.items.push(known.ok_or_else(|| format!("there is no item {name:?}"))?);
                }
            }
        }
        if asked.items.is_empty() {
            asked.items = Item::ALL.to_vec();
        }
        Ok(Some(asked))
    }

    /// One of three sizes.
    pub(crate) fn of<T>(&self, quick: T, usual: T, full: T) -> T {
        match self.size {
            Size::Quick => quick,
            Size::Usual => usual,
            Size::Full => full,
        }
    }

    /// Rounds of something that is cheap; at least what was asked for.
    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or_else(|| self.of(1, usual, usual.max(5)))
    }
}
