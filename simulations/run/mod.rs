//! A run: drawn from a seed and a scenario, played on a world, made small when it fails.
//!
//! | file          | what it does                                                             |
//! |---------------|--------------------------------------------------------------------------|
//! | [`command`]   | reads the command line                                                   |
//! | [`scenario`]  | reads a scenario from `scenarios/*.toml`                                 |
//! | [`plan`]      | draws a run (options and steps: plain data) from scenario and seed       |
//! | [`step`]      | what a step is, and how it is done to a world                            |
//! | [`play`]      | plays a plan: safety phase, liveness phase, checks                       |
//! | [`shrink`]    | a failing plan becomes a small one                                       |
//! | [`tell`]      | words for people: story, summary, table of marks                         |
//! | [`jobs`]      | many seeds, in several processes                                         |
//! | [`regression`]| plans that once failed, from `regressions/*.toml`                        |
//!
//! Invariant: a plan and a binary determine a run; leaving a step out changes no other step. Caller: `simulate`.

pub mod command;
pub mod jobs;
pub mod plan;
pub mod play;
pub mod regression;
pub mod scenario;
pub mod shrink;
pub mod step;
pub mod tell;
