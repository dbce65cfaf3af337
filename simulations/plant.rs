//! `--plant NAME`: plants a bug of `litemesh::model::planted` in this process, before anything starts.
//!
//! Invariant: without the option, or without the feature `planted`, nothing is planted. Callers: `simulate`, `histories`.

/// Plants the bug of this name. `None`, and a word why, when there is none.
#[cfg(feature = "planted")]
pub fn plant(name: &str) -> Option<()> {
    let bug = litemesh::model::Bug::parse(name);
    if bug.is_none() {
        eprintln!("no bug is called {name}: `drill --list` names them");
    }
    bug.map(litemesh::model::planted::plant)
}

/// Plants nothing: this program has no bugs to plant.
#[cfg(not(feature = "planted"))]
pub fn plant(name: &str) -> Option<()> {
    eprintln!("{name} cannot be planted: this program was built without `--features planted`");
    None
}
