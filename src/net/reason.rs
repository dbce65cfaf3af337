//! Why a dial failed, in words that say what to do.
//!
//! Invariant: pure; every failure is one of these, the unknown ones in the system's own words. Callers: network, dial,
//! diagnosis.

use std::error::Error;

use libp2p::Multiaddr;
use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError;

/// Why an address did not lead to a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Nobody answered.
    Silence,
    /// A computer answers, but nothing listens there.
    Refused,
    /// This machine knows no way to that network.
    NoRoute,
    /// A node with another key answers.
    OtherKey,
    /// A node of another cluster answers.
    OtherCluster,
    /// This node does not take the other one for a member.
    NotAMember,
    /// The other node ended the connection at its gate.
    TurnedAway,
    /// One side has shut the other out for a while.
    Banned,
    /// Another version of the protocol, or another program.
    OtherProgram,
    /// The name is not known.
    UnknownName,
    /// The dial was not made: too many at once.
    TooMany,
    /// Anything else, as the system says it.
    Other(String),
}

/// Fragments of the words of libp2p, of the system and of our own gate. The first that fits counts.
const FRAGMENTS: &[(&str, Reason)] = &[
    ("belongs to another cluster", Reason::OtherCluster),
    ("is not a member of this cluster", Reason::NotAMember),
    ("revoked", Reason::NotAMember),
    ("shut out for a while", Reason::Banned),
    ("connection broke at the gate", Reason::TurnedAway),
    ("no litemesh node of this version", Reason::OtherProgram),
    ("no answer at the gate", Reason::Silence),
    ("onnection refused", Reason::Refused),
    ("No route to host", Reason::NoRoute),
    ("etwork is unreachable", Reason::NoRoute),
    ("Cannot assign requested address", Reason::NoRoute),
    ("imeout has been reached", Reason::Silence),
    ("imed out", Reason::Silence),
    ("esolve", Reason::UnknownName),
    ("onnection limit", Reason::TooMany),
    ("egotiat", Reason::OtherProgram),
    ("rotocol", Reason::OtherProgram),
];

impl Reason {
    /// The reason behind an error and its causes.
    pub(crate) fn of(error: &dyn Error) -> Reason {
        let words = words(error);
        let known = FRAGMENTS.iter().find(|(fragment, _)| words.contains(fragment));
        known.map_or_else(|| Reason::Other(words.chars().take(200).collect()), |(_, reason)| reason.clone())
    }

    /// What happened, as the end of "10.0.0.7: …".
    pub(crate) fn words(&self) -> String {
        match self {
            Reason::Silence => "no answer".into(),
            Reason::Refused => "a computer answers, but no node listens there".into(),
            Reason::NoRoute => "this machine has no way to that network".into(),
            Reason::OtherKey => "another node answers there".into(),
            Reason::OtherCluster => "a node of another cluster answers there".into(),
            Reason::NotAMember => "the node there is no member of this cluster (any more)".into(),
            Reason::TurnedAway => "the node there ended the connection at its gate".into(),
            Reason::Banned => "shut out for ten minutes after a breach of the protocol".into(),
            Reason::OtherProgram => "no litemesh node of this version answers there".into(),
            Reason::UnknownName => "the name is not known".into(),
            Reason::TooMany => "not tried: too many dials at once".into(),
            Reason::Other(words) => words.clone(),
        }
    }

    /// The class of failure that run tracking counts it as.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Reason::Silence => "timeout",
            Reason::NotAMember | Reason::TurnedAway | Reason::Banned => "permission",
            Reason::OtherKey | Reason::OtherCluster | Reason::OtherProgram => "peer",
            Reason::Refused | Reason::NoRoute | Reason::UnknownName | Reason::TooMany | Reason::Other(_) => "network",
        }
    }

    /// What a person can do about it.
    pub(crate) fn next(&self) -> &'static str {
        match self {
            Reason::Silence => {
                "is it switched on and on the same network? Wi-Fi access points can keep computers apart, firewalls can \
                 drop UDP and TCP 7481: try a cable, or name another address: litemesh peers add MULTIADDR"
            }
            Reason::Refused => {
                "start the node there: litemesh run; or its port has changed: litemesh peers add MULTIADDR"
            }
            Reason::NoRoute => "connect this machine to that network: cable, Wi-Fi, or an address in the same range",
            Reason::OtherKey => "its address belongs to another node now; it will be found again when it speaks up",
            Reason::OtherCluster => "make it a member of this cluster: litemesh invite here, litemesh join CODE there",
            Reason::NotAMember => "invite it (again): litemesh invite here, litemesh join CODE there",
            Reason::TurnedAway => "look at that node: litemesh doctor there; this node may be revoked or unknown there",
            Reason::Banned => "wait; when it comes again, look at the log of both nodes",
            Reason::OtherProgram => "run the same version of litemesh on both",
            Reason::UnknownName => "use the IP address instead of the name: venues often have no name server",
            Reason::TooMany | Reason::Other(_) => "it is tried again by itself",
        }
    }
}

