//! How every seed ends: a careless migration, a row that a file refuses, a forger, and a bit that rots in the log.
//!
//! What it shows: a table that an app drops and makes anew gets its rows back, and nobody loses them; a
//! row that one file alone refuses is on the shelf there, and comes when the file takes it; an event that a
//! member writes in another one's name is stored by nobody; a flipped bit in an event never leaves the log as if the event
//! were sound. Invariant: the last two end their server, so they come last. Does not verify: that the forger is named, that
//! the damage is mended. Caller: `crash`.

use ed25519_dalek::{Signer, SigningKey};
use litemesh::log::{Log, StorageBackend};
use litemesh::model::{Birth, Cell, Change, Cut, Event, Head, Header, OriginId, RowId, Stamp, TableColumns, Value};
use litemesh::node::{Input, Node};
use litemesh::wire::message::{Events, Message, SignedEvent};
use litemesh::wire::{decode_event, encode_event, event_hash, head_signature_message};

use super::Cluster;

/// After this a node has tried again what SQLite refused, ms.
const REFUSED_RETRY_MS: u64 = 35_000;

impl Cluster {
    /// All of them; each server stands when it begins.
    pub fn ending(&mut self) -> Result<(), String> {
        self.remake()?;
        if self.servers.len() > 1 {
            self.refuse(0, 1)?;
            self.forge(0, 1)?;
        }
        self.rot(0)
    }

    /// The app of the first server rebuilds a table.
    fn remake(&mut self) -> Result<(), String> {
        self.servers[0].remake_users("").map_err(|error| format!("the app's migration: {error}"))?;
        self.input(0, Input::FileTouched(1))?;
        self.pass(2_000)?;
        self.settle()?;
        self.check(false).map_err(|what| format!("after a table was dropped and made anew: {what}"))
    }

    /// One server's table has a constraint that no other has, and another server writes what breaks it.
    fn refuse(&mut self, strict: usize, other: usize) -> Result<(), String> {
        let migrate = |cluster: &Cluster, check: &str| {
            cluster.servers[strict].remake_users(check).map_err(|error| format!("the app's migration: {error}"))
        };
        migrate(self, "CHECK (value < 5000)")?;
        self.input(strict, Input::FileTouched(1))?;
        self.pass(1_000)?;
        let marker = self.servers[other].put(1, 5_000);
        self.input(other, Input::FileTouched(1))?;
        self.pass(3_000)?;
        let shelf = self.servers[strict].node.as_ref().ok_or("a node is down")?.shelf();
        let mut cells = shelf.map_err(|error| error.to_string())?.into_iter().flat_map(|row| row.cells);
        if !cells.any(|(_, value)| value.contains(&marker)) {
            return Err(format!("server {strict} cannot show {marker}, and its shelf does not list it"));
        }
        migrate(self, "")?;
        self.input(strict, Input::FileTouched(1))?;
        self.pass(REFUSED_RETRY_MS)?;
        self.settle()?;
        self.check(false).map_err(|what| format!("after a row was refused for a while: {what}"))
    }

    /// A member sends another one an event in that one's own name, with everything right but the signature.
    fn forge(&mut self, author: usize, forger: usize) -> Result<(), String> {
        let Some((head, event)) = self.last_own(author)? else { return Ok(()) };
        let key = SigningKey::from_bytes(&self.servers[forger].settings.key_seed);
        let (origin, seq) = (head.origin.id(), head.seq + 1);
        let row = RowId::Born(Birth { origin, seq, index: 0 });
        let cells = vec![(0, Cell::Plain(Value::text("user-forged-1-0")))];
        let forged = Event {
            header: Header {
                seq,
                previous: head.hash,
                stamp: Stamp(event.header.stamp.0 + 1),
                database: "users".to_string(),
                applied: Cut::default(),
                continues: false,
                note: String::new(),
                ..event.header
            },
            tables: vec![TableColumns { table: "user".to_string(), columns: vec!["marker".to_string()] }],
            changes: vec![Change::Insert { table: 0, row, claim: Some(9_999), after: None, cells }],
        };
        let bytes = encode_event(&forged);
        let signature = key.sign(&head_signature_message(&forged.header.cluster, &event_hash(&bytes))).to_bytes();
        let events = vec![SignedEvent { bytes, signature: Some(signature) }];
        let frame = Message::Events(Events { events, ..Events::default() }).encode();
        let (now, peer) = (self.now(), self.servers[forger].id);
        let node = self.servers[author].node.as_mut().ok_or("a node is down")?;
        node.handle(Input::Received { peer, frame }, now).map_err(|error| error.to_string())?;
        while node.poll_effect().is_some() {}
        match last_of(node, &origin)? {
            Some(last) if last.seq == head.seq => Ok(()),
            _ => Err(format!("server {forger} forged event {seq} of server {author}, and it was stored")),
        }
    }

    /// The last event of a server's own chain.
    fn last_own(&self, position: usize) -> Result<Option<(Head, Event)>, String> {
        let server = &self.servers[position];
        let node = server.node.as_ref().ok_or("a node is down")?;
        let read = node.log().read().map_err(|error| error.to_string())?;
        let heads = read.heads().map_err(|error| error.to_string())?;
        let own = |head: &&Head| head.origin.node == server.id && head.origin.incarnation != 0;
        let Some(head) = heads.values().filter(own).max_by_key(|head| head.seq) else { return Ok(None) };
        let stored = read.event(&head.origin.id(), head.seq).map_err(|error| error.to_string())?;
        let event = stored.map(|stored| decode_event(&stored.bytes)).transpose().map_err(|error| error.to_string())?;
        Ok(event.map(|event| (*head, event)))
    }

    /// A bit of an event rots on the disk while the node is down.
    fn rot(&mut self, position: usize) -> Result<(), String> {
        let Some((head, event)) = self.last_own(position)? else { return Ok(()) };
        let (origin, bytes) = (head.origin.id(), encode_event(&event));
        let bit = self.dice.below(bytes.len() as u64 * 8);
        self.end(position)?;
        let server = &mut self.servers[position];
        server.process += 1;
        let disk = &server.disk;
        let read = || -> std::io::Result<Vec<u8>> {
            let file = disk.backend("log.redb")?;
            let mut content = vec![0; file.len()? as usize];
            file.read(0, &mut content)?;
            Ok(content)
        };
        let content = disk.as_process(server.process, read).map_err(|error| error.to_string())?;
        // Freed pages may hold it too.
        let places = content.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
        for (place, _) in places {
            disk.flip("log.redb", place as u64 * 8 + bit);
        }
        let again = disk.as_process(server.process, || {
            let log = Log::with_backend(disk.backend("log.redb").ok()?).ok()?;
            let stored = log.read().ok()?.event(&origin, head.seq).ok()?;
            stored.map(|stored| stored.bytes)
        });
        match again {
            Some(again) if again != bytes => {
                Err(format!("bit {bit} of event {} was flipped, and the log says nothing", head.seq))
            }
            // An event too long for one page lies in no single place: then nothing was flipped.
            _ => Ok(()),
        }
    }
}

fn last_of(node: &Node, origin: &OriginId) -> Result<Option<Head>, String> {
    let read = node.log().read().map_err(|error| error.to_string())?;
    Ok(read.heads().map_err(|error| error.to_string())?.get(origin).copied())
}
