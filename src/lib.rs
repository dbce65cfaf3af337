//! litemesh keeps an ordinary application's SQLite files the same on every server: no hub, no change to the application,
//! no row lost.
//!
//! The way of a change:
//! ```text
//! app writes scouting.db ──trigger──▶ outbox (same transaction)                                     sqlite
//!   └▶ capture ─▶ event ─▶ append to log (redb, durable) ─▶ push, announce ─▶ peers pull            node, log, wire, net
//!                                  peers: append ─▶ merge ─▶ apply (one SQLite transaction) ─▶ app   merge, node, sqlite
//! ```
//! Rooms, from the ground up; each uses only what is below it (`tests/architecture.rs`):
//!
//! | floor | room       | what it is                                                                              |
//! |-------|------------|-----------------------------------------------------------------------------------------|
//! | L0    | [`model`]  | ids, values, stamps, events, heads: plain data and total orders                          |
//! | L1    | [`clock`]  | hybrid logical clock, pure                                                               |
//! | L1    | [`merge`]  | identity, cells, liveness, uniqueness: state = F(set of events)                          |
//! | L1    | [`reconcile`] | range fingerprints: which rows differ, without sending those that do not; sans-IO      |
//! | L2    | [`wire`]   | protobuf to model and back; every size limit in one file                                 |
//! | L2    | [`log`]    | append-only event log and the evaluator's storage on redb                                |
//! | L2    | [`sqlite`] | the only room that speaks SQL to the app's files: triggers, drain, apply, scan           |
//! | L3    | [`node`]   | the deterministic heart: inputs in, effects out; owns log and files                      |
//! | L4    | `net`      | libp2p: effects become frames, frames become inputs; discovery; the gate for members     |
//! | L4    | `monitor`  | run tracking, reliability, alerts, metrics                                               |
//! | L4    | `http`     | API on localhost                                                                         |
//! | L4    | `config`   | defaults, file, environment and flags become validated settings                          |
//! | L5    | `daemon`   | wiring, threads, signals, the data directory                                             |
//! | L5    | `cli`      | one file per command                                                                     |
//!
//! `simulations/` drives whole clusters of [`node::Node`] on a virtual network and clock. Heads are exchanged in [`node`].

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
pub mod monitor;
#[cfg(feature = "daemon")]
pub mod net;
pub mod node;
pub mod reconcile;
pub mod sqlite;
pub mod wire;
