//! litemesh keeps an ordinary application's SQLite files the same on every server.
//!
//! (map to follow)
pub mod merge { pub mod store; }
pub mod model;
#[cfg(feature = "daemon")]
pub mod net;
pub mod node;
pub mod wire;
