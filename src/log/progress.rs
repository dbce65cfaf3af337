//! How far the node is: what each file shows, the clock, the events a file cannot show whole yet.
//!
//! Invariant: a cursor is committed together with the state it stands for. Caller: node.

use super::tables::{self, join, prefix};
use super::write::LogWrite;
use super::{LogError, LogRead, record};
use crate::model::{Cut, OriginId, Stamp};

/// Name of the table these records lie in.
const META_NAME: &str = "meta";
const CLOCK_KEY: &str = "clock";

fn cursor_key(database: &str) -> String {
    format!("cursor:{database}")
}

fn held_key(number: u32, origin: OriginId, seq: u64) -> [u8; 28] {
    join(&[&number.to_be_bytes(), &origin.0, &seq.to_be_bytes()])
}

fn read_cursor(database: &str, bytes: Option<Vec<u8>>) -> Result<Option<(Cut, u64)>, LogError> {
    let key = cursor_key(database);
    bytes.map(|bytes| record::unseal(META_NAME, key.as_bytes(), &bytes)).transpose()
}

impl LogRead {
    /// What a database's file shows, with the file's epoch when it was noted.
    pub fn cursor(&self, database: &str) -> Result<Option<(Cut, u64)>, LogError> {
        read_cursor(database, self.meta(&cursor_key(database))?)
    }

    /// The greatest stamp this node gave out or absorbed.
    pub fn clock(&self) -> Result<Stamp, LogError> {
        match self.meta(CLOCK_KEY)? {
            Some(bytes) => record::unseal(META_NAME, CLOCK_KEY.as_bytes(), &bytes),
            None => Ok(Stamp::default()),
        }
    }

    /// Events of a database that its file cannot show whole: (origin, seq, what is missing).
    pub fn held(&self, database: &str) -> Result<Vec<(OriginId, u64, String)>, LogError> {
        let Some(record) = self.database(database)? else { return Ok(Vec::new()) };
        let (from, through) = prefix::<28>(&record.number.to_be_bytes());
        let mut held = Vec::new();
        for entry in self.held.range::<&[u8; 28]>(&from..=&through)? {
            let (key, value) = entry?;
            let (mut origin, mut seq) = ([0; 16], [0; 8]);
            origin.copy_from_slice(&key.value()[4..20]);
            seq.copy_from_slice(&key.value()[20..]);
            held.push((OriginId(origin), u64::from_be_bytes(seq), value.value().to_owned()));
        }
        Ok(held)
    }

    /// How many events of a database its file cannot show whole.
    pub fn held_count(&self, database: &str) -> Result<u64, LogError> {
        let Some(record) = self.database(database)? else { return Ok(0) };
        let (from, through) = prefix::<28>(&record.number.to_be_bytes());
        Ok(self.held.range::<&[u8; 28]>(&from..=&through)?.count() as u64)
    }
}

impl LogWrite<'_> {
    /// Notes what a database's file shows and the file's epoch.
    pub fn put_cursor(&mut self, database: &str, cursor: &Cut, epoch: u64) -> Result<(), LogError> {
        let key = cursor_key(database);
        let bytes = record::seal(key.as_bytes(), &(cursor, epoch));
        self.put_meta(&key, &bytes)
    }

    /// What a database's file shows, with the file's epoch when it was noted.
    pub fn cursor(&self, database: &str) -> Result<Option<(Cut, u64)>, LogError> {
        read_cursor(database, self.meta(&cursor_key(database))?)
    }

    /// Notes the greatest stamp given out or absorbed.
    pub fn put_clock(&mut self, stamp: Stamp) -> Result<(), LogError> {
        self.put_meta(CLOCK_KEY, &record::seal(CLOCK_KEY.as_bytes(), &stamp))
    }

    /// Notes an event that a database's file cannot show whole.
    pub fn put_held(&mut self, database: &str, origin: OriginId, seq: u64, missing: &str) -> Result<(), LogError> {
        let key = held_key(self.database_mut(database).number, origin, seq);
        self.transaction.open_table(tables::HELD)?.insert(&key, missing)?;
        Ok(())
    }

    /// Forgets such an event.
    pub fn drop_held(&mut self, database: &str, origin: OriginId, seq: u64) -> Result<(), LogError> {
        let key = held_key(self.database_mut(database).number, origin, seq);
        self.transaction.open_table(tables::HELD)?.remove(&key)?;
        Ok(())
    }
}
