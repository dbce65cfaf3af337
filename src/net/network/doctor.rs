//! What `doctor` and the dashboard see of the network.
//!
//! Invariant: looks only. Callers: the loop.

use std::collections::BTreeMap;

use super::super::diagnosis::{
    AwayDiagnosis, Diagnosis, InterfaceDiagnosis, PeerDiagnosis, away_words, host, interface_words, relay_words,
};
use super::super::dial::{Target, Way};
use super::super::key::{peer_of, with_peer};
use super::super::reason::Reason;
use super::{Network, Peer, wall_ms};
use crate::model::NodeId;

impl Network {
    pub(super) fn listening(&self) -> Vec<String> {
        self.swarm.listeners().map(|address| with_peer(address.clone(), self.own).to_string()).collect()
    }

    pub(super) fn diagnose(&self) -> Diagnosis {
        let names = self.gate.names();
        let name = |node: &NodeId| names.get(node).cloned().unwrap_or_else(|| node.to_string());
        let peer = |(node, known): (&NodeId, &Peer)| PeerDiagnosis {
            id: node.to_string(),
            name: name(node),
            connected_by: known.address.to_string(),
            addresses: self.ways_to(node).iter().map(|way| way.address.to_string()).collect(),
            dropped_frames: known.link.dropped(),
        };
        let interfaces = self.interfaces(&name);
        let hearing_s = self.beacons.then(|| self.started.elapsed().as_secs());
        let mut findings: Vec<_> = interfaces.iter().filter_map(|seen| interface_words(seen, hearing_s)).collect();
        let relays = self.relay_states();
        findings.extend(relays.iter().map(|(address, state)| relay_words(address, state)));
        let mut away = Vec::new();
        for (seen, reasons) in self.away(&names) {
            findings.push(away_words(&seen, &reasons));
            away.push(seen);
        }
        Diagnosis {
            listening: self.listening(),
            peers: self.peers.iter().map(peer).collect(),
            away,
            interfaces,
            relays,
            failures: self.failures.iter().map(|(target, reason)| (target.clone(), reason.clone())).collect(),
            banned: self.bans.keys().map(NodeId::to_string).collect(),
            discovery: if self.beacons { "on" } else { "off" }.into(),
            findings,
        }
    }

    fn ways_to(&self, node: &NodeId) -> &[Way] {
        peer_of(node).map_or(&[], |peer| self.dials.ways(&Target::Peer(peer)))
    }

    fn interfaces(&self, name: &dyn Fn(&NodeId) -> String) -> Vec<InterfaceDiagnosis> {
        let seen = self.lan.look().into_iter().map(|(interface, hearing)| InterfaceDiagnosis {
            interface,
            packets: hearing.packets,
            own: hearing.own,
            foreign: hearing.foreign,
            dropped: hearing.dropped,
            heard: hearing.members.iter().map(|(node, at)| (name(node), at.elapsed().as_secs())).collect(),
            failed: hearing.failed.unwrap_or_default(),
        });
        seen.collect()
    }

    /// The members that are not connected, and the bare addresses that lead to nobody.
    fn away(&self, names: &BTreeMap<NodeId, String>) -> Vec<(AwayDiagnosis, Vec<Reason>)> {
        let mut away = Vec::new();
        for (node, name) in names {
            if !self.peers.contains_key(node) && peer_of(node).is_some_and(|peer| peer != self.own) {
                away.push(self.away_member(node, name));
            }
        }
        for target in self.dials.targets() {
            let Target::Address(address) = target else { continue };
            let (tried, reasons) = outcomes(self.dials.ways(target));
            if !reasons.is_empty() {
                let name = address.to_string();
                away.push((AwayDiagnosis { name, tried, ..AwayDiagnosis::default() }, reasons));
            }
        }
        away
    }

    fn away_member(&self, node: &NodeId, name: &str) -> (AwayDiagnosis, Vec<Reason>) {
        let ways = self.ways_to(node);
        let (tried, reasons) = outcomes(ways);
        let worked = ways.iter().filter(|way| way.reached_ms > 0).max_by_key(|way| way.reached_ms);
        let before = worked.map(|way| (way.reached_ms, way.address.clone()));
        let last = [before, self.seen.get(node).cloned()].into_iter().flatten().max_by_key(|(at_ms, _)| *at_ms);
        let heard = self.lan.look().into_iter().filter_map(|(_, hearing)| Some(hearing.members.get(node)?.elapsed()));
        let seen = AwayDiagnosis {
            id: node.to_string(),
            name: name.into(),
            last_reached_s: last.as_ref().map(|(at_ms, _)| wall_ms().saturating_sub(*at_ms) / 1000),
            last_address: last.map(|(_, address)| host(&address.to_string()).to_string()).unwrap_or_default(),
            last_heard_s: heard.min().map(|since| since.as_secs()),
            tried,
        };
        (seen, reasons)
    }
}

fn outcomes(ways: &[Way]) -> (Vec<(String, String)>, Vec<Reason>) {
    let outcome = |way: &Way| way.failed.as_ref().map(Reason::words).unwrap_or_default();
    let tried = ways.iter().map(|way| (way.address.to_string(), outcome(way))).collect();
    (tried, ways.iter().filter_map(|way| way.failed.clone()).collect())
}
