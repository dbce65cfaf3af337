//! What an app developer sees: ids that the library gave lead to their row, before, during and after a merge.
//!
//! Invariant: the sessions never stop; the network comes back in their middle, with many rows of the other server.
//! Does not verify: a form that stays open for hours over a merge (`overrides.rs`: such writes are flagged).

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::cluster::Cluster;
use support::dump::number;
use support::server::Server;
use support::{app, shipped, until};

/// Sessions at work on one server.
struct Sessions {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Sessions {
    fn start(server: &Server) -> Sessions {
        let mut child = Command::new("python3")
            .arg(shipped("python/session.py"))
            .args(["--name", &server.name, "--scouting"])
            .arg(server.database("scouting"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        Sessions { child, said }
    }

    /// Ends the sessions after the one at work; what they saw.
    fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&line).unwrap()
    }
}

#[test]
#[allow(clippy::print_stderr)]
fn an_id_leads_to_its_row_before_during_and_after_a_merge() {
    let mut cluster = Cluster::scouting(2);
    for server in &cluster.servers {
        server.steered("scouting", &["team"]);
    }
    cluster.part();
    let sessions: Vec<Sessions> = cluster.servers.iter().map(Sessions::start).collect();
    // A day's import on the far side, in one go: the merge has much to do.
    app(
        cluster.servers[0].database("scouting"),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO team (team_number, marker) SELECT i, 'import-' || i FROM n",
    );
    cluster.heal();
    let file = cluster.servers[1].database("scouting");
    until("the import arrives while sessions go on", 60, || {
        let rows = number(file, "SELECT count(*) FROM team WHERE marker LIKE 'import-%'");
        if rows == 2000 { Ok(()) } else { Err(format!("{rows} rows")) }
    });
    until("sessions of the other server arrive", 60, || {
        let rows = number(file, "SELECT count(*) FROM team WHERE marker LIKE 'session-s0-%'");
        if rows > 10 { Ok(()) } else { Err(format!("{rows} rows")) }
    });
    for sessions in sessions {
        let saw = sessions.end();
        eprintln!("sessions: {saw}");
        assert!(saw["sessions"].as_i64().unwrap() > 10, "{saw}");
        for fault in ["wrong", "missing", "typed_elsewhere"] {
            assert_eq!(saw[fault], 0, "{saw}");
        }
    }
    cluster.settled(60);
    for server in &cluster.servers {
        let astray =
            "SELECT count(*) FROM team WHERE marker LIKE 'session-%' AND location IS NOT 'typed into ' || marker";
        assert_eq!(number(server.database("scouting"), astray), 0, "on {}", server.name);
    }
}
