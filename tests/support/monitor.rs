//! `monitor.db` as any dashboard reads it: by Python's own SQLite, read-only, while the node runs.
//!
//! Callers: tests of run tracking.

use serde_json::Value;

use super::python;
use super::server::Server;

/// Rows of a query on `monitor.db`, each a list.
#[track_caller]
pub(crate) fn monitor(server: &Server, sql: &str) -> Vec<Value> {
    let program = "import json, sqlite3, sys\n\
                   c = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True, timeout=10)\n\
                   print(json.dumps(c.execute(sys.argv[2]).fetchall()))";
    let path = server.data().join("monitor.db");
    let printed = python(&["-c", program, path.to_str().unwrap(), sql]).unwrap();
    serde_json::from_str::<Vec<Value>>(&printed).unwrap()
}
