//! Floor L5: wiring, threads, signals. Everything that has a clock, a lock file or a process id is here.
//!
//! ```text
//!   data_dir    what lies in the data directory, and who may read it     machine   host name, machine id, dice
//!   databases   which files to replicate                                 sample    the sample pair
//!   node_thread the thread that owns the node                            watch     file notification
//!   run         `litemesh run`, from lock to last byte                   control   the network as the API sees it
//!   enrol       new clusters                                             offline   work on a node that does not run
//!   doctor      what can be checked from outside                         supervised  joining, its plan, a person's word
//!   observe     what a person must be told
//!   reserve     room for a full disk                                 rotate    another key for this node
//! ```
//!
//! Invariant: one process owns a data directory (an advisory lock says so); the node lives on one thread; the clock is
//! read once per turn of that thread. Callers: cli.

mod archive;
mod carry;
mod control;
mod data_dir;
mod databases;
mod doctor;
mod enrol;
mod error;
mod follow;
mod machine;
mod node_thread;
mod observe;
mod offline;
mod reserve;
mod rotate;
mod run;
mod sample;
mod supervised;
mod watch;

pub use archive::{cleanup, copy_archive, list_archive};
pub use carry::{
    Outlet, Requested, admit_request, export_bundle, import_bundle, inspect_bundle, receipts, request_admission, spool,
};
pub use data_dir::{DataDir, DataLock, RunInfo};
pub use databases::{Choice, choose, file_settings};
pub use doctor::checks;
pub use enrol::{Enrolled, init};
pub use error::DaemonError;
pub use machine::{clock_now, host_name};
pub use node_thread::{NodeHandle, NodeThread, Start};
pub use offline::{eject, migrate, preflight, rebuild, verify_files, verify_log};
pub use rotate::{Rotated, rotate_key};
pub use run::{Ready, Wishes, run};
pub use sample::create as create_sample;
pub use supervised::{Entrance, Meetings, accept, admit, plan_join, rows_here};
