//! Real processes of this build on loopback, each with a file of its own.
//!
//! Invariant: processes are ended by their own id, also when a measurement fails (`support::server` sees to it); nobody is
//! found by multicast, so two runs on one machine do not meet. Caller: app_cost, capture, end_to_end, footprint.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::shape::{self, DATABASE, Shape, TABLE};
use crate::support::server::Server;

/// After so long something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);

/// A server with an empty table, not started.
pub(crate) fn server(root: &Path, name: &str, shape: Shape) -> Result<Server, Failure> {
    let mut server = Server::new(root, name);
    let path = server.folder.join("scouting.db");
    shape::make(&path, &shape.schema())?;
    server.databases.push((DATABASE.to_owned(), path));
    Ok(server)
}

/// A running cluster: all connected to the first, adopted, ids steered.
pub(crate) fn of(root: &Path, count: usize, shape: Shape) -> Result<Vec<Server>, Failure> {
    let mut servers = (0..count).map(|at| server(root, &format!("s{at}"), shape)).collect::<Result<Vec<_>, _>>()?;
    servers[0].start();
    for at in 1..count {
        let code = servers[0].invite();
        let flags = servers[at].database_flags();
        let mut words = vec!["join", code.as_str(), "--name", servers[at].name.as_str(), "--yes"];
        words.extend(flags.iter().map(String::as_str));
        servers[at].cli(&words).done();
        let address = servers[0].address();
        servers[at].start_with(&["--peer", &address]);
    }
    for server in &servers {
        server.steered(DATABASE, &[TABLE]);
    }
    connected(&servers)?;
    Ok(servers)
}

/// Waits until everybody is connected to everybody.
pub(crate) fn connected(servers: &[Server]) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(60);
    while !servers.iter().all(|server| crate::support::cluster::connected_peers(server) + 1 >= servers.len()) {
        if Instant::now() > end {
            return Err("the servers are not connected within 60 s".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until a server's outbox is empty: what the app committed is a durable event, and its marks are cleared.
pub(crate) fn captured(server: &Server) -> Result<(), Failure> {
    let watch = shape::open(server.database(DATABASE), "FULL")?;
    until("the outbox is empty", Duration::from_micros(500), || {
        Ok(!watch.prepare_cached("SELECT 1 FROM _litemesh_outbox LIMIT 1")?.exists([])?)
    })
}

/// Asks again and again until it is so.
pub(crate) fn until(what: &str, pause: Duration, mut so: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    while !so()? {
        if Instant::now() > end {
            return Err(format!("{what}: not within {} s", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(pause);
    }
    Ok(())
}
