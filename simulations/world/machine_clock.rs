//! The clock and the dice of the machine that an app runs on, as its SQLite sees them.
//!
//! The triggers that litemesh puts into the app's file call `julianday('now')` and `random()`. Here both are functions of
//! the connection: time is the virtual machine's (years off, when the scenario says so), random numbers count up. So a
//! run depends on neither the real clock nor SQLite's own generator, which is one for a whole process. (The node's own
//! connections keep that generator; what they draw, ids of files, is only compared for equality.)
//! Invariant: equal runs give equal marks. Caller: the app.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// Milliseconds since 1970, and the count of draws, shared with the functions.
#[derive(Clone, Debug, Default)]
pub struct MachineClock {
    wall_ms: Arc<AtomicU64>,
    draws: Arc<AtomicU64>,
}

impl MachineClock {
    /// Sets the time.
    pub fn set(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }

    /// Sets where the random numbers begin: other machines have other ones.
    pub fn seed(&self, seed: u64) {
        self.draws.store(seed, Ordering::Relaxed);
    }

    /// Puts both functions in the place of SQLite's own on a connection.
    pub fn install(&self, connection: &Connection) {
        let (time, draws) = (self.wall_ms.clone(), self.draws.clone());
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        let julian_day = move |_: &rusqlite::functions::Context<'_>| {
            // Day 0 is noon of 24 November 4714 BC; 1970 began at 2440587.5.
            Ok(2_440_587.5 + time.load(Ordering::Relaxed) as f64 / 86_400_000.0)
        };
        let random = move |_: &rusqlite::functions::Context<'_>| {
            Ok(super::dice::Dice::new(draws.fetch_add(1, Ordering::Relaxed)).bits() as i64)
        };
        connection.create_scalar_function("julianday", 1, flags, julian_day).expect("a function can be replaced");
        connection.create_scalar_function("random", 0, flags, random).expect("a function can be replaced");
    }
}
