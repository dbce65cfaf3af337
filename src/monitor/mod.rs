//! Floor L4: run tracking, reliability, alerts, metrics.
//!
//! ```text
//!   recorder   the way in: a bounded queue to the one thread that writes       guard    a run that always ends
//!   store      monitor.db: status, history, leases, retention                  schema   its tables, and their readme
//!   burst      small runs of the node become few rows                          reliability  rates, score, bands, trend
//!   errors     classes and patterns of failures                                view     what the API shows of it
//!   feed       times of changes, and what older servers sent                     alerts   what a person must know
//!   deliver    webhook and mail                          mail     SMTP, TLS, passwords
//!   drift      the node's drift records, copied
//! ```
//!
//! States of a run: begun (in_progress) → success | error. Every run ends: it completes, it fails, it fails when its guard
//! is dropped, it is failed at the next start when the program died ("interrupted"), or when its owner gave no sign of life
//! for the time it promised. A run that ended never changes again; a watermark moves with a success only.
//! Invariants: the node never waits for this room (a full queue drops the note and counts it); `monitor.db` holds nothing
//! that the apps' data depends on, so a damaged one is set aside and made anew. Durable: a run's begin and end when the
//! call returns (but for the last moments before a power cut: `synchronous=NORMAL`); the node's own small runs about a
//! second later. Callers: daemon, http.

pub mod alert_store;
pub mod alerts;
pub mod deliver;
pub mod drift;
pub mod errors;
pub mod feed;
pub mod guard;
pub mod mail;
pub mod recorder;
pub mod reliability;
pub mod store;
pub mod view;

mod burst;
mod schema;

pub use guard::RunGuard;
pub use recorder::{Monitor, MonitorSettings};
pub use store::{MonitorError, RunBegin, RunEnd, Store};
