//! litemesh keeps an ordinary application's SQLite files the same on every server.
//!
//! (map to follow)
#[cfg(feature = "daemon")]
pub mod cli;
pub mod clock;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod http;
pub mod log;
pub mod merge;
pub mod model;
#[cfg(feature = "daemon")]
pub mod net;
pub mod node;
pub mod sqlite;
pub mod wire;
