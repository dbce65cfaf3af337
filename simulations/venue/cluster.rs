//! Servers of one cluster, each on a host of its own, and the rows that are written and looked for.
//!
//! Invariant: "shown" is read from the application's file, as the application would, never from what a node says of
//! itself; every row written is in the record, and at the end every file must show exactly the record. Servers are told
//! no address: they find each other by the join, by multicast and by what they remember. Callers: the commands.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::network::{Bridge, Carried, Family, Host};
use super::outcome::Trouble;
use super::record::{Record, Transaction};
use super::server::{DATABASES, Server};

/// Between two looks into the files.
const LOOK: Duration = Duration::from_millis(4);

/// See [`Cluster::patience`].
const PATIENCE: Duration = Duration::from_secs(90);

/// The port of every node.
pub const PORT: u16 = 7481;

/// What a node listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transports {
    /// As the defaults say.
    Both,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
}

impl Transports {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Transports::Both => "quic+tcp",
            Transports::Quic => "quic",
            Transports::Tcp => "tcp",
        }
    }

    fn listen(self, family: Family) -> Vec<String> {
        let any = if family == Family::V4 { "/ip4/0.0.0.0" } else { "/ip6/::" };
        let (quic, tcp) = (format!("{any}/udp/{PORT}/quic-v1"), format!("{any}/tcp/{PORT}"));
        match self {
            Transports::Both => vec![quic, tcp],
            Transports::Quic => vec![quic],
            Transports::Tcp => vec![tcp],
        }
    }
}

/// See the module.
pub struct Cluster {
    /// The switch between the hosts.
    pub bridge: Bridge,
    /// The hosts, in the order of the servers.
    pub hosts: Vec<Host>,
    /// The servers; the first founded the cluster.
    pub servers: Vec<Server>,
    /// What the nodes listen on from the next start on.
    pub transports: Transports,
    /// Beyond this nothing arrives any more: not slow but broken.
    pub patience: Duration,
    family: Family,
    record: Record,
    files: Vec<Connection>,
    written: u64,
    next_address: usize,
}

impl Cluster {
    /// So many servers of one cluster, all running.
    pub fn new(
        litemesh: &Path,
        root: &Path,
        bridge: &str,
        nodes: usize,
        (family, transports): (Family, Transports),
    ) -> Result<Cluster, Trouble> {
        let mut cluster = Cluster {
            bridge: Bridge::new(bridge)?,
            hosts: Vec::new(),
            servers: Vec::new(),
            transports,
            patience: PATIENCE,
            family,
            record: Record::default(),
            files: Vec::new(),
            written: 0,
            next_address: 0,
        };
        for number in 0..nodes {
            let host = cluster.bridge.host(number, family)?;
            let mut server = Server::new(litemesh, root, &format!("{bridge}s{number}"))?;
            server.place = host.place()?;
            server.mdns = true;
            cluster.hosts.push(host);
            cluster.servers.push(server);
            cluster.next_address += 1;
        }
        cluster.start(0)?;
        for number in 1..nodes {
            let code = cluster.servers[0].cli(&["invite"])?.done("invite")?.out.trim().to_owned();
            cluster.servers[number].join_with(&code, &[])?.done("join")?;
            cluster.start(number)?;
        }
        for server in &cluster.servers {
            let path = server.files.join(format!("{}.db", DATABASES[0]));
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let file = Connection::open_with_flags(path, flags)?;
            file.busy_timeout(Duration::from_secs(10))?;
            file.execute_batch("PRAGMA synchronous = FULL")?;
            cluster.files.push(file);
        }
        let every: Vec<usize> = (0..nodes).collect();
        let first = every.iter().map(|node| cluster.write(*node)).collect::<Result<Vec<_>, _>>()?;
        cluster.shown_on(&first, &every, Instant::now())?;
        Ok(cluster)
    }

