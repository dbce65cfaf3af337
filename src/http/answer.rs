//! Asking the node: a closure goes to its thread, runs between two inputs, and its result comes back.
//!
//! Invariant: the closure is short; a full queue or a stopped node is a problem at once, never a wait without end.
//! Called by `read` and `act`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::problem::Problem;
use crate::node::port::NodePort;
use crate::node::{Node, Now};

/// How long a question may wait for the node's thread.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Asks and waits for the answer.
pub(super) async fn ask<T: Send + 'static>(
    port: &Arc<dyn NodePort>,
    question: impl FnOnce(&mut Node, Now) -> T + Send + 'static,
) -> Result<T, Problem> {
    ask_within(port, ANSWER_WITHIN, question).await
}

/// Like [`ask`], with another patience.
pub(super) async fn ask_within<T: Send + 'static>(
    port: &Arc<dyn NodePort>,
    patience: Duration,
    question: impl FnOnce(&mut Node, Now) -> T + Send + 'static,
) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    let job = Box::new(move |node: &mut Node, now: Now| {
        // Nobody waits any more when sending fails: nothing to do.
        let _ = reply.send(question(node, now));
    });
    if !port.submit(job) {
        return Err(Problem::node_busy());
    }
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Problem::node_busy()),
        Err(_) => Err(Problem::timeout()),
    }
}
