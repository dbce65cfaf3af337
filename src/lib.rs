//! litemesh keeps an ordinary application's SQLite files the same on every server.
//!
//! (map to follow)
pub mod clock;
pub mod log;
pub mod merge;
pub mod model;
pub mod node;
pub mod sqlite;
pub mod wire;