    /// Which addresses its hosts have, for people.
    pub fn family_name(&self) -> &'static str {
        if self.family == Family::V4 { "v4" } else { "v6" }
    }

    /// All numbers of servers.
    pub fn every(&self) -> Vec<usize> {
        (0..self.servers.len()).collect()
    }

    fn start(&mut self, number: usize) -> Result<(), Trouble> {
        let listen = self.transports.listen(self.family);
        let server = &mut self.servers[number];
        // The ready line's addresses were those of then.
        server.listen = listen;
        server.start()
    }

    /// Starts all that do not run, at the same time; when each was ready, from `began`.
    pub fn start_all(&mut self, began: Instant) -> Result<Vec<Duration>, Trouble> {
        let listen = self.transports.listen(self.family);
        let stopped: Vec<&mut Server> = self.servers.iter_mut().filter(|server| !server.is_started()).collect();
        let mut spawned = Vec::new();
        for server in stopped {
            server.listen.clone_from(&listen);
            server.spawn()?;
            spawned.push(server);
        }
        let mut ready = Vec::new();
        for server in spawned {
            if let super::server::Start::Ended(answer) = server.ready()? {
                return Err(Trouble::wrong(format!("{} does not start: {}", server.name, answer.words())));
            }
            ready.push(began.elapsed());
        }
        Ok(ready)
    }

    /// Stops all of them, cleanly and at the same time.
    pub fn stop_all(&mut self) -> Result<(), Trouble> {
        std::thread::scope(|scope| {
            let stops: Vec<_> = self.servers.iter_mut().map(|server| scope.spawn(move || server.stop_well())).collect();
            let joined = stops.into_iter().map(|stop| stop.join().unwrap_or_else(|_| Err(Trouble::wrong("panicked"))));
            joined.collect::<Result<Vec<()>, _>>().map(drop)
        })
    }

    /// Gives every host an address that none had before.
    pub fn move_all(&mut self) -> Result<(), Trouble> {
        (0..self.hosts.len()).try_for_each(|number| self.move_one(number))
    }

    /// Gives one host an address that none had before.
    pub fn move_one(&mut self, number: usize) -> Result<(), Trouble> {
        let address = self.next_address;
        self.next_address += 1;
        self.hosts[number].readdress(address)
    }

    /// One row, committed in a server's file as the application would; its marker.
    pub fn write(&mut self, number: usize) -> Result<String, Trouble> {
        Ok(self.write_many(number, 1, 40)?.remove(0))
    }

    /// So many rows in one transaction, each with so many random bytes beside its marker.
    pub fn write_many(&mut self, number: usize, rows: usize, body: usize) -> Result<Vec<String>, Trouble> {
        let file = &mut self.files[number];
        let transaction = file.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut markers = Vec::new();
        for _ in 0..rows {
            self.written += 1;
            let marker = format!("{}-{}", self.servers[number].name, self.written);
            let insert = "INSERT INTO note (marker, n, body) VALUES (?1, 0, randomblob(?2))";
            transaction.prepare_cached(insert)?.execute((&marker, body as i64))?;
            markers.push(marker);
        }
        transaction.commit()?;
        let steps = markers.iter().map(|marker| (marker.clone(), Some(0))).collect();
        self.record.commit(Transaction { database: DATABASES[0].to_owned(), steps });
        Ok(markers)
    }

    /// Whether a server's file shows a row.
    pub fn shows(&self, number: usize, marker: &str) -> Result<bool, Trouble> {
        let mut query = self.files[number].prepare_cached("SELECT 1 FROM note WHERE marker = ?1")?;
        Ok(query.exists([marker])?)
    }

    /// The marks and rows of marks that a server's node has not taken into its log yet.
    pub fn waiting(&self, number: usize) -> Result<i64, Trouble> {
        let mut query = self.files[number].prepare_cached("SELECT count(*) FROM _litemesh_outbox")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// Waits until these rows are shown on these servers; for each server, when it showed all, from `began`.
    pub fn shown_on(&self, markers: &[String], on: &[usize], began: Instant) -> Result<Vec<Duration>, Trouble> {
        let mut left: Vec<(usize, usize)> = on.iter().map(|number| (*number, 0)).collect();
        let mut times = vec![Duration::ZERO; on.len()];
        let until = Instant::now() + self.patience;
        loop {
            for (position, (number, seen)) in left.iter_mut().enumerate() {
                let before = *seen;
                while *seen < markers.len() && self.shows(*number, &markers[*seen])? {
                    *seen += 1;
                }
                if *seen != before {
                    times[position] = began.elapsed();
                }
            }
            let Some((number, seen)) = left.iter().find(|(_, seen)| *seen < markers.len()) else { return Ok(times) };
            if Instant::now() > until {
                return Err(Trouble::wrong(format!(
                    "{} does not show row {} after {} s: {}",
                    self.servers[*number].name,
                    markers[*seen],
                    self.patience.as_secs(),
                    self.tell(*number)
                )));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until each of these servers shows a row of another one; when each did, from `began`.
    pub fn met_on(&self, markers: &[String], on: &[usize], began: Instant) -> Result<Vec<Duration>, Trouble> {
        let mut times: Vec<Option<Duration>> = vec![None; on.len()];
        let until = Instant::now() + self.patience;
        while times.iter().any(Option::is_none) {
            for (time, number) in times.iter_mut().zip(on).filter(|(time, _)| time.is_none()) {
                let own = format!("{}-", self.servers[*number].name);
                for marker in markers.iter().filter(|marker| !marker.starts_with(&own)) {
                    if self.shows(*number, marker)? {
                        *time = Some(began.elapsed());
                        break;
                    }
                }
            }
            if Instant::now() > until {
                let alone = times.iter().zip(on).filter(|(time, _)| time.is_none()).map(|(_, number)| *number);
                let names: Vec<String> = alone.map(|number| self.tell(number)).collect();
                return Err(Trouble::wrong(format!("alone after {} s: {}", self.patience.as_secs(), names.join("; "))));
            }
            std::thread::sleep(LOOK);
        }
        Ok(times.into_iter().flatten().collect())
    }

    /// Waits until a server's node says that it is connected to all others; when, from `began`.
    pub fn connected(&self, number: usize, began: Instant) -> Result<Duration, Trouble> {
        let until = Instant::now() + self.patience;
        loop {
            let status = self.servers[number].status()?;
            let peers = status["peers"]
                .as_array()
                .map_or(0, |peers| peers.iter().filter(|peer| peer["state"] == "connected").count());
            if peers + 1 >= self.servers.len() {
                return Ok(began.elapsed());
            }
            if Instant::now() > until {
                return Err(Trouble::wrong(format!("not connected to all: {}", self.tell(number))));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A server's peers in its own words, and the end of what it said.
    fn tell(&self, number: usize) -> String {
        let server = &self.servers[number];
        let peers = server.status().map(|status| {
            let empty = Vec::new();
            let peers = status["peers"].as_array().unwrap_or(&empty);
            let peers = peers.iter().map(|peer| format!("{} {}", peer["name"], peer["state"]));
            peers.collect::<Vec<_>>().join(", ")
        });
        let peers = peers.unwrap_or_else(|trouble| trouble.to_string());
        format!("{} says: {peers}; last words: {}", server.name, server.last_words())
    }

    /// What went over each cable so far.
    pub fn carried(&self) -> Result<Vec<Carried>, Trouble> {
        self.hosts.iter().map(Host::carried).collect()
    }

    /// At the end: every row everywhere, once, nothing else, and nobody panicked.
    pub fn check(&self) -> Result<(), Trouble> {
        let until = Instant::now() + self.patience;
        for server in &self.servers {
            let path = server.files.join(format!("{}.db", DATABASES[0]));
            loop {
                match self.record.check(&server.name, DATABASES[0], &path) {
                    Ok(()) => break,
                    Err(trouble) if Instant::now() > until => return Err(trouble),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
            if server.said().contains("panicked at") {
                return Err(Trouble::wrong(format!("{} panicked: {}", server.name, server.last_words())));
            }
        }
        Ok(())
    }
}
