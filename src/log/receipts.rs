//! What other servers are known to hold, kept across restarts.
//!
//! Invariant: each under its server's key, behind a check: a flipped bit must not say "safe to unplug". They lie beside the
//! node's other records by name, so that logs without them need no new table. Caller: node::receipts.

use super::read::LogRead;
use super::write::LogWrite;
use super::{LogError, record};
use crate::model::{NodeId, Receipt};

/// In front of the keys' names.
const PREFIX: &str = "receipt of ";

/// Behind the last of them.
const PREFIX_END: &str = "receipt of~";

impl LogRead {
    /// All receipts. A damaged one is left out: it is only said again.
    pub fn receipts(&self) -> Result<Vec<(NodeId, Receipt)>, LogError> {
        let mut found = Vec::new();
        for entry in self.meta.range(PREFIX..PREFIX_END)? {
            let (key, value) = entry?;
            let node = key.value().strip_prefix(PREFIX).and_then(|hex| {
                data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok())
            });
            let receipt = record::unseal::<Receipt>("receipts", key.value().as_bytes(), value.value());
            if let (Some(node), Ok(receipt)) = (node, receipt) {
                found.push((NodeId(node), receipt));
            }
        }
        Ok(found)
    }
}

impl LogWrite<'_> {
    /// Keeps what a server is known to hold.
    pub fn put_receipt(&mut self, node: &NodeId, receipt: &Receipt) -> Result<(), LogError> {
        let key = format!("{PREFIX}{node}");
        self.put_meta(&key, &record::seal(key.as_bytes(), receipt))
    }
}
