//! First meetings: what the rows of a file are to the rows of a cluster that they never heard of.
//!
//! Both have a team 57. Which of them is the same team cannot be read off the id; it depends on where the file comes from,
//! and that only a person knows. So a person may say it when a server joins ([`Meeting`]), and it is kept in the log until
//! the file is enrolled:
//!
//! | the file is            | a row here is the cluster's row when                                              | else |
//! |------------------------|-----------------------------------------------------------------------------------|------|
//! | a copy (default)       | it was enrolled there with this very content, or the cluster shows it at the same id, equal in every cell and in the rows it refers to | a row of its own |
//! | independent            | never (tables whose key is the identity: equal keys)                              | a row of its own |
//! | of a common base, OLD  | it is a row of OLD (by table and key) and the cluster has OLD's row: enrolled with OLD's content or, else, the one living row found at enrolment that claims the key | as for a copy |
//!
//! **Base, decided without asking**: a cell changed here only is written; changed there only, or to the same value on both
//! sides, stays; changed on both sides to different values, the cluster's stays and this one goes to the audit (`litemesh
//! conflicts`). A row of OLD that is missing here is deleted when the cluster's is as it was in OLD and no row that stays
//! refers to it. A row deleted there and unchanged here goes; changed here, it lives again. **Left to the person**, so kept
//! as it is and listed: a row deleted here that was changed there, or that rows there refer to; a row of OLD that the
//! cluster never had (deleted there before litemesh came, or never known: nobody can tell), which stays as a row of its
//! own; a key that several rows were enrolled with. Tables without a key are read as a copy's.
//!
//! Invariant: no row of either side is dropped, nothing of the cluster is overwritten without being named in the report.
//! Callers: `adopt` (does it), `rehearsal` (shows it), daemon (asks for it).

use std::path::PathBuf;

use super::{Node, NodeError};
use crate::log::Log;
use crate::model::{Key, RowId};
use crate::sqlite::Image;

/// Where a file comes from, as far as a person said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Meeting {
    /// Perhaps a copy of what the cluster started from: equal rows are the same rows.
    #[default]
    Copy,
    /// Nothing here was ever copied from there.
    Independent,
    /// Both sides started from this file.
    Base(PathBuf),
}

impl Meeting {
    /// Notes in a log how a database's file is to be read when it is enrolled.
    pub fn decide(self, log: &Log, database: &str) -> Result<(), NodeError> {
        let text = match self {
            Meeting::Copy => String::new(),
            Meeting::Independent => "independent".to_string(),
            Meeting::Base(path) => format!("base\n{}", path.display()),
        };
        let mut write = log.write()?;
        write.put_meta(&meeting_key(database), text.as_bytes())?;
        write.commit_durable()?;
        Ok(())
    }
}

impl Node {
    /// How a database's file is to be read.
    pub(super) fn meeting(&self, database: &str) -> Result<Meeting, NodeError> {
        let noted = self.log.read()?.meta(&meeting_key(database))?.unwrap_or_default();
        let noted = String::from_utf8_lossy(&noted).into_owned();
        Ok(match noted.split_once('\n') {
            Some(("base", path)) => Meeting::Base(PathBuf::from(path)),
            _ if noted == "independent" => Meeting::Independent,
            _ => Meeting::Copy,
        })
    }
}

fn meeting_key(database: &str) -> String {
    format!("meeting:{database}")
}

/// What became of one row found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The cluster shows exactly this.
    Equal,
    /// The same row; the cluster's is newer.
    Older,
    /// The same row by its key; the cluster's values stay, these lost.
    Lost(Vec<usize>),
    /// The same row: these columns were changed here since the base. `lost`: changed there too, and to something else.
    Edited { columns: Vec<usize>, lost: Vec<usize> },
    /// The same row, which the cluster has deleted.
    Deleted,
    /// A row of its own.
    New,
    /// A row of the base that the cluster never had, or that it knows several of: a row of its own.
    Kept,
}

/// A row found in a file.
#[derive(Clone, Debug)]
pub(super) struct MetRow {
    pub(super) key: Key,
    pub(super) image: Image,
    pub(super) verdict: Verdict,
    /// The cluster's row that it is; `None` where it is new.
    pub(super) row: Option<RowId>,
}

/// A row of the cluster that a file lacks.
#[derive(Clone, Debug)]
pub(super) struct Lacking {
    pub(super) row: RowId,
    pub(super) key: Key,
    pub(super) image: Image,
    pub(super) fate: Fate,
}

/// What becomes of a row of the cluster that a file lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It comes here.
    Comes,
    /// The base had it, and nothing was done to it there: it was deleted here.
    Deleted,
    /// The base had it and it was deleted here, but the cluster has changed it or needs it: it comes back.
    ComesBack,
}

/// One table's part of a first meeting.
#[derive(Clone, Debug, Default)]
pub(super) struct MetTable {
    pub(super) here: Vec<MetRow>,
    pub(super) lacking: Vec<Lacking>,
}

#[cfg(test)]
#[path = "meeting_tests.rs"]
mod tests;
