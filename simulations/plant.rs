//! `--plant NAME`: plants a bug of `litemesh::model::planted` in this process, before anything starts.
//!
//! Invariant: without the option, or without the feature `planted`, nothing is planted. Callers: `simulate`, `histories`.

/// Plants the bug of this name. `None`, and a word why, when there is none.
pub fn plant(name: &str) -> Option<()> {
    #[cfg(feature = "planted")]
    match litemesh::model::Bug::parse(name) {
        Some(bug) => litemesh::model::planted::plant(bug),
        None => {
            eprintln!("no bug is called {name}: `drill --list` names them");
            return None;
        }
    }
    #[cfg(not(feature = "planted"))]
    {
        eprintln!("{name} cannot be planted: this program was built without `--features planted`");
        return None;
    }
    #[cfg(feature = "planted")]
    Some(())
}
