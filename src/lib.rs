//! litemesh keeps an ordinary application's SQLite files the same on every server.
//!
//! (map to follow)
#[cfg(feature = "daemon")]
pub mod config;
pub mod merge { pub mod store; }
pub mod model;
pub mod node;
