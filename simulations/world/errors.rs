//! What SQLite refused an app: only what the app provokes itself may be among it.
//!
//! An app may break its own constraints (a number that is taken, a parent that is gone). It must never meet a locked file,
//! a full disk it did not fill, a damaged file, or the name of anything that litemesh put into its file. Invariant: every
//! statement of an app goes through [`Errors::note`] or panics when refused. Caller: the app; read by the checks.

/// Refusals of one app, counted, and the first one that is not the app's own doing.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// Refusals that the app provoked.
    pub provoked: u64,
    /// The first refusal that it did not.
    pub foreign: Option<String>,
}

impl Errors {
    /// Takes what SQLite said to a statement. The number of rows, when it was done.
    pub fn note(&mut self, sql: &str, result: rusqlite::Result<usize>) -> Option<usize> {
        let error = match result {
            Ok(rows) => return Some(rows),
            Err(error) => error,
        };
        let own = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
            && !error.to_string().contains("litemesh");
        if own {
            self.provoked += 1;
        } else {
            self.foreign.get_or_insert_with(|| format!("{sql}: {error}"));
        }
        None
    }
}