/// The reasons of a failed dial, for each address that was tried. `all`: the addresses of the dial.
pub(crate) fn reasons(error: &DialError, all: &[Multiaddr]) -> Vec<(Multiaddr, Reason)> {
    use super::key::split_peer;
    let bare = |address: &Multiaddr| split_peer(address.clone()).1;
    match error {
        DialError::Transport(failures) => failures
            .iter()
            .map(|(address, error)| match error {
                TransportError::Other(error) => (bare(address), Reason::of(error)),
                TransportError::MultiaddrNotSupported(_) => {
                    (bare(address), Reason::Other("this machine cannot use such an address".into()))
                }
            })
            .collect(),
        DialError::WrongPeerId { address, .. } => vec![(bare(address), Reason::OtherKey)],
        DialError::Denied { cause } => {
            let reason = Reason::of(cause);
            all.iter().map(|address| (address.clone(), reason.clone())).collect()
        }
        DialError::LocalPeerId { .. }
        | DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted => Vec::new(),
    }
}

/// Why a dial failed, for who counts: its class, and what happened at the address that tells most. `None`: nothing was
/// tried.
pub(crate) fn problem_of(reasons: &[(Multiaddr, Reason)]) -> Option<String> {
    // Silence says least: of several ways to one peer most lead nowhere at the moment.
    let telling = reasons.iter().find(|(_, reason)| !matches!(reason, Reason::Silence | Reason::TooMany));
    let (_, reason) = telling.or(reasons.first()).filter(|(_, reason)| *reason != Reason::TooMany)?;
    Some(format!("{}: {}", reason.class(), reason.words()))
}

/// An error with its causes: libp2p's outermost words alone say little.
pub(crate) fn words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = inner.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::gate::GateError;
    use std::io;

    #[test]
    fn failures_are_told_apart() {
        let system = |code: i32| io::Error::from_raw_os_error(code);
        assert_eq!(Reason::of(&system(111)), Reason::Refused);
        assert_eq!(Reason::of(&system(113)), Reason::NoRoute);
        assert_eq!(Reason::of(&system(101)), Reason::NoRoute);
        assert_eq!(Reason::of(&system(110)), Reason::Silence);
        let gate = |error: GateError| Reason::of(&io::Error::other(error));
        assert_eq!(gate(GateError::OtherCluster), Reason::OtherCluster);
        assert_eq!(gate(GateError::NotAMember(crate::model::NodeId([1; 32]))), Reason::NotAMember);
        assert_eq!(gate(GateError::Banned(crate::model::NodeId([1; 32]))), Reason::Banned);
        assert_eq!(gate(GateError::Io(io::ErrorKind::UnexpectedEof.into())), Reason::TurnedAway);
        assert_eq!(gate(GateError::Timeout), Reason::Silence);
        assert_eq!(Reason::of(&io::Error::other("odd")), Reason::Other("odd".into()));
        let key = crate::net::key::keypair(&[3; 32]).public().to_peer_id();
        let address: Multiaddr = "/ip4/10.0.0.7/tcp/1".parse().unwrap();
        let wrong = DialError::WrongPeerId { obtained: key, address: address.clone() };
        assert_eq!(reasons(&wrong, &[]), [(address.clone(), Reason::OtherKey)]);
        let silent = TransportError::Other(io::Error::from(io::ErrorKind::TimedOut));
        let failed = DialError::Transport(vec![(address.clone().with_p2p(key).unwrap(), silent)]);
        assert_eq!(reasons(&failed, &[]), [(address.clone(), Reason::Silence)]);
        let of = |found: &[Reason]| -> Option<String> {
            problem_of(&found.iter().map(|reason| (address.clone(), reason.clone())).collect::<Vec<_>>())
        };
        let refused = "network: a computer answers, but no node listens there";
        assert_eq!(of(&[Reason::Silence, Reason::Refused]).as_deref(), Some(refused));
        assert_eq!((of(&[Reason::Silence]).as_deref(), of(&[Reason::TooMany])), (Some("timeout: no answer"), None));
    }
}
