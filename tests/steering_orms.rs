//! Two ORMs, unmodified and from the registry, see no difference between a steered file and a plain one but the ids.
//!
//! Needs the Python package index, so it runs only when asked for:
//! `cargo test --test steering_orms -- --ignored`. The packages go into a virtual environment under the build's own
//! temporary directory, once.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::dump::number;
use support::packages::interpreter;
use support::server::Server;
use support::{shipped, until};

const PACKAGES: [&str; 2] = ["sqlalchemy>=2,<3", "django>=4.2,<7"];

fn orms(python: &Path, mode: &str, database: &Path) -> Vec<String> {
    let output = Command::new(python).arg(shipped("python/orms.py")).arg(mode).arg(database).output().unwrap();
    assert!(output.status.success(), "{mode}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "installs SQLAlchemy and Django from the Python package index; run with -- --ignored"]
fn orms_see_no_difference_but_the_ids() {
    let python = interpreter("orms", &PACKAGES);
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain.db");
    orms(&python, "schema", &plain);
    let mut server = Server::new(directory.path(), "steered");
    let steered = server.folder.join("app.db");
    std::fs::copy(&plain, &steered).unwrap();
    server.databases.push(("app".to_owned(), steered.clone()));
    let report = server.cli(
        &[&["--json", "preflight"][..], &server.database_flags().iter().map(String::as_str).collect::<Vec<_>>()]
            .concat(),
    );
    for table in report.done().json()["databases"][0]["tables"].as_array().unwrap() {
        assert_eq!(table["ids"], "steered", "{table}");
    }
    server.start();
    let steers = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_litemesh_*_steer'";
    until("the tables are steered", 30, || match number(&steered, steers) {
        5 => Ok(()),
        tables => Err(format!("{tables} tables are")),
    });
    server.stop();

    let [plain, steered] = [&plain, &steered].map(|database| orms(&python, "play", database));
    assert!(plain.len() > 200, "{plain:?}");
    for (plain, steered) in plain.iter().zip(&steered).filter(|(line, _)| !line.starts_with("ids ")) {
        assert_eq!(plain, steered);
    }
    assert_eq!(plain.len(), steered.len());

    // The founder of a cluster has slot 1. What was there keeps its id, and where a row with the same UNIQUE key is in the
    // way (OR REPLACE) the id is SQLite's; all else is the node's own.
    let ids: serde_json::Value = serde_json::from_str(steered.last().unwrap().strip_prefix("ids ").unwrap()).unwrap();
    for table in ["sa_user", "sa_entry", "dj_event", "dj_match"] {
        let ids: Vec<i64> = ids[table].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        let foreign: Vec<&i64> = ids.iter().filter(|id| **id / 16 % 16 != 1 && **id != 1).collect();
        assert!(ids.len() > 40 && foreign.is_empty(), "{table}: {foreign:?} of {ids:?}");
    }
}
