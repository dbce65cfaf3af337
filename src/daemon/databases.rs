//! Which files are replicated: named by flag, environment or file, else remembered, else found, else the sample pair.
//!
//! Invariant: nothing is opened or changed here; every path is absolute, so that a later start from another directory
//! means the same files. Callers: daemon, cli.

use std::path::{Path, PathBuf};

use super::data_dir::Remembered;
use super::{DaemonError, DataDir, sample};
use crate::config::Config;
use crate::node::DatabaseSettings;
use crate::sqlite::FileSettings;

/// Looked for, in this order, when nothing is named; the first pair of which a file is there.
const USUAL: [[(&str, &str); 2]; 2] = [
    [("scouting", "instance/scouting.db"), ("users", "instance/users.db")],
    [("scouting", "scouting.db"), ("users", "users.db")],
];

/// The databases of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Their settings, references between them included.
    pub databases: Vec<DatabaseSettings>,
    /// Where they come from, in words.
    pub source: String,
}

/// Chooses; `use_sample` makes the sample pair when nothing else is named. `directory` is the working directory.
pub fn choose(config: &Config, data: &DataDir, directory: &Path, use_sample: bool) -> Result<Choice, DaemonError> {
    let mut databases = config.databases.clone();
    let mut source = "named by flag, environment or configuration".to_string();
    let remembered = data.remembered()?;
    if databases.is_empty() && !remembered.is_empty() {
        source = format!("remembered in {}", data.path().display());
    }
    for Remembered { name, path } in remembered {
        if !databases.iter().any(|database| database.name == name) {
            databases.push(config.capture.database(&name, &path));
        }
    }
    if databases.is_empty() && use_sample {
        let pair = sample::create(&sample::directory(config, directory))?;
        source = format!("the sample pair in {}", pair[0].1.parent().unwrap_or(directory).display());
        databases = pair.iter().map(|(name, path)| config.capture.database(name, path)).collect();
    }
    if databases.is_empty() {
        (databases, source) = find(config, directory)?;
    }
    for database in &mut databases {
        database.path = directory.join(&database.path);
    }
    check_paths(&databases)?;
    config.capture.add_known_references(&mut databases);
    Ok(Choice { databases, source })
}

fn find(config: &Config, directory: &Path) -> Result<(Vec<DatabaseSettings>, String), DaemonError> {
    for pair in USUAL {
        let there: Vec<_> = pair.iter().filter(|(_, path)| directory.join(path).is_file()).collect();
        if !there.is_empty() {
            let names: Vec<_> = there.iter().map(|(_, path)| *path).collect();
            let found = there.iter().map(|(name, path)| config.capture.database(name, &directory.join(path))).collect();
            return Ok((found, format!("found here: {}", names.join(", "))));
        }
    }
    let looked = USUAL.iter().flatten().map(|(_, path)| PathBuf::from(path)).collect();
    Err(DaemonError::NoDatabases { looked })
}

fn check_paths(databases: &[DatabaseSettings]) -> Result<(), DaemonError> {
    for (position, database) in databases.iter().enumerate() {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if let Some(other) = databases[..position].iter().find(|other| real(&other.path) == real(&database.path)) {
            let (first, second) = (other.name.clone(), database.name.clone());
            return Err(DaemonError::NamedTwice { path: database.path.clone(), first, second });
        }
    }
    Ok(())
}

/// Remembers a choice for later starts.
pub(super) fn remember(data: &DataDir, databases: &[DatabaseSettings]) -> Result<(), DaemonError> {
    let list: Vec<_> = databases
        .iter()
        .map(|database| Remembered { name: database.name.clone(), path: database.path.clone() })
        .collect();
    data.remember(&list)
}

/// The same database, as `sqlite` wants it.
pub fn file_settings(settings: &DatabaseSettings) -> FileSettings {
    FileSettings {
        name: settings.name.clone(),
        path: settings.path.clone(),
        include: settings.include.clone(),
        exclude: settings.exclude.clone(),
        references: settings.references.clone(),
        natural_keys: settings.natural_keys.clone(),
        rules: settings.rules.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, load};

    #[test]
    fn named_before_remembered_before_found_before_an_error_that_says_what_was_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let data = DataDir::at(&here.join("data"));
        data.create().unwrap();
        let config = load(&Flags::default(), &|_| None, here).unwrap();
        let missing = choose(&config, &data, here, false).unwrap_err().to_string();
        assert!(missing.contains("instance/scouting.db") && missing.contains("users.db"), "{missing}");

        std::fs::write(here.join("scouting.db"), "").unwrap();
        let found = choose(&config, &data, here, false).unwrap();
        assert_eq!((found.databases.len(), found.source.as_str()), (1, "found here: scouting.db"));

        remember(&data, &[config.capture.database("kept", &here.join("kept.db"))]).unwrap();
        let kept = choose(&config, &data, here, false).unwrap();
        assert_eq!((kept.databases.len(), kept.databases[0].name.as_str()), (1, "kept"));

        let flags = Flags { databases: vec![("named".into(), "n.db".into())], ..Flags::default() };
        let config = load(&flags, &|_| None, here).unwrap();
        let both = choose(&config, &data, here, false).unwrap();
        assert_eq!(both.databases.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["named", "kept"]);
        assert_eq!(both.databases[0].path, here.join("n.db"));
    }
}
