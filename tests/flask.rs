//! The Flask page of `config/flask.md`, as it stands there, in a small Flask application against real nodes.
//!
//! Needs the Python package index, so it runs only when asked for: `cargo test --test flask -- --ignored`. Flask goes into a
//! virtual environment under the build's own temporary directory, once. That the page is there and is Python is checked in
//! any case.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::cluster::Cluster;
use support::dump::texts;
use support::packages::interpreter;
use support::server::Server;
use support::{app, shipped, until};

const PACKAGES: [&str; 1] = ["flask>=3,<4"];

/// The page's program.
fn pages() -> String {
    let page = include_str!("../config/flask.md");
    let (_, after) = page.split_once("tests/flask.rs runs exactly this -->\n```python\n").expect("the page's program");
    after.split_once("\n```").expect("the program ends").0.to_owned()
}

/// What the application's superadmin sees.
fn superadmin(server: &Server, http: &str, what: &str) -> Value {
    let folder = server.folder.join("pages");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("litemesh_pages.py"), pages()).unwrap();
    let mut command = Command::new(interpreter("flask", &PACKAGES));
    command.arg(shipped("python/flask_pages.py")).arg(server.data()).arg(http).arg(&folder).arg(what);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Nobody else gets a page, whatever is asked.
    assert_eq!(told["guarded"], serde_json::json!([403, 403, 403, 403, 403]));
    told
}

#[track_caller]
fn shows(page: &Value, code: u64, parts: &[&str]) {
    assert_eq!(page["code"], code, "{page}");
    for part in parts {
        assert!(page["text"].as_str().unwrap().contains(part), "{part:?} is not in {}", page["text"]);
    }
}

/// The page's program is Python, and what it asks for exists.
#[test]
fn the_page_holds_a_program_and_its_endpoints_exist() {
    let program = pages();
    support::python(&["-c", "import ast, sys; ast.parse(sys.argv[1])", &program]).unwrap();
    let known: Vec<&str> = litemesh::http::ROUTES.iter().map(|route| route.path).collect();
    let mut asked = 0;
    for path in program.split("\"/api/v1/").skip(1).filter_map(|rest| rest.split(['"', '?']).next()) {
        let path = format!("/api/v1/{path}").replace("{number}", "{n}");
        assert!(known.contains(&path.as_str()), "the page asks for {path}, which does not exist");
        asked += 1;
    }
    assert!(asked >= 5, "{asked} endpoints");
}

#[test]
#[ignore = "installs Flask from the Python package index; run with -- --ignored"]
fn a_superadmin_sees_status_and_history_syncs_and_puts_back_what_lost() {
    let mut cluster = Cluster::scouting(2);
    let told = superadmin(&cluster.servers[0], &cluster.servers[0].http(), "look");
    shows(&told["index"], 200, &["<h1>s0</h1>", "<li>s1: connected", "<li>scouting: ok"]);
    shows(&told["history"], 200, &["<h1>History</h1>"]);
    let told = superadmin(&cluster.servers[0], &cluster.servers[0].http(), "sync");
    shows(&told["sync"], 200, &["In sync.", "<h1>s0</h1>"]);
    // A run is written down a moment after what it tells of.
    until("the history names a run that succeeded", 20, || {
        let told = superadmin(&cluster.servers[0], &cluster.servers[0].http(), "look");
        let page = told["history"]["text"].as_str().unwrap().to_owned();
        if page.contains("success") { Ok(()) } else { Err(page) }
    });
    // Both write one cell without knowing of each other.
    cluster.part();
    for (server, place) in cluster.servers.iter().zip(["San Jose", "<b>Moffett</b>"]) {
        app(server.database("scouting"), &format!("UPDATE team SET location = '{place}' WHERE id = 1"));
    }
    cluster.heal();
    cluster.settled(30);
    let here = &cluster.servers[0];
    let location = || texts(here.database("scouting"), "SELECT location FROM team WHERE id = 1");
    let shown = location();
    let told = superadmin(here, &here.http(), "conflicts");
    // Values of rows are text on the page, never markup.
    shows(&told["conflicts"], 200, &["San Jose", "&lt;b&gt;Moffett&lt;/b&gt;", "Put it back"]);
    shows(&told["restored"], 200, &["<h1>Conflicts</h1>", "role=\"status\""]);
    shows(&told["unknown"], 502, &["role=\"status\""]);
    until("the other value is shown", 10, || match location() {
        now if now == shown => Err(format!("still {now:?}")),
        _ => Ok(()),
    });
    let http = cluster.servers[0].http();
    cluster.servers[0].stop();
    let told = superadmin(&cluster.servers[0], &http, "gone");
    shows(&told["gone"], 502, &["litemesh does not answer", "is it running"]);
}
