//! The way from the network to the node: what net asks of it, and how that becomes jobs.
//!
//! Invariant: an input is delivered or handed back, never lost on the way; inputs of one task arrive in order.
//! Callers: all of net. Tests put a node of their own behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::model::MemberRecord;
use crate::node::Input;
use crate::node::invite::{JoinRequest, Refusal};
use crate::node::membership::Membership;
use crate::node::port::{Job, NodePort};
use crate::node::view::KnownAddress;

/// Inputs waiting for the node: one more and the streams are read no further.
const WAITING_INPUTS_MAX: usize = 16;
const RETRY_MS_MAX: u64 = 50;

/// What net needs of a node. Answers come by channel, from the node's own thread; a closed channel means the node was
/// busy or has stopped.
pub(crate) trait Door: Send + Sync {
    /// Hands an input over, or back when the node cannot take it now.
    fn try_deliver(&self, input: Input) -> Result<(), Input>;
    /// A copy of the membership.
    fn membership(&self) -> oneshot::Receiver<Membership>;
    /// Redeems an invite, durably: the records of all members.
    fn redeem(&self, request: JoinRequest) -> oneshot::Receiver<Result<Vec<MemberRecord>, Refusal>>;
    /// Remembers a way to a peer. May be lost.
    fn remember(&self, address: KnownAddress);
    /// The ways to peers that were remembered.
    fn known_addresses(&self) -> oneshot::Receiver<Vec<KnownAddress>>;
}

/// The door of a real node.
pub(crate) struct PortDoor(pub(crate) Arc<dyn NodePort>);

impl Door for PortDoor {
    fn try_deliver(&self, input: Input) -> Result<(), Input> {
        // The job owns the input; when it is refused unrun, the input is taken back out of the slot.
        let slot = Arc::new(Mutex::new(Some(input)));
        let inside = slot.clone();
        let job: Job = Box::new(move |node, now| {
            let input = inside.lock().ok().and_then(|mut slot| slot.take());
            if let Some(Err(error)) = input.map(|input| node.handle(input, now)) {
                tracing::error!(%error, "the node could not take an input of the network");
            }
        });
        if self.0.submit(job) {
            return Ok(());
        }
        match slot.lock().ok().and_then(|mut slot| slot.take()) {
            Some(input) => Err(input),
            None => Ok(()),
        }
    }

    fn membership(&self) -> oneshot::Receiver<Membership> {
        let (answer, receiver) = oneshot::channel();
        self.0.submit(Box::new(move |node, _| {
            let _ = answer.send(node.membership().clone());
        }));
        receiver
    }

    fn redeem(&self, request: JoinRequest) -> oneshot::Receiver<Result<Vec<MemberRecord>, Refusal>> {
        let (answer, receiver) = oneshot::channel();
        self.0.submit(Box::new(move |node, now| {
            let _ = answer.send(node.redeem(&request, now));
        }));
        receiver
    }

    fn remember(&self, address: KnownAddress) {
        self.0.submit(Box::new(move |node, _| {
            if let Err(error) = node.add_address(address) {
                tracing::warn!(%error, "an address could not be remembered");
            }
        }));
    }

    fn known_addresses(&self) -> oneshot::Receiver<Vec<KnownAddress>> {
        let (answer, receiver) = oneshot::channel();
        self.0.submit(Box::new(move |node, _| {
            let _ = answer.send(node.known_addresses().unwrap_or_default());
        }));
        receiver
    }
}

/// One ordered queue into the node. A node that cannot follow slows down the reading of all streams.
pub(crate) fn open_queue(door: Arc<dyn Door>) -> mpsc::Sender<Input> {
    let (sender, mut receiver) = mpsc::channel::<Input>(WAITING_INPUTS_MAX);
    tokio::spawn(async move {
        while let Some(mut input) = receiver.recv().await {
            let mut wait_ms = 1;
            while let Err(back) = door.try_deliver(input) {
                if receiver.is_closed() {
                    return;
                }
                input = back;
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                wait_ms = (wait_ms * 2).min(RETRY_MS_MAX);
            }
        }
    });
    sender
}
