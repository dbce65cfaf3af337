//! How other threads reach the node: jobs, run one after the other by whoever owns it.
//!
//! Invariant: a job runs on the node's own thread, between two inputs; it must be short. Implemented by `daemon`, used by
//! `net` and `http`.

use super::{Node, Now};

/// Something to do with the node.
pub type Job = Box<dyn FnOnce(&mut Node, Now) + Send>;

/// The way to a running node.
pub trait NodePort: Send + Sync {
    /// Queues a job. `false`: the node has stopped or its bounded queue is full; the job is dropped.
    fn submit(&self, job: Job) -> bool;
}
